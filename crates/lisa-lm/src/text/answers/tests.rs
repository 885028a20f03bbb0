use std::collections::{BTreeMap, BTreeSet};

use minijinja::value::Value;
use serde::Deserialize;

use super::*;
use crate::test_support::{given_templates, tokenizer_with};
use crate::text::chat::Message;
use crate::text::data::{Content, Example};
use crate::text::encode::encode_example;
use crate::text::encode_options::EncodeOptions;
use crate::text::encoded::IGNORED;

/// A template of `answers.json`, with its marks and without.
#[derive(Deserialize)]
struct Case {
    name: String,
    template: String,
    plain: String,
    special: BTreeMap<String, String>,
    chats: Vec<Answered>,
}

#[derive(Deserialize)]
struct Answered {
    name: String,
    messages: Vec<Message>,
    tools: Value,
    #[serde(default)]
    plain: Vec<Expected>,
    #[serde(default)]
    marked: Vec<Expected>,
    #[serde(default)]
    ids: Vec<u32>,
    #[serde(default)]
    mask: Vec<u8>,
    error: Option<String>,
}

#[derive(Clone, PartialEq, Deserialize)]
struct Expected {
    text: String,
    spans: Vec<(usize, usize)>,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("../../../../../tests/fixtures/answers.json")).unwrap()
}

fn chat_of(row: &Answered) -> Chat {
    Chat::from(row.messages.clone()).with_tools(&row.tools)
}

/// The rows with brackets around their trained text.
fn shown(template: &ChatTemplate, chat: &Chat, turns: Turns) -> Vec<String> {
    let rows = passages(chat, template, turns).unwrap().rows;
    rows.iter()
        .map(|row| bracketed(&row.text, &row.spans))
        .collect()
}

fn expected(rows: &[Expected]) -> Vec<String> {
    let byte = |text: &str, at: usize| text.chars().take(at).map(char::len_utf8).sum();
    let shown = |row: &Expected| {
        let spans = row.spans.iter();
        let spans = spans.map(|(s, e)| (byte(&row.text, *s)..byte(&row.text, *e), 1.0));
        bracketed(&row.text, &spans.collect::<Vec<_>>())
    };
    rows.iter().map(shown).collect()
}

/// The expected rows without the answers of which the template writes nothing: they are left out.
fn written(row: &Answered, template: &ChatTemplate) -> Vec<Expected> {
    let chat = chat_of(row);
    let mut wanted = row.plain.clone();
    for index in passages(&chat, template, Turns::Auto).unwrap().unwritten {
        if chat.messages[index].has_text() {
            continue;
        }
        let before = chat.messages[..index].iter();
        let answer = before.filter(|m| m.role() == "assistant").count();
        if wanted.len() > 1 {
            wanted.remove(answer);
        } else {
            wanted[0].spans.remove(answer);
        }
    }
    wanted
}

#[test]
fn answers_without_marks_are_those_of_the_marks_without_the_generation_prompt() {
    let mut split = 0;
    for case in cases() {
        let template = ChatTemplate::new(&case.plain, &case.special).unwrap();
        for row in &case.chats {
            let chat = chat_of(row);
            if row.error.is_some() {
                assert!(passages(&chat, &template, Turns::Auto).is_err());
                continue;
            }
            let found = shown(&template, &chat, Turns::Auto);
            let wanted = written(row, &template);
            assert_eq!(found, expected(&wanted), "{} {}", case.name, row.name);
            split += usize::from(row.plain.len() > 1);
        }
    }
    assert_eq!(split, 4);
}

#[test]
fn answers_with_marks_are_the_marks() {
    for case in cases() {
        let template = ChatTemplate::new(&case.template, &case.special).unwrap();
        for row in case.chats.iter().filter(|row| row.error.is_none()) {
            let found = shown(&template, &chat_of(row), Turns::Auto);
            // Marks that touch each other are one span there.
            let found: Vec<_> = found.iter().map(|row| row.replace("][", "")).collect();
            let wanted = expected(&row.marked);
            let wanted: Vec<_> = wanted.iter().map(|row| row.replace("][", "")).collect();
            assert_eq!(found, wanted, "{} {}", case.name, row.name);
        }
    }
}

#[test]
fn the_tokens_of_marks_are_those_of_transformers_mask() {
    let mut compared = 0;
    for case in cases() {
        let options = EncodeOptions {
            turns: Turns::All,
            ..EncodeOptions::default()
        };
        for source in [&case.template, &case.plain] {
            let tokenizer = tokenizer_with(source, &case.special);
            for row in case.chats.iter().filter(|row| row.error.is_none()) {
                // Without marks, what the generation prompt writes is not trained, and neither is an
                // answer of which the template writes nothing.
                let is_plain = *source == case.plain;
                let unwritten = written(row, tokenizer.chat_template()) != row.plain;
                if is_plain && (unwritten || case.name == "prompted" && row.name == "thoughts") {
                    continue;
                }
                let example = Example {
                    content: Content::Chat(chat_of(row)),
                    answer: None,
                    place: None,
                };
                let rows = encode_example(&example, &tokenizer, options).unwrap();
                let mask: Vec<u8> = (rows[0].labels.iter())
                    .map(|label| u8::from(*label != IGNORED))
                    .collect();
                assert_eq!(rows.len(), 1);
                assert_eq!(rows[0].ids, row.ids, "{} {}", case.name, row.name);
                assert_eq!(mask, row.mask, "{} {}", case.name, row.name);
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 75);
}

#[test]
fn the_last_answer_or_each_answer_can_be_asked_for() {
    let cases = cases();
    let case = cases.iter().find(|case| case.name == "turns").unwrap();
    let template = ChatTemplate::new(&case.plain, &case.special).unwrap();
    let row = case.chats.iter().find(|row| row.name == "tools").unwrap();
    let chat = Chat::from(row.messages.clone());
    let start = "[USER]\nhow many?[/]\n[ASSISTANT]\n";
    let call = "(call){\"of\": \"plums\"}[/]\n";
    let rest = "[TOOL]\n12[/]\n[ASSISTANT]\n";
    let first = format!("{start}[{call}]");
    let second = format!("{start}{call}{rest}[12[/]\n]");
    let rows = [first, second];
    assert_eq!(shown(&template, &chat, Turns::Last), rows[1..]);
    assert_eq!(shown(&template, &chat, Turns::Split), rows);
    let all = format!("{start}[{call}]{rest}[12[/]\n][USER]\nthanks[/]\n");
    assert_eq!(shown(&template, &chat, Turns::All), [all]);
}

#[test]
fn a_partial_chat_that_the_template_refuses_is_found_in_the_whole() {
    let source = "{% if messages|selectattr('role', 'equalto', 'user')|list|length == 0 %}\
        {{ raise_exception('no question') }}{% endif %}\
        {% for m in messages %}[{{ m.role }}]{{ m.content }}[/]{% endfor %}\
        {% if add_generation_prompt %}[assistant]{% endif %}";
    let template = ChatTemplate::new(source, &BTreeMap::new()).unwrap();
    let chat = Chat::from([
        Message::assistant("hello"),
        Message::user("hi"),
        Message::assistant("[/]hello"),
    ]);
    let found = shown(&template, &chat, Turns::Auto);
    let wanted = "[assistant][hello[/]][user]hi[/][assistant][[/]hello[/]]";
    assert_eq!(found, [wanted]);
    let marked = source.replace(
        "{{ m.content }}[/]",
        "{% generation %}{{ m.content }}[/]{% endgeneration %}",
    );
    let template = ChatTemplate::new(&marked, &BTreeMap::new()).unwrap();
    assert_eq!(shown(&template, &chat, Turns::Auto).len(), 1);
}

#[test]
fn all_marks_before_a_result_are_those_of_the_call_if_no_chat_may_end_with_the_call() {
    let source = "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}\
        {% if m.tool_calls and loop.last %}{{ raise_exception('no result') }}{% endif %}\
        {% if m.reasoning_content %}{% generation %}({{ m.reasoning_content }}){% endgeneration %};\
        {% endif %}{% generation %}{{ m.content }}{% if m.tool_calls %}call{% endif %}[/]\
        {% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}";
    let template = ChatTemplate::new(source, &BTreeMap::new()).unwrap();
    let chat = |weight: u8| {
        let calls = [BTreeMap::from([("name", "f")])];
        let call = Message::assistant("").with("tool_calls", calls);
        let call = call.with("reasoning_content", "R").with("weight", weight);
        Chat::from([
            Message::user("q"),
            call,
            Message::new("tool", "12"),
            Message::assistant("a"),
        ])
    };
    let first = "[user]q[assistant][(R)];[call[/]]";
    let last = "[tool]12[assistant][a[/]]";
    let without = "[user]q[assistant](R);call[/]";
    assert_eq!(
        shown(&template, &chat(1), Turns::Auto),
        [format!("{first}{last}")]
    );
    let rows = [first.to_owned(), format!("{without}{last}")];
    assert_eq!(shown(&template, &chat(1), Turns::Split), rows);
    assert_eq!(shown(&template, &chat(0), Turns::Auto), rows[1..]);
    assert_eq!(shown(&template, &chat(0), Turns::Split), rows[1..]);
}

#[test]
fn an_answer_is_empty_if_the_template_writes_nothing_of_it() {
    let cases = cases();
    let chat = |call: &str| {
        let call: Value = serde_json::from_str(call).unwrap();
        Chat::from([
            Message::user("hi"),
            Message::assistant(" ").with("tool_calls", call),
            Message::user("hi"),
            Message::assistant("hello"),
        ])
    };
    let call = r#"[{"function": {"name": "count", "arguments": {"of": "plums"}}}]"#;
    // The first writes tool calls, and the second does not.
    for (name, call, empty, unwritten) in [
        ("turns", call, &[][..], &[][..]),
        ("turns", "[]", &[1], &[]),
        ("prompted", call, &[1], &[1]),
    ] {
        let case = cases.iter().find(|case| case.name == name).unwrap();
        for source in [&case.plain, &case.template] {
            let template = ChatTemplate::new(source, &case.special).unwrap();
            let found = passages(&chat(call), &template, Turns::Auto).unwrap();
            assert_eq!(found.unwritten, unwritten, "{name}");
            // An answer that is left out is not in a row, unless it is marked.
            let is_left_out = source == &case.plain && !unwritten.is_empty();
            assert_eq!(found.empty, if is_left_out { &[] } else { empty }, "{name}");
            let spans: usize = found.rows.iter().map(|row| row.spans.len()).sum();
            assert_eq!(spans, if is_left_out { 1 } else { 2 }, "{name}");
        }
    }
}

#[test]
fn other_fields_and_null_content_do_not_hide_that_calls_are_unwritten() {
    let source = "{% for m in messages %}<{{ m.role }} {{ m.name }}>{{ m.content }};{% endfor %}";
    let template = ChatTemplate::new(source, &BTreeMap::new()).unwrap();
    let calls = r#""tool_calls": [{"function": {"name": "f", "arguments": {}}}]"#;
    for (fields, trained) in [
        (r#""content": "a", "name": "n""#, 1),
        (r#""content": null"#, 0),
    ] {
        let answer = format!(r#"{{"role": "assistant", {fields}, {calls}}}"#);
        let answer = serde_json::from_str(&answer).unwrap();
        let chat = Chat::from([Message::user("hi"), answer]);
        let found = passages(&chat, &template, Turns::Auto).unwrap();
        assert_eq!(found.unwritten, [1], "{fields}");
        let spans: usize = found.rows.iter().map(|row| row.spans.len()).sum();
        assert_eq!(spans, trained, "{fields}");
    }
}

#[test]
fn an_answer_that_the_template_skips_is_left_out() {
    let source = "{% for m in messages %}{% if loop.index != 2 %}[{{ m.content }}]{% endif %}\
                  {% if m.role == 'assistant' %}<e>{% endif %}{% endfor %}";
    let template = ChatTemplate::new(source, &BTreeMap::new()).unwrap();
    let turn = |answer: &str| [Message::user("hi"), Message::assistant(answer)];
    let chat: Chat = turn("no").into_iter().chain(turn("yes")).collect();
    let found = passages(&chat, &template, Turns::Auto).unwrap();
    assert_eq!((found.empty, found.unwritten), (vec![], vec![1]));
    let rows = found.rows.iter();
    let rows: Vec<_> = rows.map(|row| bracketed(&row.text, &row.spans)).collect();
    assert_eq!(rows, ["[hi]<e>[hi][[yes]<e>]"]);

    // With marks: nothing of the answer is in the loss, so it is not an empty one.
    let marked = source.replace(
        "[{{ m.content }}]",
        "[{% generation %}{{ m.content }}{% endgeneration %}]",
    );
    let template = ChatTemplate::new(&marked, &BTreeMap::new()).unwrap();
    let found = passages(&chat, &template, Turns::Last).unwrap();
    assert_eq!((found.empty, found.unwritten), (vec![], vec![]));
    let found = passages(&chat, &template, Turns::Split).unwrap();
    assert_eq!((found.empty, found.unwritten), (vec![], vec![1]));
}

#[test]
fn marks_of_a_first_message_before_which_the_template_refuses_a_chat_are_its_own() {
    let source = "{% if messages[0]['role'] == 'system' %}{% endif %}{% for m in messages %}\
                  [{% generation %}{{ m.content }}{% endgeneration %}]{% endfor %}";
    let template = ChatTemplate::new(source, &BTreeMap::new()).unwrap();
    let chat: Chat = [Message::user("hi"), Message::assistant("yes")]
        .into_iter()
        .collect();
    let found = passages(&chat, &template, Turns::Auto).unwrap();
    let rows = found.rows.iter();
    let rows: Vec<_> = rows.map(|row| bracketed(&row.text, &row.spans)).collect();
    assert_eq!(rows, ["[[hi]][[yes]]"]);
}

/// Which answers of this chat have something that this template does not write.
fn unwritten(source: &str, chat: &Chat) -> Vec<usize> {
    let template = ChatTemplate::new(source, &BTreeMap::new()).unwrap();
    passages(chat, &template, Turns::Auto).unwrap().unwritten
}

#[test]
fn reasoning_or_text_beside_tool_calls_that_is_left_out_is_counted() {
    let source = "{% for m in messages %}[{{ m.role }}]{% if m.tool_calls %}<call>{% else %}\
                  {{ m.content }}{% endif %}<e>{% endfor %}";
    let chat = |text: &str| {
        let calls = [BTreeMap::from([("name", "f")])];
        let answer = Message::assistant(text).with("tool_calls", calls);
        Chat::from([Message::user("Yo"), answer])
    };
    assert!(unwritten(source, &chat("")).is_empty());
    // The question has the same text.
    assert_eq!(unwritten(source, &chat("Yo")), [1]);
    let mut thinks = chat("");
    thinks.messages[1] = thinks.messages[1]
        .clone()
        .with("reasoning_content", "I think");
    assert_eq!(unwritten(source, &thinks), [1]);
    let both = source.replace("<call>", "{{ m.reasoning_content }}<call>");
    assert!(unwritten(&both, &thinks).is_empty());
}

#[test]
fn reasoning_that_is_left_out_is_counted_where_there_are_no_tool_calls() {
    let source = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<e>{% endfor %}";
    let written = source.replace("<e>", "{{ m.reasoning_content }}<e>");
    for (text, left) in [("yes", 1), ("", 0)] {
        let answer = Message::assistant(text).with("reasoning_content", "I think");
        let chat = Chat::from([Message::user("hi"), answer]);
        for (source, wanted, trained) in [(source, &[1][..], left), (&written, &[], 1)] {
            let template = ChatTemplate::new(source, &BTreeMap::new()).unwrap();
            let found = passages(&chat, &template, Turns::Auto).unwrap();
            assert_eq!(found.unwritten, wanted, "{source}");
            let spans: usize = found.rows.iter().map(|row| row.spans.len()).sum();
            assert_eq!(spans, trained, "{source}");
        }
    }
}

#[test]
fn a_thought_in_the_text_that_is_left_out_is_counted() {
    let chat = |text: &str| Chat::from([Message::user("hi"), Message::assistant(text)]);
    let cut =
        "{% for m in messages %}[{{ m.role }}]{{ m.content.split('</think>')[-1] }}<e>{% endfor %}";
    assert_eq!(
        unwritten(cut, &chat("<think>\nlong thought\n</think>\n\nYo")),
        [1]
    );
    assert_eq!(unwritten(cut, &chat("long thought</think>Yo")), [1]);
    assert!(unwritten(cut, &chat("<think>\n\n</think>\n\nYo")).is_empty());
    assert!(unwritten(cut, &chat("Yo")).is_empty());
    for end in ["</thinking>", "</thought>", "[/THINK]"] {
        let (cut, begin) = (cut.replace("</think>", end), end.replace('/', ""));
        let text = |thought: &str| format!("{begin}\n{thought}\n{end}\n\nYo");
        assert_eq!(unwritten(&cut, &chat(&text("long thought"))), [1], "{end}");
        assert!(unwritten(&cut, &chat(&text(""))).is_empty(), "{end}");
    }
    // This one writes the thought with other line breaks.
    let written = "{% for m in messages %}[{{ m.role }}]{% set parts = m.content.split('</think>') %}\
                   {{ parts[0].strip() }}{% if parts | length > 1 %}</think>{{ parts[1].strip() }}{% endif %}\
                   <e>{% endfor %}";
    assert!(unwritten(written, &chat("<think>\nlong thought\n</think>\n\nYo")).is_empty());
}

#[test]
fn an_answer_after_an_answer_that_is_written_differently_is_found() {
    let source = "{% for m in messages %}[{{ m.role }}]\
                  {% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}\
                  {{ m.content }}[/]{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
    let template = ChatTemplate::new(source, &BTreeMap::new()).unwrap();
    let chat = Chat::from([
        Message::user("q"),
        Message::assistant("a"),
        Message::assistant("b"),
    ]);
    let first = "[user]q[/][assistant][<think></think>a[/]]";
    let second = "[user]q[/][assistant]a[/][assistant][<think></think>b[/]]";
    assert_eq!(shown(&template, &chat, Turns::Auto), [first, second]);
    // As Qwen3: with reasoning, it is written the same wherever it is.
    let thinks = "{% for m in messages %}[{{ m.role }}]\
                  {% if m.role == 'assistant' and (loop.last or m.reasoning_content) %}\
                  <think>\n{{ m.reasoning_content }}\n</think>{% endif %}\
                  {{ m.content }}[/]{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
    let mut chat = chat;
    chat.messages[2] = Message::assistant("b").with("reasoning_content", "R");
    let first = "[user]q[/][assistant][<think>\n\n</think>a[/]]";
    let second = "[user]q[/][assistant]a[/][assistant][<think>\nR\n</think>b[/]]";
    let template = ChatTemplate::new(thinks, &BTreeMap::new()).unwrap();
    assert_eq!(shown(&template, &chat, Turns::Auto), [first, second]);
    // Where the generation prompt opens the thought, the tag is not in the loss.
    let opened = format!("{thinks}{{% if add_generation_prompt %}}<think>\n{{% endif %}}");
    let template = ChatTemplate::new(&opened, &BTreeMap::new()).unwrap();
    let first = "[user]q[/][assistant]<think>\n[\n</think>a[/]]";
    let second = "[user]q[/][assistant]a[/][assistant]<think>\n[R\n</think>b[/]]";
    assert_eq!(shown(&template, &chat, Turns::Auto), [first, second]);
}

#[test]
fn a_system_message_that_only_the_last_question_has_is_named() {
    let source = "{% set system = messages[0].role == 'system' %}\
                  {% set rest = messages[1:] if system else messages %}\
                  {% for m in rest %}[{{ m.role }}]\
                  {% if system and loop.last and m.role == 'user' %}{{ messages[0].content }} {% endif %}\
                  {{ m.content }}[/]{% endfor %}";
    let template = ChatTemplate::new(source, &BTreeMap::new()).unwrap();
    let chat = Chat::from([
        Message::new("system", "Be brief."),
        Message::user("q"),
        Message::assistant("a"),
    ]);
    let error = passages(&chat, &template, Turns::Auto).err().unwrap();
    let message = "the chat template writes the system message only where the user speaks last, so the \
                   answer in message 3 would be trained without it";
    assert_eq!(error.message(), message);
    let help = error.help().unwrap();
    assert!(
        help.starts_with("put the text of the system message into"),
        "{help}"
    );
}

/// The text with brackets around the spans.
fn bracketed(text: &str, spans: &[(Range<usize>, f32)]) -> String {
    let mut out = String::new();
    let mut at = 0;
    for (span, _) in spans {
        out += &format!("{}[{}]", &text[at..span.start], &text[span.clone()]);
        at = span.end;
    }
    out + &text[at..]
}

/// The numbers of the characters in the spans.
fn characters(text: &str, spans: &[(Range<usize>, f32)]) -> BTreeSet<usize> {
    let count = |at: usize| text[..at].chars().count();
    let spans = spans.iter().map(|(s, _)| count(s.start)..count(s.end));
    spans.flatten().collect()
}

/// Compares the answers that are found without marks with the marks of the same template with marks
/// (`NAME.jinja` and `NAME_training.jinja`), where both write the same text.
#[test]
#[ignore = "reads the file of LISA_TEMPLATES, which tests/fixtures/make_text.py makes of templates that one has"]
fn answers_of_real_templates_are_those_that_their_marks_give() {
    let rows = given_templates();
    let mut counts = BTreeMap::<&str, usize>::new();
    for row in &rows {
        let marked = row.name.replace(".jinja", "_training.jinja");
        let marked = rows.iter().find(|row| row.name == marked);
        let template = ChatTemplate::new(&row.template, &row.special).unwrap();
        for (index, render) in row.renders.iter().enumerate() {
            let chat = Chat::from(render.messages.clone()).with_tools(&render.tools);
            let Some(text) = render.text.as_ref().filter(|_| !render.prompt) else {
                continue;
            };
            if !render.messages.iter().any(|m| m.role() == "assistant") {
                continue;
            }
            let (name, expected) = (&row.name, marked.map(|row| &row.renders[index]));
            let mut count = |what| *counts.entry(what).or_default() += 1;
            let found = match passages(&chat, &template, Turns::Auto) {
                Err(error) => {
                    println!("{name} {index}: {error}");
                    count("refused");
                    continue;
                }
                Ok(found) => found.rows,
            };
            let expected = expected.filter(|render| render.text.as_ref() == Some(text));
            let expected = expected.and_then(|render| render.spans.as_ref());
            let same = |spans: &Vec<(usize, usize)>| {
                let spans: BTreeSet<usize> = spans.iter().flat_map(|s| s.0..s.1).collect();
                spans == characters(&found[0].text, &found[0].spans)
            };
            match (&found[..], expected) {
                ([_], Some(spans)) if same(spans) => {
                    count("equal");
                    continue;
                }
                ([_], Some(_)) => count("different"),
                ([_], None) => count("one row, not compared"),
                (_, _) => count("a row for each answer"),
            }
            println!("{name} {index}:");
            for row in &found {
                let shown = bracketed(&row.text, &row.spans);
                let start = shown.len().saturating_sub(260);
                let start = (start..shown.len())
                    .find(|at| shown.is_char_boundary(*at))
                    .unwrap_or(0);
                println!("  {:?}", &shown[start..]);
            }
        }
    }
    println!("{counts:?}");
}
