use super::*;

#[derive(Deserialize)]
struct Row {
    name: String,
    template: String,
    special: BTreeMap<String, String>,
    renders: Vec<Render>,
}

#[derive(Deserialize)]
struct Render {
    messages: Vec<Message>,
    prompt: bool,
    text: Option<String>,
}

fn special() -> BTreeMap<String, String> {
    BTreeMap::from([("eos_token".to_owned(), "</s>".to_owned())])
}

/// Renders the chats of all rows; the messages of the errors where transformers has one too.
fn as_in_transformers(rows: &[Row]) -> Vec<String> {
    let mut refused = Vec::new();
    for row in rows {
        let template = ChatTemplate::new(&row.template, &row.special).unwrap();
        for render in &row.renders {
            let text = template.render(&render.messages, render.prompt);
            if let Some(expected) = &render.text {
                assert_eq!(&text.unwrap(), expected, "{}", row.name);
            } else {
                refused.push(text.unwrap_err().message().to_owned());
            }
        }
    }
    refused
}

#[test]
fn templates_render_as_in_transformers() {
    let rows: Vec<Row> =
        serde_json::from_str(include_str!("../../../../../tests/fixtures/chat.json")).unwrap();
    assert_eq!(rows.len(), 5);
    for message in as_in_transformers(&rows) {
        assert!(message.contains("roles must alternate"), "{message}");
    }
}

#[test]
#[ignore = "reads the file of LISA_TEMPLATES, which tests/fixtures/make_text.py makes of templates that one has"]
fn templates_of_real_models_render_as_in_transformers() {
    let path = std::env::var("LISA_TEMPLATES").unwrap();
    let rows: Vec<Row> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let refused = as_in_transformers(&rows).len();
    let all: usize = rows.iter().map(|row| row.renders.len()).sum();
    println!(
        "{} templates, {all} texts the same, {refused} of them errors",
        rows.len()
    );
}

#[test]
fn the_default_template_writes_turns_and_refuses_unknown_roles() {
    let template = ChatTemplate::default_for(&special());
    let chat = [
        Message::new("system", "Be brief. "),
        Message::user("Hi\n"),
        Message::assistant("Hello"),
        Message::user("Bye"),
    ];
    assert_eq!(
        template.render(&chat, true).unwrap(),
        "Be brief.\n\nUser: Hi\nAssistant: Hello</s>\nUser: Bye\nAssistant:"
    );
    let error = template
        .render(&[Message::new("critic", "")], false)
        .unwrap_err();
    assert!(error.message().contains("unknown role critic"), "{error}");
    assert!(
        error.message().contains("refuses a chat of critic"),
        "{error}"
    );
}

#[test]
fn a_template_that_runs_away_is_stopped() {
    let source = "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}";
    let template = ChatTemplate::new(source, &special()).unwrap();
    let error = template.render(&[], false).unwrap_err();
    assert!(error.message().contains("fuel"), "{error}");
}

/// What rendering says to a template.
fn refusal(source: &str) -> String {
    let template = ChatTemplate::new(source, &special()).unwrap();
    let chat = [Message::user("Two and two?"), Message::assistant("four")];
    match template.render(&chat, false) {
        Ok(text) => format!("wrote {} bytes", text.len()),
        Err(error) => error.to_string(),
    }
}

#[test]
#[allow(clippy::too_many_lines)]
fn a_template_that_makes_gigabytes_is_stopped() {
    let makes = "it makes more than";
    let cases = [
        // Sixty doublings; a text, a list, what is captured, what a macro returns.
        (
            "{% set ns = namespace(x='ab') %}{% for i in range(60) %}\
             {% set ns.x = ns.x ~ ns.x %}{% endfor %}",
            makes,
        ),
        (
            "{% set ns = namespace(x='ab') %}{% for i in range(60) %}\
             {% set ns.x = ns.x + '' + ns.x %}{% endfor %}",
            makes,
        ),
        (
            "{% set ns = namespace(x=['ab']) %}{% for i in range(60) %}\
             {% set ns.x = ns.x + ns.x %}{% endfor %}",
            makes,
        ),
        (
            "{% set ns = namespace(x='ab') %}{% for i in range(60) %}\
             {% set x %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = x %}{% endfor %}",
            makes,
        ),
        (
            "{% set ns = namespace(x='ab') %}{% for i in range(60) %}\
             {% set ns.x = '%s%s'|format(ns.x, ns.x) %}{% endfor %}",
            makes,
        ),
        (
            "{% set ns = namespace(x='ab') %}{% for i in range(60) %}\
             {% set ns.x = [ns.x, ns.x]|join %}{% endfor %}",
            makes,
        ),
        (
            "{% set ns = namespace(x='ab') %}{% for i in range(60) %}\
             {% set ns.x = ns.x.replace('b', ns.x) %}{% endfor %}",
            makes,
        ),
        (
            "{% set ns = namespace(x='ab') %}{% for i in range(60) %}\
             {% set ns.x = ns.x.join([ns.x, ns.x]) %}{% endfor %}",
            makes,
        ),
        // One large thing.
        ("{{ 'a' * 10**9 }}", "the one product"),
        ("{{ 'a' * 4096 * 4096 }}", "the one product"),
        ("{{ ('a' * 4096) * 4096 }}", "the one product"),
        (
            "{% set x = 'a' * 4096 %}{{ x * 4096 }}",
            "texts up to 256 bytes",
        ),
        ("{{ 'a' * 100000000 }}", "numbers up to 4096"),
        ("{{ 10**8 // 1 * 'a' }}", "the one product"),
        ("{{ [1] * 4000 }}", "takes no lists"),
        ("{{ range(100000)|join('a' * 4096) }}", makes),
        ("{{ '%999999999d'|format(1) }}", "widths below 1000"),
        ("{{ '%*d'|format(999999999, 1) }}", "widths below 1000"),
        ("{{ '{:>999999999}'.format(1) }}", "widths below 1000"),
        ("{{ 'a'|indent(999999999) }}", "numbers up to 256"),
        ("{{ [1]|batch(1000000000, 'x') }}", "numbers up to 1000"),
        ("{{ [1]|slice(1000000000)|list }}", "numbers up to 1000"),
        ("{{ [1]|tojson(indent=1000000000) }}", ""),
        // What is no text would be printed first.
        (
            "{{ range(100000)|replace('', 'a' * 200) }}",
            "takes texts and numbers",
        ),
        (
            "{{ 'a'|replace('a', range(100000)) }}",
            "takes texts and numbers",
        ),
        (
            "{{ [1, 2]|join(range(100000)) }}",
            "takes texts and numbers",
        ),
        ("{{ range(100000)|indent(4) }}", "takes texts and numbers"),
        ("{{ range(100000)|split(',') }}", "takes texts and numbers"),
        ("{{ range(100000)|title }}", "takes texts and numbers"),
        ("{{ range(100000)|format }}", "takes texts and numbers"),
        // Many middling ones that are kept.
        (
            "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}\
             {% set ns.x = ns.x + ['a' * 4096] %}{% endfor %}",
            makes,
        ),
        (
            "{% set x %}{% for i in range(100000) %}{% for j in range(100) %}\
             0123456789012345678901234567890123456789012345678901234567890123456789\
             0123456789012345678901234567890123456789012345678901234567890123456789\
             0123456789012345678901234567890123456789012345678901234567890123456789\
             0123456789012345678901234567890123456789012345678901234567890123456789\
             0123456789012345678901234567890123456789012345678901234567890123456789\
             {% endfor %}{% endfor %}{% endset %}",
            "fuel",
        ),
        // Little memory and much time: long texts, compared over and over.
        (
            "{% set a = 'a' * 4096 %}{% set a = a ~ a ~ a %}\
             {% for i in range(100000) %}{% if a ~ 'b' == a ~ 'c' or 'b' in a %}{% endif %}{% endfor %}",
            makes,
        ),
    ];
    for (source, expected) in cases {
        let found = refusal(source);
        assert!(found.contains(expected), "{source}: {found}");
    }
}

#[test]
fn values_that_lie_in_one_another_without_end_are_refused() {
    let deep = "lists and maps lie more than";
    let data = "lists and maps can be assigned";
    let cases = [
        (
            "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}\
             {% set ns.x = [ns.x] %}{% endfor %}",
            deep,
        ),
        (
            "{% set ns = namespace(x=1) %}{% for i in range(100000) %}\
             {% set ns.x = {'a': ns.x} %}{% endfor %}",
            deep,
        ),
        ("{% set ns = namespace() %}{% set ns.me = ns %}", data),
        (
            "{% set ns = namespace() %}{% set ns.me = [{'a': ns}] %}",
            data,
        ),
        (
            "{% set ns = namespace() %}{% set (ns.a, ns.b) = [1, ns] %}",
            data,
        ),
        (
            "{% set ns = namespace() %}{% set ns.a = dict(a=ns)|items %}",
            data,
        ),
        (
            "{% set ns = namespace() %}{% set other = namespace(a=ns) %}{% set ns.b = other %}",
            data,
        ),
        (
            "{% set ns = namespace() %}{% macro m() %}{{ ns }}{% endmacro %}{% set ns.m = m %}",
            data,
        ),
        (
            "{% macro m(x) %}{{ m([x]) }}{% endmacro %}{{ m(1) }}",
            "recursion",
        ),
    ];
    for (source, expected) in cases {
        let found = refusal(source);
        assert!(found.contains(expected), "{source}: {found}");
    }
}

#[test]
fn what_the_engine_panics_on_is_an_error() {
    let found = refusal("{{ ''[::-1] }}");
    assert!(found.contains("the engine broke down on it"), "{found}");
    assert_eq!(refusal("{{ 'abc'[::-1] }}"), "wrote 3 bytes");
}

#[test]
fn ordinary_expressions_are_what_they_were() {
    let cases = [
        ("{{ 1 + 2 * 3 - 4 / 2 }}", "5.0"),
        ("{{ 12|replace(1, 3) }}{{ [1, [2]]|join(0) }}", "3210[2]"),
        ("{{ '%s %d'|format([1], 2) }}", "[1] 2"),
        ("{{ 'a' ~ 1 + 2 ~ 'b' }}", "a12b"),
        ("{{ 'a' ~ (1 + 2) ~ 'b' }}", "a3b"),
        ("{{ 'ab' * 3 }}|{{ 3 * 'x' }}", "ababab|xxx"),
        ("{{ -2 * -3 }}{{ 7 // 2 * 2 }}", "66"),
        ("{{ 'o' in 'four' and not 'x' in 'four' }}", "True"),
        ("{{ 'x' not in ['a'] }}{{ 1 < 2 < 3 }}", "TrueTrue"),
        ("{{ 'a' if 1 == 1 else 'b' ~ 'c' }}", "a"),
        ("{{ messages[0].content[4:7] ~ '!' }}", "and!"),
        (
            "{{ messages|map(attribute='role')|join(', ') }}",
            "user, assistant",
        ),
        (
            "{{ messages|selectattr('role', 'equalto', 'user')|list|length }}",
            "1",
        ),
        (
            "{% for m in messages + [] %}{{ loop.index0 + 1 }}{% endfor %}",
            "12",
        ),
        (
            "{% set ns = namespace(a=1) %}{% set ns.x = ns|items %}{% set ns.a = 2 %}{{ ns.x }}",
            "[[\"a\", 1]]",
        ),
        (
            "{% set ns = namespace() %}{% set ns.x = {'b': [1], 'a': 'c'} %}{{ ns.x|tojson }}",
            "{\"b\": [1], \"a\": \"c\"}",
        ),
        (
            "{% set ns = namespace(a=1) %}{% set ns.a = ns.a + 1 %}{{ ns.a }}",
            "2",
        ),
        (
            "{% set x = {'a': [1, 2]} %}{{ x|tojson }}{{ x.a[1] }}",
            "{\"a\": [1, 2]}2",
        ),
        ("{% set x %} a\n{% endset %}{{ x|trim|upper }}", "A"),
        (
            "{% macro f(a, b='-' ~ '-') %}{{ a ~ b }}{% endmacro %}{{ f('x') }}",
            "x--",
        ),
        (
            "{{ 'a,b'.split(',')[-1] }}{{ 'x'.upper() ~ ' y '.strip() }}",
            "bXy",
        ),
        (
            "{{ '%s-%02d'|format('a', 3) }}{{ '{}'.format('z') }}",
            "a-03z",
        ),
        (
            "{{ 'aXb'|replace('X', '--')|e }}{{ none }}{{ undefined_name }}",
            "a--bNone",
        ),
    ];
    for (source, expected) in cases {
        let template = ChatTemplate::new(source, &special()).unwrap();
        let chat = [Message::user("Two and two?"), Message::assistant("four")];
        let text = template.render(&chat, false).unwrap_or("error".into());
        assert_eq!(text, expected, "{source}");
    }
}

#[test]
fn a_long_chat_fits_into_the_budget() {
    let rows: Vec<Row> =
        serde_json::from_str(include_str!("../../../../../tests/fixtures/chat.json")).unwrap();
    let chat: Vec<Message> = (0..2000)
        .flat_map(|_| {
            [
                Message::user("a".repeat(500)),
                Message::assistant("b".repeat(500)),
            ]
        })
        .collect();
    for row in rows {
        let template = ChatTemplate::new(&row.template, &row.special).unwrap();
        let text = template.render(&chat, false);
        assert!(text.is_ok(), "{}: {}", row.name, text.unwrap_err());
    }
}

#[test]
fn a_template_may_not_be_a_megabyte_or_mostly_spaces() {
    let new = |source: &str| ChatTemplate::new(source, &special()).map_err(|e| e.to_string());
    assert!(new(&"a".repeat(1 << 20)).is_ok());
    assert!(
        new(&"a".repeat((1 << 20) + 1))
            .unwrap_err()
            .contains("at most 1048576")
    );
    let spaces = format!("{{{{ 1 }}}}{}{{{{ 2 }}}}", " ".repeat(300));
    assert!(new(&spaces).unwrap_err().contains("300 spaces"));
    let raw = format!("{{% raw %}}{}{{% endraw %}}", "a".repeat(300));
    assert!(new(&raw).unwrap_err().contains("raw text"));
}

#[test]
fn a_template_that_does_not_parse_names_the_line() {
    let error = ChatTemplate::new("a\n{% for %}", &special()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Template);
    assert!(error.message().contains("(line 2)"), "{error}");
}

#[test]
fn the_date_is_written_by_strftime() {
    let template = ChatTemplate::new("{{ strftime_now('%d %b %Y') }}", &special()).unwrap();
    let text = template.render(&[], false).unwrap();
    let parts: Vec<&str> = text.split(' ').collect();
    assert!(
        parts.len() == 3 && parts[0].len() == 2 && parts[1].len() == 3,
        "{text}"
    );
    assert!(parts[2].parse::<u32>().unwrap() >= 2024, "{text}");
}
