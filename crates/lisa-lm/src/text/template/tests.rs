use super::*;
use crate::test_support::{Rendering, given_templates};

mod chats;
mod jinja;

fn fixture() -> Vec<Rendering> {
    serde_json::from_str(include_str!("../../../../../tests/fixtures/chat.json")).unwrap()
}

fn special() -> BTreeMap<String, String> {
    BTreeMap::from([("eos_token".to_owned(), "</s>".to_owned())])
}

/// What is not as in transformers, and the messages of the errors where transformers has one too.
fn compare(rows: &[Rendering]) -> (Vec<String>, Vec<String>) {
    let (mut different, mut refused) = (Vec::new(), Vec::new());
    for row in rows {
        let template = ChatTemplate::new(&row.template, &row.special).unwrap();
        for render in &row.renders {
            let chat = Chat::from(render.messages.clone()).with_tools(&render.tools);
            match (template.render(&chat, render.prompt), &render.text) {
                (Ok(found), Some(wanted)) => {
                    let text = &found.text;
                    let count = |bytes: usize| text[..bytes].chars().count();
                    let spans = found.generated.as_ref().map(|spans| {
                        let spans = spans.iter().map(|s| (count(s.start), count(s.end)));
                        spans.collect::<Vec<_>>()
                    });
                    if text != wanted || (render.spans.is_some() && spans != render.spans) {
                        let name = &row.name;
                        different.push(format!(
                            "{name}: {found:?}\n  {wanted:?} {:?}",
                            render.spans
                        ));
                    }
                }
                (Err(error), None) => refused.push(error.message().to_owned()),
                (Ok(found), None) => different.push(format!("{}: {found:?}", row.name)),
                (Err(error), Some(_)) => different.push(format!("{}: {error}", row.name)),
            }
        }
    }
    (different, refused)
}

#[test]
fn templates_render_as_in_transformers() {
    let rows = fixture();
    assert_eq!(rows.len(), 6);
    let (different, refused) = compare(&rows);
    assert!(different.is_empty(), "{different:#?}");
    for message in refused {
        assert!(message.contains("roles must alternate"), "{message}");
    }
}

#[test]
#[ignore = "reads the file of LISA_TEMPLATES, which tests/fixtures/make_text.py makes of templates that one has"]
fn templates_of_real_models_render_as_in_transformers() {
    let rows = given_templates();
    let all: usize = rows.iter().map(|row| row.renders.len()).sum();
    let (different, refused) = compare(&rows);
    let (count, refused) = (rows.len(), refused.len());
    println!("{count} templates, {all} renderings, {refused} of them errors in both");
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn the_default_template_writes_turns_and_refuses_what_it_cannot_write() {
    let template = ChatTemplate::default_for(&special());
    let chat = Chat::from([
        Message::new("system", "Be brief. "),
        Message::user("Hi\n"),
        Message::assistant("Hello"),
        Message::user("Bye"),
    ]);
    assert_eq!(
        template.render(&chat, true).unwrap().text,
        "Be brief.\n\nUser: Hi\nAssistant: Hello</s>\nUser: Bye\nAssistant:"
    );
    let refusal = |message| template.render(&Chat::from([message]), false).unwrap_err();
    let error = refusal(Message::new("critic", ""));
    assert!(error.message().contains("unknown role critic"), "{error}");
    assert!(
        error.message().contains("refuses a chat of critic"),
        "{error}"
    );
    let calls = [BTreeMap::from([("name", "add")])];
    let error = refusal(
        Message::assistant("")
            .with("content", ())
            .with("tool_calls", calls),
    );
    assert!(error.message().contains("needs text"), "{error}");
}

/// The rendering of a short chat, or the error.
fn rendered(source: &str) -> Result<Rendered, String> {
    let chat = Chat::from([
        Message::user("Two and two?"),
        Message::assistant("four").with("reasoning_content", "2 + 2"),
    ]);
    let template = ChatTemplate::new(source, &special()).map_err(|e| e.to_string())?;
    template.render(&chat, false).map_err(|e| e.to_string())
}

#[test]
fn a_template_that_runs_away_is_stopped() {
    let cases = [
        (
            "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
            "fuel",
        ),
        (
            "{% macro m(x) %}{{ m([x]) }}{% endmacro %}{{ m(1) }}",
            "recursion",
        ),
        (
            "{% set x = '0123456789abcdef' * 65536 %}{% for i in range(65) %}{{ x }}{% endfor %}",
            "failed to write",
        ),
        ("{{ ''[::-1] }}", "the engine panicked"),
        ("{{ 'x'.rsplit('') }}", "empty separator"),
        ("{{ 'x'.rsplit('', 1) }}", "empty separator"),
        ("{{ 'x'.split('') }}", "empty separator"),
        ("{{ 'x'.partition('') }}", "empty separator"),
        ("{{ 'x'.rpartition('') }}", "empty separator"),
    ];
    for (source, expected) in cases {
        let error = rendered(source).unwrap_err();
        assert!(error.contains(expected), "{source}: {error}");
    }
}

#[test]
fn expressions_are_what_they_are_in_python() {
    let cases = [
        (
            "{{ 'o' in 'four' and not 'x' in 'four' }}{{ none }}{{ undefined_name }}",
            "TrueNone",
        ),
        (
            "{{ [1, 'a', \"it's\", none, 2.0, {'k': true}] }}",
            "[1, 'a', \"it's\", None, 2.0, {'k': True}]",
        ),
        (
            "{{ {'k': [1]} | string }}|{{ 1e16 }}|{{ 0.00001 }}",
            "{'k': [1]}|1e+16|1e-05",
        ),
        (
            "{{ ''.count('') }}{{ 'aa'.count('a') }}{{ ''.isdigit() }}",
            "12False",
        ),
        (
            "{{ 'a b c'.rsplit(' ', 1) }}{{ ' a  b '.rsplit() }}",
            "['a b', 'c']['a', 'b']",
        ),
        ("{{ 'a  b  c '.rsplit(none, 1) }}", "['a  b', 'c']"),
        ("{{ 'abc'.removeprefix('a').removesuffix('c') }}", "b"),
        (
            "{{ 'a=b=c'.partition('=') }}{{ 'a=b=c'.rpartition('=') }}",
            "['a', '=', 'b=c']['a=b', '=', 'c']",
        ),
        (
            "{{ 'abc'.partition('=') }}{{ 'abc'.rpartition('=') }}",
            "['abc', '', '']['', '', 'abc']",
        ),
        (
            "{{ 'éa'.find('a') }}{{ 'é'.find('a') }}{{ 'éaa'.rfind('a') }}{{ [3, 4].index(4) }}",
            "1-121",
        ),
        (
            "{{ 'a' is sequence }}{{ {} is sequence }}{{ none is iterable }}",
            "TrueTrueFalse",
        ),
        (
            "{{ 'a,b'.split(',')[-1] }}{{ 'x'.upper() ~ ' y '.strip() }}",
            "bXy",
        ),
        (
            "{{ messages[1].thinking }}{{ messages[0].content[4:7] ~ '!' }}",
            "2 + 2and!",
        ),
        (
            "{{ messages | map(attribute='role') | join(', ') }}",
            "user, assistant",
        ),
        (
            "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
            "1",
        ),
        (
            "{% for m in messages %}{% if m.role == 'user' %}{% continue %}{% endif %}{{ m.content }}{% endfor %}",
            "four",
        ),
        (
            "{% set ns = namespace(a=1) %}{% for i in range(3) %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}",
            "4",
        ),
        ("{% set x %} a\n{% endset %}{{ x | trim | upper }}", "A"),
        (
            "{% macro f(a, b='-' ~ '-') %}{{ a ~ b }}{% endmacro %}{{ f('x') }}",
            "x--",
        ),
        (
            "{{ 'abc'.replace('', '-') }}|{{ 'abc'.replace('', '-', 2) }}|{{ 'é'.count('') }}",
            "-a-b-c-|-a-bc|2",
        ),
        ("{{ 1 + 2 * 3 - 4 / 2 }}", "5.0"),
        ("{{ -2 * -3 }}{{ 7 // 2 * 2 }}", "66"),
        (
            "{{ 'a' ~ 1 + 2 ~ 'b' }}{{ 'a' ~ (1 + 2) ~ 'b' }}",
            "a12ba3b",
        ),
        ("{{ 'ab' * 3 }}|{{ 3 * 'x' }}", "ababab|xxx"),
        ("{{ 'x' not in ['a'] }}{{ 1 < 2 < 3 }}", "TrueTrue"),
        ("{{ 'abc'[::-1] }}", "cba"),
        ("{{ 12|replace(1, 3) }}{{ [1, [2]]|join(0) }}", "3210[2]"),
        ("{{ '%s %d'|format([1], 2) }}", "[1] 2"),
        ("{{ 'a' if 1 == 1 else 'b' ~ 'c' }}", "a"),
        (
            "{% for m in messages + [] %}{{ loop.index0 + 1 }}{% endfor %}",
            "12",
        ),
        (
            "{{ '%s-%02d' | format('a', 3) }}{{ '{}'.format('z') }}",
            "a-03z",
        ),
    ];
    for (source, expected) in cases {
        let found = rendered(source).map(|rendered| rendered.text);
        assert_eq!(found.as_deref(), Ok(expected), "{source}");
    }
}

// What Python's json.dumps writes, with the arguments that transformers hands on.
#[test]
fn json_is_written_as_in_python() {
    let cases = [
        (
            "{{ {'b': [1, 2.5, none, true], 'a': 'é\"\n<'} | tojson }}",
            r#"{"b": [1, 2.5, null, true], "a": "é\"\n<"}"#,
        ),
        (
            "{{ {'b': 1, 'a': '🍐'} | tojson(ensure_ascii=true, sort_keys=true) }}",
            r#"{"a": "\ud83c\udf50", "b": 1}"#,
        ),
        (
            "{{ {'a': [1], 'b': [], 'c': {}} | tojson(indent=2) }}",
            "{\n  \"a\": [\n    1\n  ],\n  \"b\": [],\n  \"c\": {}\n}",
        ),
        (
            "{{ [1, {'a': 2}] | tojson(separators=(',', ':')) }}",
            r#"[1,{"a":2}]"#,
        ),
        (
            "{{ [1e16, 1e-7, 1e300 * 1e300] | tojson }}",
            "[1e+16, 1e-07, Infinity]",
        ),
    ];
    for (source, expected) in cases {
        let found = rendered(source).map(|rendered| rendered.text);
        assert_eq!(found.as_deref(), Ok(expected), "{source}");
    }
    assert!(rendered("{{ nothing | tojson }}").is_err());
}

#[test]
fn generation_blocks_mark_what_the_assistant_says() {
    let source = "{% for m in messages %}{{ m.role }}:\n\
        {%- if m.role == 'assistant' %}\n  {%- generation -%}  {{ m.content + eos_token }}\n\
        {%- if loop.last %}!{% endif %}{% endgeneration %}{% endif %}{% endfor %}";
    let found = rendered(source).unwrap();
    assert_eq!(found.text, "user:assistant:four</s>!");
    let spans = found.generated.unwrap();
    assert_eq!((spans.len(), spans[0].clone()), (1, 15..24));
    // A block is a scope, but it can assign to a namespace outside.
    let source = "{% set x = 1 %}{% set ns = namespace(x=1) %}\
        {% generation %}{% set x = 2 %}{% set ns.x = 2 %}{{ x }}{% endgeneration %}{{ x }}{{ ns.x }}";
    let found = rendered(source).unwrap();
    assert_eq!(found.text, "212");
    assert_eq!(found.generated.unwrap()[0], 0..1);
    let source = "{% for m in messages %}{{ m.content }}{% endfor %}";
    assert_eq!(rendered(source).unwrap().generated, None);
    let source = "{% generation %}a{% endgeneration %}\u{FDD0}";
    assert!(rendered(source).unwrap_err().contains("U+FDD0"));
    assert!(
        rendered("{% generation %}a")
            .unwrap_err()
            .contains("does not parse")
    );
}

#[test]
fn a_long_chat_is_within_the_limits() {
    let chat: Chat = (0..2000)
        .flat_map(|_| {
            [
                Message::user("a".repeat(500)),
                Message::assistant("b".repeat(500)),
            ]
        })
        .collect();
    for row in fixture() {
        let template = ChatTemplate::new(&row.template, &row.special).unwrap();
        let text = template.render(&chat, false);
        assert!(text.is_ok(), "{}: {}", row.name, text.unwrap_err());
    }
}

#[test]
fn a_template_of_more_than_a_megabyte_is_refused() {
    assert!(rendered(&"a".repeat(1 << 20)).is_ok());
    let error = rendered(&"a".repeat((1 << 20) + 1)).unwrap_err();
    assert!(error.contains("more than 1048576"), "{error}");
}

#[test]
fn a_template_that_does_not_parse_names_the_line() {
    let error = ChatTemplate::new("a\n{% for %}", &special()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Template);
    assert!(error.message().contains("(line 2)"), "{error}");
    // The message has all of it, so that a report does not say it twice.
    assert!(std::error::Error::source(&error).is_none());
}

#[test]
fn the_date_is_written_by_strftime() {
    let text = rendered("{{ strftime_now('%d %b %Y') }}").unwrap().text;
    let parts: Vec<&str> = text.split(' ').collect();
    let [day, month, year] = parts.as_slice() else {
        panic!("{text}");
    };
    assert_eq!((day.len(), month.len()), (2, 3), "{text}");
    assert!(year.parse::<u32>().unwrap() >= 2024, "{text}");
}

#[test]
fn named_templates_write_the_formats_of_their_names() {
    let special = BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned())]);
    let chat = Chat::from([
        Message::new("system", "Be brief."),
        Message::user(" a "),
        Message::assistant("b"),
    ]);
    let rendered = |name: &str| {
        let template = ChatTemplate::named(name, &special).unwrap();
        assert_eq!(template.name(), name);
        let render = |chat: &Chat, prompt| template.render(chat, prompt).unwrap().text;
        (render(&chat, false), render(&chat.before(2), true))
    };
    let start = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n a <|im_end|>\n\
                 <|im_start|>assistant\n";
    assert_eq!(
        rendered("chatml"),
        (format!("{start}b<|im_end|>\n"), start.to_owned())
    );
    let header = |role: &str| format!("<|start_header_id|>{role}<|end_header_id|>\n\n");
    let [system, user, assistant] = ["system", "user", "assistant"].map(header);
    let start = format!("<s>{system}Be brief.<|eot_id|>{user}a<|eot_id|>{assistant}");
    assert_eq!(rendered("llama3"), (format!("{start}b<|eot_id|>"), start));
    let start = "<s>Be brief.\n\nUser: a\nAssistant:".to_owned();
    assert_eq!(rendered("plain"), (format!("{start} b\n"), start));
    for named in &super::NAMED {
        let template = ChatTemplate::named(named.name, &special).unwrap();
        let parts = Message::user("a").with("content", Vec::<String>::new());
        let error = template.render(&Chat::from([parts]), false).unwrap_err();
        assert!(
            error.message().contains("needs text in every message"),
            "{error}"
        );
    }
}
