use super::super::{Chat, ChatTemplate, Message};
use std::collections::BTreeMap;

fn template(source: &str) -> ChatTemplate {
    let special = BTreeMap::from([("eos_token".to_owned(), "</s>".to_owned())]);
    ChatTemplate::new(source, &special).unwrap()
}

fn message(json: &str) -> Message {
    serde_json::from_str(json).unwrap()
}

// As in transformers 5, which leaves out the keys of a message that are null, and gives reasoning
// under each of its names.
#[test]
fn fields_that_are_null_are_not_given_to_the_template() {
    let call = message(
        r#"{"role": "assistant", "content": null, "tool_calls": [{"name": "f", "id": null}],
            "reasoning_content": null, "name": null, "reasoning": "2"}"#,
    );
    let cases = [
        ("{{ messages[0].content }}", ""),
        ("{{ messages[0].content is defined }}", "False"),
        ("{{ 'name' in messages[0] }}", "False"),
        (
            "{{ messages[0] | tojson }}",
            r#"{"thinking": "2", "role": "assistant", "tool_calls": [{"name": "f", "id": null}], "reasoning": "2", "reasoning_content": "2"}"#,
        ),
    ];
    for (source, expected) in cases {
        let chat = Chat::from([call.clone()]);
        let text = template(source).render(&chat, false).unwrap().text;
        assert_eq!(text, expected, "{source}");
    }
    assert_eq!(call.content(), None);
}

#[test]
fn a_list_of_texts_stays_a_list_for_the_roles_that_the_template_writes_lists_of() {
    let user = message(
        r#"{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}"#,
    );
    assert_eq!(user.content(), Some("ab"));
    let assistant = user.clone().with("role", "assistant");
    let chat = Chat::from([user.clone(), assistant.clone()]);
    let loops = "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}\
        {% for part in m.content %}({{ part.text }}){% endfor %}{% endif %};{% endfor %}";
    let of_users = loops.replace("is string", "is string or m.role == 'assistant'");
    let first = "{% for m in messages %}{{ m.content[0].text or m.content }};{% endfor %}";
    for (source, expected) in [
        (loops, "(a)(b);(a)(b);"),
        (of_users.as_str(), "(a)(b);ab;"),
        (
            "{% for m in messages %}{{ m.content }};{% endfor %}",
            "ab;ab;",
        ),
        (
            "{% for m in messages %}{{ m.content + '' }};{% endfor %}",
            "ab;ab;",
        ),
        // It would lose the second text.
        (first, "ab;ab;"),
    ] {
        let template = template(source);
        assert_eq!(
            template.render(&chat, false).unwrap().text,
            expected,
            "{source}"
        );
        // The same for a part of the chat.
        let part = template.render(&chat.before(1), false).unwrap().text;
        assert!(expected.starts_with(&part), "{source}: {part}");
    }
    // What was set is not read as texts.
    assert_eq!(user.with("content", ["x"]).content(), None);
    let json = serde_json::to_string(&assistant).unwrap();
    assert_eq!(message(&json), assistant);
}

#[test]
fn an_empty_list_of_tools_documents_or_calls_is_none() {
    let none = Vec::<String>::new();
    let answer = Message::assistant("a").with("tool_calls", &none);
    let chat = Chat::from([answer]);
    let chat = chat.with_tools(&none).with_documents(&none);
    let source = "{{ tools is none }}{{ documents is none }}{{ 'tool_calls' in messages[0] }}";
    let text = template(source).render(&chat, false).unwrap().text;
    assert_eq!(text, "TrueTrueFalse");
}

#[test]
fn arguments_that_are_json_text_are_not_encoded_once_more() {
    let chat = |arguments: &str| {
        let call = format!(
            r#"{{"role": "assistant", "content": "", "tool_calls": [
                {{"type": "function", "function": {{"name": "f", "arguments": {arguments}}}}}]}}"#
        );
        Chat::from([Message::user("a"), message(&call)])
    };
    let of_calls = |written: &str| {
        format!(
            "{{% for m in messages %}}{{% for call in m.tool_calls or [] %}}\
             {{% set given = call.function.arguments %}}{written}{{% endfor %}}{{% endfor %}}"
        )
    };
    let text = r#""{\"b\":1,  \"a\":[]}""#;
    for (written, expected) in [
        ("{{ given | tojson }}", r#"{"b": 1, "a": []}"#),
        (
            "{{ call | tojson }}",
            r#"{"type": "function", "function": {"name": "f", "arguments": {"b": 1, "a": []}}}"#,
        ),
        (
            "{{ given if given is string else given | tojson }}",
            r#"{"b":1,  "a":[]}"#,
        ),
        ("{{ 'call ' + given }}", r#"call {"b":1,  "a":[]}"#),
        // transformers refuses the text.
        (
            "{% for k, v in given | items %}{{ k }}={{ v }};{% endfor %}",
            "b=1;a=[];",
        ),
    ] {
        let template = template(&of_calls(written));
        let found = template.render(&chat(text), false).unwrap().text;
        assert_eq!(found, expected, "{written}");
    }
    // Neither an object nor a text that is no object changes.
    let template = template(&of_calls("{{ given | tojson }}"));
    for (arguments, expected) in [(r#"{"a": "1"}"#, r#"{"a": "1"}"#), (r#""[1]""#, r#""[1]""#)] {
        let found = template.render(&chat(arguments), false).unwrap().text;
        assert_eq!(found, expected);
    }
}

// As in transformers 5: its arguments are given by name, and those of a chat replace special tokens.
#[test]
fn variables_of_a_chat_replace_special_tokens_and_not_the_generation_prompt() {
    let variables = BTreeMap::from([("eos_token", "<end>"), ("add_generation_prompt", "yes")]);
    let chat = Chat::from([Message::user("a")]).with_variables(variables);
    let template = template("{{ messages[0].content ~ eos_token }}{{ add_generation_prompt }}");
    assert_eq!(template.render(&chat, false).unwrap().text, "a<end>False");
    assert_eq!(template.render(&chat, true).unwrap().text, "a<end>True");
    let plain = Chat::from([Message::user("a")]);
    assert_eq!(template.render(&plain, false).unwrap().text, "a</s>False");
}

#[test]
fn a_refusal_names_the_message_with_tool_calls_or_without_text() {
    let call = message(
        r#"{"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "add"}}]}"#,
    );
    let chat = Chat::from([Message::user("a"), call]);
    let joined = "{% for m in messages %}{{ '[' + m.content + ']' }}{% endfor %}";
    let error = template(joined).render(&chat, false).unwrap_err();
    assert!(
        error.message().starts_with(
            "the chat template refuses a chat of user, assistant: message 2 has tool calls and no text, \
             and the template writes no tool calls: "
        ),
        "{error}"
    );
    assert!(error.message().contains("unsupported types"), "{error}");
    assert_eq!(
        error.help(),
        Some("choose a chat template that writes tool calls")
    );
    // The message after it is what the template refuses.
    let strict = "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}\
                  {{ m.content }}{% endfor %}";
    let mut tool = chat.clone();
    tool.messages.push(Message::new("tool", "3"));
    let error = template(strict).render(&tool, false).unwrap_err();
    assert!(
        error
            .message()
            .contains("message 2 has tool calls and no text"),
        "{error}"
    );
    // This one writes tool calls, and does not take a message without text.
    let writes = "{% for m in messages %}{{ '[' + m.content + ']' }}{{ m.tool_calls }}{% endfor %}";
    let error = template(writes).render(&chat, false).unwrap_err();
    assert!(
        error
            .message()
            .contains("message 2 has no text (its `content` is null or absent): "),
        "{error}"
    );
    assert!(
        error.help().unwrap().starts_with("give the message a text"),
        "{error}"
    );
    // With another reason, tool calls and messages without text are not named.
    let strict = "{% for m in messages %}{% if m.role == 'system' %}\
                  {{ raise_exception('System role not supported') }}{% endif %}\
                  {{ '[' + m.content + ']' }}{% endfor %}";
    let mut system = chat.clone();
    system.messages.insert(0, Message::new("system", "b"));
    let error = template(strict).render(&system, false).unwrap_err();
    assert!(
        error.message().contains("system, user, assistant: ")
            && error.message().contains("System role not supported"),
        "{error}"
    );
    assert!(!error.message().contains("message 3"), "{error}");
    assert_eq!(error.help(), None);
    let other = format!("{writes}{{{{ raise_exception('never') }}}}");
    let error = template(&other).render(&chat, false).unwrap_err();
    assert!(!error.message().contains("message 2"), "{error}");
    assert_eq!(error.help(), None);
}

#[test]
fn arguments_of_each_call_become_objects_with_or_without_function() {
    let call = message(
        r#"{"role": "assistant", "content": "", "tool_calls": [
            {"name": "f", "arguments": "{\"b\": 1}"}, {"name": "g", "arguments": {"c": 2}}]}"#,
    );
    let chat = Chat::from([Message::user("a"), call]);
    let source = "{% for m in messages %}{% for call in m.tool_calls or [] %}\
                  {{ (call.function or call).arguments | tojson }}{% endfor %}{% endfor %}";
    let with_tools = format!("{{% if tools %}}{source}{{% endif %}}");
    for (source, chat) in [
        (source, chat.clone()),
        (&with_tools, chat.with_tools(["f"])),
    ] {
        let text = template(source).render(&chat, false).unwrap().text;
        assert_eq!(text, r#"{"b": 1}{"c": 2}"#, "{source}");
    }
}

#[test]
fn the_template_for_tools_stays_and_has_the_same_time() {
    let time = "2020-02-03T04:05:06+01:00[+01:00]";
    let dated = || template("tools {{ strftime_now('%F') }}");
    let plain = template("{{ strftime_now('%F') }}");
    let both = plain.with_tool_template(dated()).with_time(time).unwrap();
    let chat = Chat::from([Message::user("a")]);
    let text = |chat: &Chat| both.render(chat, false).unwrap().text;
    assert_eq!(text(&chat), "2020-02-03");
    assert_eq!(text(&chat.with_tools(["f"])), "tools 2020-02-03");
    let only = template("a").with_tool_template(dated());
    assert_eq!(only.with_time(time).unwrap().time(), Some(time));
}
