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

#[test]
fn templates_render_as_in_transformers() {
    let rows: Vec<Row> =
        serde_json::from_str(include_str!("../../../../tests/fixtures/chat.json")).unwrap();
    assert_eq!(rows.len(), 5);
    for row in rows {
        let template = ChatTemplate::new(&row.template, &row.special).unwrap();
        for render in row.renders {
            let text = template.render(&render.messages, render.prompt);
            if let Some(expected) = render.text {
                assert_eq!(text.unwrap(), expected, "{}", row.name);
            } else {
                let error = text.unwrap_err();
                assert!(error.message().contains("roles must alternate"), "{error}");
            }
        }
    }
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

#[test]
fn a_template_that_does_not_parse_names_the_line() {
    let error = ChatTemplate::new("a\n{% for %}", &special()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tokenizer);
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
