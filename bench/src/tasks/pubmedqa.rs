//! `PubMedQA`: questions about abstracts, answered by yes, no or maybe and a conclusion.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::row::{Pool, Row, json_of, text};

/// The most words of the contexts: about 290 tokens of SmolLM2. With question and answer, 98 % of the rows have at
/// most 512 tokens.
const WORDS: usize = 180;

/// The last line of the prompt.
const ASK: &str = "Answer yes, no or maybe, and then explain.";

/// Reads `ori_pqal.json`; the ids of `test_ground_truth.json` are held out.
pub(super) fn read(folder: &Path) -> Result<Pool> {
    let path = folder.join("ori_pqal.json");
    let questions: BTreeMap<String, Value> = json_of(&path)?;
    let truth_path = folder.join("test_ground_truth.json");
    let truth: BTreeMap<String, String> = json_of(&truth_path)?;
    let mut pool = Pool::default();
    let mut cut = 0;
    for (id, json) in &questions {
        let place = format!("{}, id {id}", path.display());
        match row(json, truth.get(id), place.clone()) {
            Err(reason) => pool.unused.push(format!("{place}: {reason}")),
            Ok((row, is_cut)) => {
                cut += usize::from(is_cut);
                let is_test = truth.contains_key(id);
                if is_test {
                    &mut pool.heldout
                } else {
                    &mut pool.train
                }
                .push(row);
            }
        }
    }
    for id in truth.keys().filter(|id| !questions.contains_key(*id)) {
        let reason = "the question is missing";
        pool.unused
            .push(format!("{}, id {id}: {reason}", truth_path.display()));
    }
    let of = pool.train.len() + pool.heldout.len();
    pool.remark = Some(format!("{cut} of {of} contexts are cut to {WORDS} words"));
    Ok(pool)
}

/// A row, and whether its contexts were cut.
fn row(json: &Value, truth: Option<&String>, place: String) -> Result<(Row, bool), String> {
    let question = text(json, "QUESTION")?;
    let decision = text(json, "final_decision")?;
    if !["yes", "no", "maybe"].contains(&decision) {
        return Err(format!("`final_decision` is `{decision}`"));
    }
    if let Some(truth) = truth.filter(|truth| *truth != decision) {
        return Err(format!(
            "`final_decision` is `{decision}`, but `{truth}` in the test file"
        ));
    }
    let explanation = text(json, "LONG_ANSWER")?;
    let contexts = json.get("CONTEXTS").ok_or("`CONTEXTS` is missing")?;
    let contexts = contexts.as_array().and_then(|contexts| {
        let texts = contexts
            .iter()
            .map(|context| context.as_str().map(str::trim));
        texts.collect::<Option<Vec<_>>>()
    });
    let contexts = contexts.ok_or("`CONTEXTS` is not a list of texts")?;
    let (contexts, is_cut) = last_sentences(&contexts, WORDS);
    if contexts.is_empty() {
        return Err("`CONTEXTS` is empty".into());
    }
    let row = Row {
        place,
        prompt: format!("{contexts}\n\n{question}\n{ASK}"),
        answer: format!("{decision}. {explanation}"),
    };
    Ok((row, is_cut))
}

/// The last whole sentences of the paragraphs, with at most `words` words together, and whether some are
/// missing. Abstracts end with their results, so the end is kept. The last sentence always stays.
fn last_sentences(paragraphs: &[&str], words: usize) -> (String, bool) {
    let (mut kept, mut count, mut is_cut) = (String::new(), 0, false);
    'all: for paragraph in paragraphs.iter().rev().filter(|text| !text.is_empty()) {
        let mut separator = "\n";
        for sentence in sentences(paragraph).into_iter().rev() {
            count += sentence.split_whitespace().count();
            if !kept.is_empty() {
                if count > words {
                    is_cut = true;
                    break 'all;
                }
                kept.insert_str(0, separator);
            }
            kept.insert_str(0, sentence);
            separator = " ";
        }
    }
    (kept, is_cut)
}

/// The sentences of a text. One ends at `.`, `?` or `!` before white space and something that is not a
/// small letter.
fn sentences(text: &str) -> Vec<&str> {
    let mut sentences = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices(['.', '?', '!']) {
        let rest = &text[at + 1..];
        let next = rest.trim_start();
        let ends = next.len() < rest.len() && !next.starts_with(char::is_lowercase);
        if ends && !next.is_empty() {
            sentences.push(&text[start..=at]);
            start = text.len() - next.len();
        }
    }
    sentences.push(&text[start..]);
    sentences
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn question(decision: &str) -> Value {
        json!({
            "QUESTION": "Do plants grow?",
            "CONTEXTS": ["Plants were watered.", "They grew by 1.5 cm."],
            "LONG_ANSWER": "They do.",
            "final_decision": decision,
        })
    }

    #[test]
    fn a_row_asks_about_its_contexts() {
        let (row, is_cut) = row(&question("maybe"), None, "a".into()).unwrap();
        assert_eq!(
            row.prompt,
            "Plants were watered.\nThey grew by 1.5 cm.\n\nDo plants grow?\nAnswer yes, no or maybe, and then explain."
        );
        assert_eq!((row.answer.as_str(), is_cut), ("maybe. They do.", false));
    }

    #[test]
    fn sentences_end_before_a_capital_or_a_number() {
        let text =
            "In A. thaliana it was 1.5 cm (p < 0.05). Why? 20 plants died! (All.) E.g. roses.";
        let found = sentences(text);
        let wanted = [
            "In A. thaliana it was 1.5 cm (p < 0.05).",
            "Why?",
            "20 plants died!",
            "(All.) E.g. roses.",
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn the_first_sentences_are_cut() {
        let paragraphs = ["One two. Three four.", "Five. Six seven."];
        let cut = |words| last_sentences(&paragraphs, words);
        assert_eq!(
            cut(7),
            ("One two. Three four.\nFive. Six seven.".into(), false)
        );
        assert_eq!(cut(6), ("Three four.\nFive. Six seven.".into(), true));
        assert_eq!(cut(4), ("Five. Six seven.".into(), true));
        assert_eq!(cut(2), ("Six seven.".into(), true));
        // A sentence is never cut.
        assert_eq!(cut(1), ("Six seven.".into(), true));
        assert_eq!(last_sentences(&[""], 3), (String::new(), false));
    }

    #[test]
    fn the_ids_of_the_test_file_are_held_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut long = question("no");
        long["CONTEXTS"] = json!(["Water helps. ".repeat(200)]);
        let mut odd = question("perhaps");
        odd["CONTEXTS"] = json!("text");
        let mut missing = question("no");
        missing.as_object_mut().unwrap().remove("LONG_ANSWER");
        let mut single = question("no");
        single["CONTEXTS"] = json!("text");
        let mut empty = question("no");
        empty["CONTEXTS"] = json!([" "]);
        let questions = json!({
            "1": question("yes"), "2": long, "3": question("no"), "4": odd, "5": missing, "6": single, "7": empty,
        });
        let truth = json!({"2": "no", "3": "yes", "9": "no"});
        let write = |file: &str, json: Value| {
            std::fs::write(dir.path().join(file), json.to_string()).unwrap();
        };
        write("ori_pqal.json", questions);
        write("test_ground_truth.json", truth);
        let pool = read(dir.path()).unwrap();
        assert_eq!((pool.train.len(), pool.heldout.len()), (1, 1));
        assert!(pool.heldout[0].place.ends_with("ori_pqal.json, id 2"));
        assert_eq!(pool.remark.unwrap(), "1 of 2 contexts are cut to 180 words");
        let start = dir.path().display().to_string().len() + 1;
        let unused: Vec<_> = pool.unused.iter().map(|text| &text[start..]).collect();
        let wanted = [
            "ori_pqal.json, id 3: `final_decision` is `no`, but `yes` in the test file",
            "ori_pqal.json, id 4: `final_decision` is `perhaps`",
            "ori_pqal.json, id 5: `LONG_ANSWER` is missing",
            "ori_pqal.json, id 6: `CONTEXTS` is not a list of texts",
            "ori_pqal.json, id 7: `CONTEXTS` is empty",
            "test_ground_truth.json, id 9: the question is missing",
        ];
        assert_eq!(unused, wanted);
    }
}
