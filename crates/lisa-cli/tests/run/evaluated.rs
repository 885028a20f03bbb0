//! The rows and the answers of evaluations.

use std::fs;

use lisa_cli::train::run::Start;
use lisa_lm::text::shuffled;

use super::{HELD_OUT, file_of, flags, go, lines, message, summary};

#[test]
fn evaluations_have_the_rows_that_were_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let long = format!(
        r#"{{"prompt": "{}", "completion": "no"}}"#,
        "many words ".repeat(60)
    );
    let mut rows: Vec<&str> = HELD_OUT.lines().take(20).collect();
    rows.insert(0, &long);
    rows.insert(0, r#"{"prompt": "", "completion": "yes"}"#);
    let goes_on = format!(
        r#"{{"messages": [{{"role": "user", "content": "hi"}}, {{"role": "assistant", "content": "yes"}},
        {{"role": "user", "content": "{}"}}, {{"role": "assistant", "content": "no"}}]}}"#,
        "many words ".repeat(60)
    )
    .replace('\n', "");
    rows.insert(0, &goes_on);
    let file = file_of(dir.path(), "held.jsonl", &rows);
    let more = format!(
        "--eval {file} --eval-rows 18 --final-eval-all --eval-first=false --max-new-tokens 2 \
         --eval-examples 100"
    );
    go(flags(&out, &more), Start::Fresh, false).unwrap();
    let first = summary(&out);
    assert_eq!(first["before"]["rows"], 16);
    assert!(first["before"]["answers"].is_null());
    assert_eq!(first["after"]["rows"], 18);
    // Of the long pair the whole answer is cut, so it is no row; of the chat, the last answer.
    assert_eq!(first["after_all_rows"]["rows"], 22);
    assert_ne!(first["after"]["loss"], first["after"]["first_rows_loss"]);
    // Another seed takes other rows, the same seed the same ones.
    go(flags(&out, &more), Start::Overwrite, false).unwrap();
    assert_eq!(summary(&out)["before"], first["before"]);

    let all = format!("--eval {file} --eval-rows 0 --eval-examples 100");
    go(flags(&out, &all), Start::Overwrite, false).unwrap();
    let answers = &summary(&out)["after"]["answers"];
    assert_eq!(
        (&answers["asked"], &answers["too_long"], &answers["empty"]),
        (&20.into(), &1.into(), &1.into()),
        "{answers}"
    );
    assert!(answers["cut"].as_u64().unwrap() > 0, "{answers}");

    go(flags(&out, "--no-eval"), Start::Overwrite, false).unwrap();
    assert!(summary(&out)["before"].is_null() && summary(&out)["after"].is_null());
    assert!(lines(&out).iter().all(|line| line.held_out_loss.is_none()));
}

#[test]
fn answers_are_of_the_examples_of_the_sampled_rows() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    // Each chat has two rows.
    let chat = |index: usize| {
        let turns = [("user", "a"), ("assistant", "b"), ("user", "c")]
            .map(|(role, text)| format!(r#"{{"role": "{role}", "content": "{text}"}}, "#));
        let turns = turns.concat();
        format!(r#"{{"messages": [{turns}{{"role": "assistant", "content": "{index}"}}]}}"#)
    };
    let chats: Vec<String> = (0..12).map(chat).collect();
    let chats: Vec<&str> = chats.iter().map(String::as_str).collect();
    let file = file_of(dir.path(), "held.jsonl", &chats);
    for count in [3, 20, 24] {
        let seed = 5;
        let more = format!(
            "--eval {file} --turns split --seed {seed} --eval-rows {count} --eval-first=false"
        );
        let mut given = flags(&out, &more);
        given.output.eval_examples = Some(100);
        go(given, Start::Overwrite, false).unwrap();
        let after = &summary(&out)["after"];
        assert_eq!(after["rows"], count);

        let mut chosen = shuffled(24, seed, 0)[..count].to_vec();
        // The rows before training come first.
        let first = count.min(16);
        chosen[..first].sort_unstable();
        chosen[first..].sort_unstable();
        let mut examples: Vec<usize> = Vec::new();
        for example in chosen.iter().map(|row| row / 2) {
            if !examples.contains(&example) {
                examples.push(example);
            }
        }
        assert_eq!(after["answers"]["asked"], examples.len(), "{count} rows");
        let samples = after["samples"].as_array().unwrap();
        let answers: Vec<&str> = samples
            .iter()
            .map(|sample| sample["wanted"].as_str().unwrap())
            .collect();
        let shown: Vec<String> = examples.iter().take(3).map(ToString::to_string).collect();
        assert_eq!(answers, shown, "{count} rows");
    }
}

#[test]
fn prompts_that_the_template_refuses_have_a_place_or_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let template = dir.path().join("first.jinja");
    let text = "{% if messages[0].role == 'judge' and add_generation_prompt %}\
                {{ raise_exception('no judges') }}{% endif %}{{ messages[0].content }}: \
                {% for m in messages %}{% if m.role == 'assistant' %}\
                {% generation %}{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}";
    fs::write(&template, text).unwrap();
    let answer = r#"{"role": "assistant", "content": "yes"}"#;
    let chat =
        |role: &str| format!(r#"{{"messages": [{{"role": "{role}", "content": "a"}}, {answer}]}}"#);
    let (user, judge) = (chat("user"), chat("judge"));
    let alone = format!(r#"{{"messages": [{answer}]}}"#);
    let run = |rows: &[&str], more: &str| {
        let held_out = file_of(dir.path(), "held.jsonl", rows);
        let train = file_of(dir.path(), "train.jsonl", &[&user, &user]);
        let template = template.display();
        let files = format!("--data {train} --eval {held_out} --chat-template {template}");
        flags(&out, &format!("{files} {more}"))
    };
    // Nothing is before the answer that could be asked.
    go(run(&[&alone, &user], ""), Start::Overwrite, false).unwrap();
    let after = summary(&out)["after"].clone();
    assert_eq!(
        (&after["rows"], &after["answers"]["asked"]),
        (&2.into(), &1.into())
    );

    let rows = [user.as_str(), &judge, &alone];
    let error = message(run(&rows, ""), Start::Overwrite);
    assert!(
        error.lines().next().unwrap().contains("no judges"),
        "{error}"
    );
    assert!(error.contains("held.jsonl:2\n"), "{error}");
    assert!(error.contains("--on-bad-line skip"), "{error}");

    let skip = run(&rows, "--on-bad-line skip");
    go(skip, Start::Overwrite, false).unwrap();
    let answers = summary(&out)["after"]["answers"].clone();
    assert_eq!(
        (&answers["asked"], &answers["refused"]),
        (&1.into(), &1.into())
    );
}

#[test]
fn losses_of_fewer_rows_are_a_series_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let rows: Vec<&str> = HELD_OUT.lines().take(20).collect();
    let file = file_of(dir.path(), "held.jsonl", &rows);
    let more = format!("--eval {file} --eval-rows 20 --eval-first=false --eval-every 3");
    go(flags(&out, &more), Start::Fresh, false).unwrap();
    let series =
        |pick: fn(&lisa_cli::train::metrics::line::Line) -> Option<f64>| -> Vec<(u64, f64)> {
            let lines = lines(&out).into_iter();
            lines
                .filter_map(|line| Some((line.step, pick(&line)?)))
                .collect()
        };
    let (all, first) = (
        series(|line| line.held_out_loss),
        series(|line| line.held_out_first_loss),
    );
    let steps = |of: &[(u64, f64)]| of.iter().map(|(step, _)| *step).collect::<Vec<_>>();
    // 16 rows before training, and 20 later, with the loss of the 16.
    assert_eq!(steps(&all), [3, 6, 7]);
    assert_eq!(steps(&first), [0, 3, 6, 7]);
    let summary = summary(&out);
    assert_eq!(summary["before"]["rows"], 16);
    assert_eq!(summary["before"]["loss"], first[0].1);
    assert_eq!(summary["after"]["loss"], all[2].1);
    assert_eq!(summary["after"]["first_rows_loss"], first[3].1);
    let text = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    assert!(text("losses.svg").contains("held out, rows of before"));
    assert!(text("model/README.md").contains("| this model, rows of before | "));
    let header = text("metrics.csv");
    assert!(header.starts_with("step,loss,held_out_loss,held_out_first_loss,"));
}
