//! The forms of rows that users of other trainers have.

use std::collections::BTreeMap;

use super::*;
use crate::text::chat::Chat;
use crate::text::template::ChatTemplate;

fn read(row: &str) -> (Chat, Option<String>, String) {
    let mut mapping = Mapping::default();
    let row = serde_json::from_str(row).unwrap();
    let example = Example::from_row(&row, &Columns::default(), &mut mapping).unwrap();
    let Content::Chat(chat) = example.content else {
        panic!("{:?}", example.content);
    };
    (chat, example.answer, mapping.to_string())
}

fn rendered(chat: &Chat, source: &str) -> String {
    let template = ChatTemplate::new(source, &BTreeMap::new()).unwrap();
    template.render(chat, false).unwrap().text
}

fn messages_of(row: &str) -> String {
    serde_json::to_string(&read(row).0.messages).unwrap()
}

#[test]
fn a_request_and_an_answer_are_one_turn_whatever_their_names() {
    let cases = [
        (
            r#"{"question": "Q", "answer": "A"}"#,
            "question -> user, answer -> assistant",
        ),
        (
            r#"{"query": "Q", "response": "A"}"#,
            "query -> user, response -> assistant",
        ),
        (
            r#"{"prompt": "Q", "response": "A"}"#,
            "prompt -> user, response -> assistant",
        ),
        (
            r#"{"input": "Q", "output": "A"}"#,
            "input -> user, output -> assistant",
        ),
        (
            r#"{"instruction": "Q", "context": "", "response": "A"}"#,
            "instruction -> user, context -> user, response -> assistant",
        ),
    ];
    for (row, mapped) in cases {
        let (chat, answer, mapping) = read(row);
        let wanted = super::chat(&[("user", "Q"), ("assistant", "A")]);
        assert_eq!(Content::Chat(chat), wanted, "{row}");
        assert_eq!(answer.as_deref(), Some("A"));
        assert_eq!(mapping, format!("1 row as one turn ({mapped})"));
    }
}

#[test]
fn what_belongs_to_a_request_follows_it() {
    let cases = [
        (
            r#"{"instruction": "Q", "context": "C", "response": "A", "category": "x"}"#,
            "Q\n\nC",
        ),
        (
            r#"{"instruction": "Q", "input": "C", "output": "A"}"#,
            "Q\n\nC",
        ),
        (r#"{"instruction": "", "input": "C", "output": "A"}"#, "C"),
        (
            r#"{"instruction": "Q", "question": "C", "answer": "A"}"#,
            "Q\n\nC",
        ),
        (
            r#"{"instruction": "Answer this.\nQ?", "question": "Q? ", "answer": "A"}"#,
            "Answer this.\nQ?",
        ),
        (
            r#"{"instruction": "Spell it", "query": "it", "response": "A"}"#,
            "Spell it\n\nit",
        ),
        (
            r#"{"instruction": "Q", "context": "D", "question": "C", "response": "A"}"#,
            "Q\n\nC\n\nD",
        ),
        (
            r#"{"prompt": "Q", "query": "C", "response": "A"}"#,
            "Q\n\nC",
        ),
        (
            r#"{"question": "Q", "context": ["C", "D"], "answer": "A"}"#,
            "Q\n\nC\n\nD",
        ),
    ];
    for (row, user) in cases {
        let wanted = super::chat(&[("user", user), ("assistant", "A")]);
        assert_eq!(Content::Chat(read(row).0), wanted, "{row}");
    }
    let (chat, _, mapping) = read(
        r#"{"system_prompt": "S", "question": "Q", "answer": "A", "id": 3, "source": null,
            "history": [["a", "b"]]}"#,
    );
    let turns = [
        ("system", "S"),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "Q"),
    ];
    let turns = [&turns[..], &[("assistant", "A")]].concat();
    assert_eq!(Content::Chat(chat), super::chat(&turns));
    assert!(
        mapping.ends_with("system_prompt -> system)\nkeys not used: id"),
        "{mapping}"
    );
}

#[test]
fn sharegpt_is_mapped_to_roles_and_calls() {
    let row = r#"{"conversations": [
        {"from": "human", "value": "How many plums?", "weight": 0},
        {"from": "function_call", "value": "{\"name\": \"stock\", \"arguments\": {\"fruit\": \"plum\"}}"},
        {"from": "observation", "value": "12"},
        {"from": "gpt", "value": "Twelve."}],
        "system": "Be brief.",
        "tools": "[{\"name\": \"stock\", \"parameters\": {}}]"}"#;
    let (chat, answer, mapping) = read(row);
    assert_eq!(answer.as_deref(), Some("Twelve."));
    assert_eq!(
        serde_json::to_string(&chat.messages).unwrap(),
        r#"[{"role":"system","content":"Be brief."},{"role":"user","content":"How many plums?","weight":0},{"role":"assistant","content":"","tool_calls":[{"type":"function","function":{"name":"stock","arguments":{"fruit":"plum"}}}]},{"role":"tool","content":"12"},{"role":"assistant","content":"Twelve."}]"#
    );
    assert_eq!(
        mapping,
        "1 row as ShareGPT (human -> user, function_call -> assistant with tool_calls, \
         observation -> tool, gpt -> assistant, system -> system)"
    );
    let tools = r#"[{"type": "function", "function": {"name": "stock", "parameters": {}}}]"#;
    assert_eq!(rendered(&chat, "{{ tools | tojson }}"), tools);
}

#[test]
fn calls_of_ms_swift_are_those_of_the_assistant_in_both_forms() {
    let messages = r#"[{"role": "user", "content": "a"},
        {"role": "tool_call", "content": "{\"name\": \"f\", \"arguments\": {}}", "loss": false},
        {"role": "tool_call", "content": "{\"name\": \"g\", \"arguments\": {}}"},
        {"role": "tool_response", "content": "1"}, {"role": "tool_response", "content": "2"},
        {"role": "assistant", "content": "b"}]"#;
    let (f, g) = (
        r#"{"type":"function","function":{"name":"f","arguments":{}}}"#,
        r#"{"type":"function","function":{"name":"g","arguments":{}}}"#,
    );
    let wanted = format!(
        r#"[{{"role":"user","content":"a"}},{{"role":"assistant","content":"","loss":false,"tool_calls":[{f},{g}]}},{{"role":"tool","content":"1"}},{{"role":"tool","content":"2"}},{{"role":"assistant","content":"b"}}]"#
    );
    let row = format!(r#"{{"messages": {messages}}}"#);
    assert_eq!(messages_of(&row), wanted);
    assert_eq!(
        read(&row).2,
        "1 row as messages (tool_call -> assistant with tool_calls, tool_response -> tool)"
    );
    let sharegpt = messages.replace("role", "from").replace("content", "value");
    let row = format!(r#"{{"conversations": {sharegpt}}}"#);
    assert_eq!(messages_of(&row), wanted);

    // A text of the assistant and a call are one message, unless one has a weight.
    let call = r#"{"role": "tool_call", "content": "{\"name\": \"f\", \"arguments\": {}}"}"#;
    for (weight, count) in [("", 1), (r#", "loss_scale": 2.0"#, 2)] {
        let text = format!(r#"{{"role": "assistant", "content": "a"{weight}}}"#);
        let (chat, ..) = read(&format!(r#"{{"messages": [{text}, {call}]}}"#));
        assert_eq!(chat.messages.len(), count, "{weight}");
        assert_eq!(chat.messages[0].content(), Some("a"), "{weight}");
        assert!(chat.messages[count - 1].calls(), "{weight}");
    }
}

#[test]
fn fields_of_messages_that_look_like_weights_are_listed_if_they_are_none() {
    let row = r#"{"id": 1, "messages": [{"role": "user", "content": "a", "masked": null},
        {"role": "assistant", "content": "b", "training": false, "name": "c", "loss": true}]}"#;
    let (.., mapping) = read(row);
    assert_eq!(
        mapping,
        "1 row as messages\nkeys not used: id, training of a message"
    );
}

#[test]
fn large_numbers_of_a_call_that_is_text_keep_their_digits() {
    let call = r#"{\"name\": \"f\", \"arguments\": {\"id\": 123456789012345678901}}"#;
    let row = format!(r#"{{"conversations": [{{"from": "function_call", "value": "{call}"}}]}}"#);
    let messages = messages_of(&row);
    assert!(
        messages.contains(r#""id":123456789012345678901"#),
        "{messages}"
    );
}

#[test]
fn a_null_does_not_replace_the_other_key_of_a_sharegpt_message() {
    let wanted =
        r#"[{"role":"user","content":"Hi","name":"bob"},{"role":"assistant","content":"Ho"}]"#;
    for message in [
        r#"{"from": "human", "value": "Hi", "content": null, "name": "bob"}"#,
        r#"{"from": "human", "role": null, "value": "Hi", "name": "bob"}"#,
        r#"{"from": "user", "role": "user", "value": "Hi", "content": "Hi", "name": "bob"}"#,
    ] {
        let answer = r#"{"from": "gpt", "value": "Ho"}"#;
        let row = format!(r#"{{"messages": [{message}, {answer}]}}"#);
        assert_eq!(messages_of(&row), wanted, "{message}");
    }
    let row = r#"{"messages": [{"from": "human", "value": "Hi", "content": "Ho"}]}"#;
    let error = Example::from_json(row).unwrap_err();
    assert!(error.contains("has both `value` and `content`"), "{error}");
}

#[test]
fn messages_in_the_other_form_are_read_under_either_key() {
    let wanted = r#"[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]"#;
    for row in [
        r#"{"conversations": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#,
        r#"{"conversation": [{"role": "user", "content": "a"}, {"role": "gpt", "content": "b"}]}"#,
        r#"{"messages": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}"#,
        r#"{"messages": "[{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]"}"#,
    ] {
        assert_eq!(messages_of(row), wanted, "{row}");
    }
}

#[test]
fn parts_of_a_content_become_text_reasoning_and_calls() {
    let row = r#"{"messages": [
        {"role": "user", "content": [{"type": "text", "value": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": [{"type": "reasoning", "value": "Hm."},
            {"type": "tool_call", "value": "{\"name\": \"f\", \"arguments\": {}}"},
            {"type": "tool_call", "value": "[{\"name\": \"g\", \"arguments\": {}}]"}], "loss_weight": 0.5}]}"#;
    assert_eq!(
        messages_of(row),
        r#"[{"role":"user","content":"ab"},{"role":"assistant","content":"","loss_weight":0.5,"reasoning_content":"Hm.","tool_calls":[{"type":"function","function":{"name":"f","arguments":{}}},{"type":"function","function":{"name":"g","arguments":{}}}]}]"#
    );
    let (.., mapping) = read(row);
    assert_eq!(
        mapping,
        "1 row as messages (reasoning -> reasoning_content, tool_call -> tool_calls)"
    );
}

#[test]
fn content_may_be_absent_or_null_if_the_message_has_something_else() {
    let row = r#"{"messages": [{"role": "user", "content": "a"},
        {"role": "assistant", "reasoning_content": "b"},
        {"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"}}]}"#;
    let (chat, answer, _) = read(row);
    assert_eq!((chat.messages[1].content(), answer), (None, None));
    let last = serde_json::to_string(&chat.messages[2]).unwrap();
    let calls = r#""tool_calls":[{"type":"function","function":{"name":"f","arguments":"{}"}}]"#;
    assert!(last.contains(calls), "{last}");
}

#[test]
fn the_result_of_a_function_call_is_that_of_a_tool() {
    let call = r#"{"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": "{}"}}"#;
    let result = r#"{"role": "function", "name": "f", "content": "3"}"#;
    let answer = r#"{"role": "assistant", "content": "three"}"#;
    let (chat, _, mapping) = read(&format!(r#"{{"messages": [{call}, {result}, {answer}]}}"#));
    assert_eq!(chat.messages[1].role(), "tool");
    assert_eq!(mapping, "1 row as messages (function -> tool)");
    // Without such a call, the template may know the role.
    let (chat, ..) = read(&format!(r#"{{"messages": [{result}, {answer}]}}"#));
    assert_eq!(chat.messages[0].role(), "function");
}

#[test]
fn of_a_prompt_in_messages_only_the_completion_is_trained() {
    let row = r#"{"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"}], "completion": [{"role": "assistant", "content": "d"}]}"#;
    assert_eq!(
        messages_of(row),
        r#"[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"},{"role":"assistant","content":"d"}]"#
    );
}

#[test]
fn variables_for_the_template_are_given_to_it() {
    let row = r#"{"messages": [{"role": "assistant", "content": "a"}],
        "chat_template_kwargs": {"enable_thinking": false, "messages": 3}}"#;
    let source = "{{ enable_thinking }}{{ messages[0].content }}";
    assert_eq!(rendered(&read(row).0, source), "Falsea");
}

#[test]
fn rows_that_cannot_be_learned_as_they_are_say_what_they_are_for() {
    let cases = [
        (
            r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#,
            "preference training (DPO)",
        ),
        (
            r#"{"chosen": [{"role": "user", "content": "a"}], "rejected": []}"#,
            "chosen=messages if they are chats",
        ),
        (
            r#"{"conversations": [], "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}}"#,
            "write each of them as the last message of its chat, in rows of `messages`",
        ),
        (
            r#"{"input": {"messages": []}, "preferred_output": [{}], "non_preferred_output": [{}]}"#,
            "`preferred_output` and `non_preferred_output` are for preference training (DPO)",
        ),
        (
            r#"{"prompt": "a", "response_chosen": "b", "response_rejected": "c"}"#,
            "give the columns response_chosen=completion",
        ),
        (
            r#"{"type": "text_only", "instances": [{"text": "a"}]}"#,
            "`instances` is a list of rows and not a row",
        ),
        // Messages under another key are a chat.
        (
            r#"{"turns": [{"role": "user", "content": "a"}]}"#,
            "the keys are [\"turns\"]",
        ),
        (
            r#"{"prompt": "a", "completion": "b", "label": false}"#,
            "preference training (KTO)",
        ),
        (
            r#"{"conversations": [{"from": "tool_call", "value": {"name": "f"}}]}"#,
            "message 1 is a tool_call without a text",
        ),
        (
            r#"{"messages": [{"role": "assistant", "content": [{"type": "text", "text": "a", "train": false}]}]}"#,
            "message 1 has a part with a `train` of its own, but a weight is that of a whole message",
        ),
        (
            r#"{"conversations": [{"from": "narrator", "value": "a"}]}"#,
            "message 1 is from \"narrator\", which is no known role",
        ),
        (
            r#"{"conversations": [{"from": "function_call", "value": "f(1)"}]}"#,
            "message 1 has a tool call that is not JSON",
        ),
        (
            r#"{"conversations": [{"from": "function_call", "value": "{\"arguments\": {}}"}]}"#,
            "message 1 has a tool or tool call without a `name`",
        ),
        (
            r#"{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}"#,
            "message 1 has a part of type \"image_url\", and the models that are trained here take only text",
        ),
        (
            r#"{"messages": [{"role": "user", "content": [{"type": "poem", "text": "x"}]}]}"#,
            "message 1 has a part of the unknown type \"poem\"",
        ),
        (
            r#"{"messages": [{"role": "user", "content": null}]}"#,
            "message 1 has no `content`",
        ),
        (
            r#"{"messages": [{"role": "assistant", "content": "a"}], "tools": "stock"}"#,
            "`tools` is a string and not a list",
        ),
        (
            r#"{"instruction": "a", "output": "b", "history": [["c"]]}"#,
            "`history` is not a list of pairs",
        ),
        (
            r#"{"prompt": [{"role": "user", "content": "a"}], "completion": "b"}"#,
            "one of `prompt` and `completion` is a list of messages",
        ),
        (
            r#"{"conversations": [{"from": "gpt", "value": "<image>"}], "images": ["a.png"]}"#,
            "`images` belongs to the chat, and the models that are trained here take only text",
        ),
        (
            r#"{"messages": [{"role": "human", "content": "a"}, {"role": "gpt", "content": "b"}]}"#,
            "no answer of the assistant to train on; its roles are human, gpt",
        ),
        (
            r#"{"question": "a", "answer": ["b"]}"#,
            "`answer` is a list and not a string",
        ),
    ];
    for (row, expected) in cases {
        let reason = Example::from_json(row).unwrap_err();
        assert!(reason.contains(expected), "{row}: {reason}");
    }
}

#[test]
fn the_chosen_answers_of_pairs_are_trained_by_their_columns() {
    let dir = folder(&[(
        "x.jsonl",
        r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#,
    )]);
    let columns = "chosen=completion".parse().unwrap();
    let options = ReadOptions {
        columns,
        ..ReadOptions::default()
    };
    let read = read_examples(&[dir.path()], &options).unwrap();
    assert_eq!(read.examples[0].answer.as_deref(), Some("b"));
    let mapping = "1 row as prompt and completion\nkeys not used: rejected";
    assert_eq!(read.mapping.to_string(), mapping);
}

#[test]
fn columns_are_renamed_at_once() {
    let row = r#"{"title": "T", "context": "C", "question": "Q", "answer": "A"}"#;
    for (columns, user, unused) in [
        ("title=context,context=question", "C\n\nT", "question"),
        ("context=question,title=context", "C\n\nT", "question"),
        ("question=context,context=question", "C\n\nQ", "title"),
        ("title=question", "T\n\nC", "question"),
        ("title=question,question=context", "T\n\nQ", "context"),
        ("question=question", "Q\n\nC", "title"),
    ] {
        let dir = folder(&[("x.jsonl", row)]);
        let options = ReadOptions {
            columns: columns.parse().unwrap(),
            ..ReadOptions::default()
        };
        let read = read_examples(&[dir.path()], &options).unwrap();
        let turn = chat(&[("user", user), ("assistant", "A")]);
        assert_eq!(read.examples[0].content, turn, "{columns}");
        let mapping = read.mapping.to_string();
        let end = mapping.lines().last().unwrap();
        assert_eq!(end, format!("keys not used: {unused}"), "{columns}");
    }
}

#[test]
fn rows_whose_only_answer_is_empty_are_read() {
    let turn = chat(&[("user", "a"), ("assistant", "")]);
    for (row, content) in [
        (r#"{"instruction": "a", "output": ""}"#, turn.clone()),
        (
            r#"{"instruction": "a", "output": " "}"#,
            chat(&[("user", "a"), ("assistant", " ")]),
        ),
        (
            r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]}"#,
            turn.clone(),
        ),
        (
            r#"{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": ""}]}"#,
            turn,
        ),
        (
            r#"{"prompt": "a", "completion": ""}"#,
            Content::Pair {
                prompt: "a".to_owned(),
                completion: String::new(),
                before: Chat::default(),
            },
        ),
    ] {
        let example = Example::from_json(row).unwrap();
        assert_eq!(example.content, content, "{row}");
        // There is nothing to compare a generated answer with.
        assert_eq!(example.answer, None, "{row}");
    }
}

#[test]
fn a_pair_keeps_its_history_tools_and_variables_as_a_chat() {
    let row = r#"{"system": "S", "history": [["q", "r"]], "tools": "[{\"name\": \"f\"}]",
        "documents": [{"title": "t", "text": "u"}], "chat_template_kwargs": {"thinks": true},
        "prompt": "a", "completion": "b"}"#
        .replace('\n', " ");
    let dir = folder(&[("x.jsonl", &row)]);
    let mut read = read_examples(&[dir.path()], &ReadOptions::default()).unwrap();
    assert_eq!(
        read.mapping.to_string(),
        "1 row as prompt and completion (history -> earlier turns if rendered as a chat, tools -> \
         tools if rendered as a chat, documents -> documents if rendered as a chat, \
         chat_template_kwargs -> variables if rendered as a chat, system -> system if rendered as a \
         chat)"
    );
    let object = |pairs: &[(&'static str, &'static str)]| {
        pairs
            .iter()
            .copied()
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let turns = Chat::from([
        Message::new("system", "S"),
        Message::user("q"),
        Message::assistant("r"),
        Message::user("a"),
        Message::assistant("b"),
    ])
    .with_tools([object(&[("name", "f")])])
    .with_documents([object(&[("title", "t"), ("text", "u")])])
    .with_variables(std::collections::BTreeMap::from([("thinks", true)]));
    let example = read.examples.remove(0);
    assert!(matches!(example.content, Content::Pair { .. }));
    assert_eq!(example.into_chat().content, Content::Chat(turns));
    let wrong = r#"{"history": [["q"]], "prompt": "a", "completion": "b"}"#;
    let error = Example::from_json(wrong).unwrap_err();
    assert!(
        error.contains("`history` is not a list of pairs"),
        "{error}"
    );
}

#[test]
fn a_pair_keeps_its_system_message_as_a_chat() {
    for key in ["system", "system_prompt"] {
        let row = format!(r#"{{"{key}": "S", "prompt": "a ", "completion": " b"}}"#);
        let dir = folder(&[("x.jsonl", &row)]);
        let mut read = read_examples(&[dir.path()], &ReadOptions::default()).unwrap();
        assert_eq!(
            read.mapping.to_string(),
            format!("1 row as prompt and completion ({key} -> system if rendered as a chat)")
        );
        let turn = chat(&[("system", "S"), ("user", "a"), ("assistant", "b")]);
        assert_eq!(read.examples.remove(0).into_chat().content, turn);
    }
}
