//! Answers that are empty, and answers of which the template writes nothing.

use super::*;

/// [`TURNS`] with marks on the answers.
fn marked() -> String {
    TURNS.replace(
        "{{ m.content }}{{ eos_token }}",
        "{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}",
    )
}

#[test]
fn an_empty_answer_is_counted_or_refused() {
    let tokenizer = tokenizer(TURNS);
    let turns = [
        ("user", "hi"),
        ("assistant", " "),
        ("user", "hi"),
        ("assistant", "hi"),
    ];
    let read = |row| Example::from_json(row).unwrap();
    let in_message = "example 1: the answer in message 2 is empty";
    let in_pair = "example 1: the completion is empty";
    for (example, message) in [
        (chat(&turns), in_message),
        (read(r#"{"instruction": "hi", "output": ""}"#), in_message),
        (read(r#"{"prompt": "hi", "completion": " "}"#), in_pair),
        (read(r#"{"prompt": "hi", "completion": ""}"#), in_pair),
    ] {
        let options = EncodeOptions::default();
        let examples = [example];
        let set = encode_examples(&examples, &tokenizer, options).unwrap();
        assert_eq!((set.empty_answers, set.examples.len()), (1, 1));
        assert!(set.to_string().ends_with("; 1 empty answer"), "{set}");
        let options = EncodeOptions {
            empty_answers: EmptyAnswers::Refuse,
            ..options
        };
        let error = encode_examples(&examples, &tokenizer, options).unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Data, message));
    }
}

#[test]
fn the_warnings_about_a_marked_call_that_is_not_written_are_true() {
    let example = Example::from_json(
        r#"{"messages": [{"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]},
        {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hi"}]}"#,
    );
    let options = EncodeOptions::default();
    let set = encode_examples(&[example.unwrap()], &tokenizer(&marked()), options).unwrap();
    assert_eq!(
        set.warnings(),
        [
            "answers of which only the end of the turn is in the loss: 1. They train the model to end \
             its turn at once",
            "answers with text, tool calls or reasoning that the chat template does not write: 1. Answers \
             of which it writes nothing are not in the loss, unless the template marks them"
        ]
    );
}

#[test]
fn an_answer_of_which_nothing_is_written_is_refused_with_a_message_of_its_own() {
    let example = Example::from_json(
        r#"{"messages": [{"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "reasoning_content": "I think",
        "tool_calls": [{"function": {"name": "f"}}]}]}"#,
    );
    let example = example.unwrap();
    let options = EncodeOptions {
        empty_answers: EmptyAnswers::Refuse,
        ..EncodeOptions::default()
    };
    let message = "the chat template writes nothing of the answer in message 2";
    for source in [TURNS, &marked()] {
        let error = encode_example(&example, &tokenizer(source), options).unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Data, message));
        let help = error.help().unwrap();
        assert!(
            help.ends_with("choose a chat template that writes it"),
            "{help}"
        );
    }
    // This one writes the call without the reasoning.
    let writes = TURNS.replace("<|assistant|>{{", "<|assistant|>{{ m.tool_calls }}{{");
    let rows = encode_example(&example, &tokenizer(&writes), options).unwrap();
    assert_eq!(rows.len(), 1);
}
