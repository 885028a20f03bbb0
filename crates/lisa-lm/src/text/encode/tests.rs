use std::path::Path;

use super::*;
use crate::place::Place;
use crate::test_support::tokenizer;
use crate::text::answers::Turns;
use crate::text::chat::{Chat, Message};
use crate::text::encoded::IGNORED;
use crate::text::role_tokens;

mod empty;

/// `<|user|>..<|assistant|>..<|endoftext|>`: ids 1, 2 and 0 of the fixture's tokenizer.
const TURNS: &str = "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}\
{% else %}<|assistant|>{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}<|assistant|>{% endif %}";

fn chat(turns: &[(&str, &str)]) -> Example {
    let messages: Vec<_> = turns.iter().map(|(r, c)| Message::new(*r, *c)).collect();
    Example {
        answer: messages
            .last()
            .filter(|m| m.role() == "assistant")
            .and_then(|m| m.content().map(str::to_owned)),
        content: Content::Chat(Chat::from(messages)),
        place: None,
    }
}

fn pair(prompt: &str, completion: &str) -> Example {
    let line = serde_json::json!({"prompt": prompt, "completion": completion});
    Example::from_json(&line.to_string()).unwrap()
}

/// The only row of an example.
fn one(example: &Example, tokenizer: &Tokenizer, loss_on: LossOn) -> Encoded {
    let options = EncodeOptions {
        loss_on,
        ..EncodeOptions::default()
    };
    let mut rows = encode_example(example, tokenizer, options).unwrap();
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

const X: i64 = IGNORED;

#[test]
fn in_a_chat_the_answer_and_its_end_are_trained() {
    let tokenizer = tokenizer(TURNS);
    let example = chat(&[("user", "hi"), ("assistant", "hello")]);
    let encoded = one(&example, &tokenizer, LossOn::Answer);
    assert_eq!(encoded.ids, [1, 74, 75, 2, 273, 78, 350, 0]);
    assert_eq!(encoded.labels, [X, X, X, X, 273, 78, 350, 0]);
    assert_eq!(encoded.trained(), 4);
    let prompt = encode_prompt(&example, &tokenizer).unwrap().unwrap();
    assert_eq!(prompt, [1, 74, 75, 2]);
}

#[test]
fn answers_of_a_prompt_are_in_the_loss_only_with_all_tokens() {
    let tokenizer = tokenizer(TURNS);
    let row = r#"{"prompt": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "hi"}], "completion": [{"role": "assistant", "content": "hello"}]}"#;
    let example = Example::from_json(row).unwrap();
    let encoded = one(&example, &tokenizer, LossOn::Answer);
    assert_eq!(encoded.trained(), 4);
    let encoded = one(&example, &tokenizer, LossOn::All);
    // All but the first, which nothing predicts.
    assert_eq!((encoded.trained(), encoded.ids.len()), (14, 15));
}

#[test]
fn in_a_chat_of_many_turns_every_answer_is_trained() {
    let tokenizer = tokenizer(TURNS);
    let example = chat(&[
        ("user", "hi"),
        ("assistant", "hi"),
        ("user", "hi"),
        ("assistant", "hello"),
    ]);
    let encoded = one(&example, &tokenizer, LossOn::Answer);
    assert_eq!(
        encoded.ids,
        [1, 74, 75, 2, 74, 75, 0, 1, 74, 75, 2, 273, 78, 350, 0]
    );
    assert_eq!(
        encoded.labels,
        [X, X, X, X, 74, 75, 0, X, X, X, X, 273, 78, 350, 0]
    );
    let prompt = encode_prompt(&example, &tokenizer).unwrap().unwrap();
    assert_eq!(prompt, encoded.ids[..11]);
}

#[test]
fn by_a_flag_every_token_is_trained() {
    let tokenizer = tokenizer(TURNS);
    let example = chat(&[("user", "hi"), ("assistant", "hello")]);
    let encoded = one(&example, &tokenizer, LossOn::All);
    assert_eq!(
        encoded,
        Encoded::all_trained(vec![1, 74, 75, 2, 273, 78, 350, 0])
    );
}

#[test]
fn a_pair_is_joined_as_it_stands_and_ends() {
    let tokenizer = tokenizer(TURNS);
    let example = pair("Hello,", " world!");
    let encoded = one(&example, &tokenizer, LossOn::Answer);
    assert_eq!(encoded.ids, [42, 71, 78, 350, 14, 309, 275, 401, 3, 0]);
    assert_eq!(encoded.labels, [X, X, X, X, X, 309, 275, 401, 3, 0]);
    let prompt = encode_prompt(&example, &tokenizer).unwrap().unwrap();
    assert_eq!(prompt, [42, 71, 78, 350, 14]);
}

#[test]
fn a_token_across_the_border_belongs_to_the_answer() {
    let tokenizer = tokenizer(TURNS);
    // "lo" is one token (350), and the border runs through it.
    let example = pair("Hel", "lo");
    let encoded = one(&example, &tokenizer, LossOn::Answer);
    assert_eq!(encoded.ids, [42, 71, 78, 350, 0]);
    assert_eq!(encoded.labels, [X, X, X, 350, 0]);
}

#[test]
fn letters_of_several_bytes_do_not_shift_the_border() {
    let tokenizer = tokenizer(TURNS);
    let example = chat(&[("user", "é🙂"), ("assistant", "é")]);
    let encoded = one(&example, &tokenizer, LossOn::Answer);
    let answer: Vec<u32> = (encoded.ids.iter().zip(&encoded.labels))
        .filter(|(_, label)| **label != X)
        .map(|(id, _)| *id)
        .collect();
    assert_eq!(tokenizer.decode(&answer, false).unwrap(), "é<|endoftext|>");
}

#[test]
fn a_text_is_trained_whole_and_ends_once() {
    let tokenizer = tokenizer(TURNS);
    for text in ["hello", "hello<|endoftext|>"] {
        let example = Example {
            content: Content::Text(text.to_owned()),
            answer: None,
            place: None,
        };
        let encoded = one(&example, &tokenizer, LossOn::Answer);
        assert_eq!(encoded, Encoded::all_trained(vec![273, 78, 350, 0]));
        assert_eq!(encode_prompt(&example, &tokenizer).unwrap(), None);
    }
}

#[test]
fn the_default_template_hands_over_before_the_space() {
    let tokenizer = tokenizer(crate::text::template::DEFAULT_TEMPLATE);
    let example = chat(&[("user", "Hello"), ("assistant", "world")]);
    let encoded = one(&example, &tokenizer, LossOn::Answer);
    let prompt = encode_prompt(&example, &tokenizer).unwrap().unwrap();
    assert_eq!(encoded.ids[..prompt.len()], prompt);
    assert_eq!(encoded.ids[prompt.len()..], [309, 275, 401, 0, 201]);
    assert!(
        encoded.labels[..prompt.len()]
            .iter()
            .all(|label| *label == X)
    );
    assert_eq!(encoded.labels[prompt.len()..], [309, 275, 401, 0, 201]);
}

#[test]
fn what_only_a_generation_prompt_writes_moves_no_border() {
    let template = TURNS.replace("%}<|assistant|>{% endif", "%}<|assistant|>think{% endif");
    let tokenizer = tokenizer(&template);
    let example = chat(&[("user", "hi"), ("assistant", "hello")]);
    let encoded = one(&example, &tokenizer, LossOn::Answer);
    assert_eq!(encoded.labels, [X, X, X, X, 273, 78, 350, 0]);
}

#[test]
fn a_template_that_rewrites_the_past_is_refused() {
    let template = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}";
    let tokenizer = tokenizer(template);
    let example = chat(&[("user", "hi"), ("assistant", "hello")]);
    let options = EncodeOptions {
        max_length: 8,
        ..EncodeOptions::default()
    };
    let error = encode_examples(std::slice::from_ref(&example), &tokenizer, options).unwrap_err();
    assert!(
        error
            .message()
            .starts_with("example 1: the chat template writes"),
        "{error}"
    );
    // If every token is in the loss, it does not matter where the answers are.
    let encoded = one(&example, &tokenizer, LossOn::All);
    let ids = tokenizer.encode("2hihello").unwrap();
    assert_eq!(encoded, Encoded::all_trained(ids));
}

#[test]
fn a_long_example_is_cut_and_one_without_its_answer_is_dropped() {
    let tokenizer = tokenizer(TURNS);
    let short = chat(&[("user", "hi"), ("assistant", "hello")]);
    let long = chat(&[("user", "hi hi hi hi hi"), ("assistant", "hello")]);
    let options = EncodeOptions {
        max_length: 6,
        ..EncodeOptions::default()
    };
    let set = encode_examples(&[long.clone(), short], &tokenizer, options).unwrap();
    assert_eq!((set.truncated, set.dropped), (2, 1));
    assert_eq!(set.sources, [1]);
    assert_eq!(set.examples[0].ids, [1, 74, 75, 2, 273, 78]);
    assert_eq!(set.examples[0].labels, [X, X, X, X, 273, 78]);
    assert_eq!(
        set.to_string(),
        "1 row, 6 tokens, 2 trained on; 2 cut, 1 left out"
    );

    let error = encode_examples(&[long], &tokenizer, options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    let options = EncodeOptions {
        max_length: 1,
        ..options
    };
    assert_eq!(
        encode_examples(&[], &tokenizer, options)
            .unwrap_err()
            .kind(),
        ErrorKind::Config
    );
}

fn weighted(field: &str) -> Example {
    let line = format!(
        r#"{{"messages": [
            {{"role": "user", "content": "hi", "loss_weight": 0.0}},
            {{"role": "assistant", "content": "hi", {field}}},
            {{"role": "user", "content": "hi"}},
            {{"role": "assistant", "content": "hello"}}]}}"#
    );
    Example::from_json(&line).unwrap()
}

#[test]
fn a_message_of_weight_0_is_not_trained_and_other_weights_are_those_of_its_tokens() {
    let tokenizer = tokenizer(TURNS);
    let ids = [1, 74, 75, 2, 74, 75, 0, 1, 74, 75, 2, 273, 78, 350, 0];
    let last = [X, X, X, X, 273, 78, 350, 0];
    for field in [
        "\"weight\": 0",
        "\"train\": false",
        "\"loss_weight\": 0.0",
        "\"loss\": false",
        "\"loss_scale\": 0.0",
        "\"loss\": true, \"loss_scale\": 0.0",
    ] {
        let encoded = one(&weighted(field), &tokenizer, LossOn::Answer);
        assert_eq!(encoded.ids, ids, "{field}");
        assert_eq!(encoded.labels, [&[X; 7], &last[..]].concat(), "{field}");
        assert_eq!(encoded.weights, None, "{field}");
    }
    let both = [&[X, X, X, X, 74, 75, 0], &last[..]].concat();
    for field in [
        "\"weight\": 1",
        "\"train\": true",
        "\"weight\": null",
        "\"loss\": true, \"train_detail\": []",
    ] {
        let encoded = one(&weighted(field), &tokenizer, LossOn::Answer);
        assert_eq!(
            (encoded.labels, encoded.weights),
            (both.clone(), None),
            "{field}"
        );
    }
    let encoded = one(
        &weighted("\"loss_weight\": 0.5, \"train\": true"),
        &tokenizer,
        LossOn::Answer,
    );
    assert_eq!(encoded.labels, both);
    let weights = encoded.weights.unwrap();
    assert_eq!(weights[4..7], [0.5; 3]);
    assert_eq!(weights[11..], [1.0; 4]);

    // With all tokens in the loss, the weight of every message counts.
    let encoded = one(&weighted("\"weight\": 2"), &tokenizer, LossOn::All);
    assert_eq!(encoded.labels[..4], [X, X, X, 2]);
    assert_eq!(encoded.weights.unwrap()[3..8], [2.0, 2.0, 2.0, 2.0, 1.0]);
}

#[test]
fn a_weight_that_is_none_is_refused() {
    let tokenizer = tokenizer(TURNS);
    for field in [
        "\"weight\": -1",
        "\"weight\": \"high\"",
        "\"train\": [1]",
        "\"weight\": 1e99",
        "\"loss\": 0.7",
        "\"loss_scale\": -1",
        "\"train_detail\": [{\"train\": false}]",
    ] {
        let options = EncodeOptions::default();
        let error = encode_example(&weighted(field), &tokenizer, options).unwrap_err();
        let name = field.split('"').nth(1).unwrap();
        let start = format!("message 2 has a `{name}` ");
        assert!(error.message().starts_with(&start), "{error}");
    }
}

/// Earlier answers lose their end once the chat goes on.
const REWRITING: &str = "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}\
{% else %}<|assistant|>{{ 'o' if loop.last }}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}<|assistant|>{% endif %}";

#[test]
fn a_template_that_rewrites_answers_gives_a_row_for_each() {
    let tokenizer = tokenizer(REWRITING);
    let example = chat(&[
        ("user", "hi"),
        ("assistant", "hi"),
        ("user", "hi"),
        ("assistant", "hi"),
    ]);
    let options = EncodeOptions {
        max_length: 13,
        ..EncodeOptions::default()
    };
    let set = encode_examples(std::slice::from_ref(&example), &tokenizer, options).unwrap();
    let [first, second] = set.examples.as_slice() else {
        panic!("{set}")
    };
    assert_eq!(first.ids, [1, 74, 75, 2, 81, 74, 75, 0]);
    assert_eq!(first.labels, [X, X, X, X, 81, 74, 75, 0]);
    assert_eq!(second.ids, [1, 74, 75, 2, 74, 75, 0, 1, 74, 75, 2, 81, 74]);
    assert_eq!(second.labels, [&[X; 11][..], &[81, 74]].concat());
    assert_eq!((&set.sources, &set.lengths), (&vec![0, 0], &vec![8, 15]));
    assert_eq!(
        set.to_string(),
        "2 rows, 21 tokens, 6 trained on; 1 cut, 0 left out; 1 chat became a row for each answer"
    );
    let of = |max_length| {
        let options = EncodeOptions {
            max_length,
            ..options
        };
        encode_examples(std::slice::from_ref(&example), &tokenizer, options)
    };
    let set = of(7).unwrap();
    assert_eq!((set.truncated, set.dropped), (2, 1));
    let error = of(4).unwrap_err();
    assert_eq!(
        (error.message(), error.help()),
        (
            "none of 2 rows has a token to train on within 4 tokens",
            Some("raise the maximal length")
        )
    );
}

#[test]
fn what_the_template_refuses_has_its_place_and_can_be_skipped() {
    let template = TURNS.replace(
        "{% for m",
        "{% if messages[0].role != 'user' %}\
        {{ raise_exception('a user has to begin') }}{% endif %}{% for m",
    );
    let tokenizer = tokenizer(&template);
    let good = chat(&[("user", "hi"), ("assistant", "hello")]);
    let mut bad = chat(&[
        ("assistant", "hello"),
        ("user", "hi"),
        ("assistant", "hello"),
    ]);
    bad.place = Some(Place::at_line(Path::new("train.jsonl"), 7));
    let options = EncodeOptions::default();
    let error = encode_examples(&[good.clone(), bad.clone()], &tokenizer, options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "chat template: train.jsonl:7: the chat template refuses a chat of assistant, user, \
         assistant: invalid operation: a user has to begin (line 1)"
    );
    let options = EncodeOptions {
        on_bad: OnBadLine::Skip,
        ..options
    };
    let bads = vec![bad.clone(); 12];
    let set = encode_examples(&[bads, vec![good]].concat(), &tokenizer, options).unwrap();
    assert_eq!((set.examples.len(), set.sources[0]), (1, 12));
    assert_eq!((set.refused, set.refusals.len()), (12, 10));
    assert_eq!(set.refusals[0], error.to_string());
    assert!(
        set.to_string()
            .ends_with("; 12 examples refused and left out"),
        "{set}"
    );
    let error = encode_examples(&[bad], &tokenizer, options).unwrap_err();
    let start = "every example was refused; the first: chat template: train.jsonl:7: ";
    assert!(error.message().starts_with(start), "{error}");
}

#[test]
fn chats_without_a_weight_above_0_are_counted_and_the_error_says_so() {
    let tokenizer = tokenizer(TURNS);
    let row = |answer: &str, asked: &str| {
        let row = format!(
            r#"{{"messages": [{{"role": "user", "content": "hi", "weight": {asked}}},
            {{"role": "assistant", "content": "hello", "weight": {answer}}}]}}"#
        );
        Example::from_json(&row).unwrap()
    };
    for turns in [Turns::Auto, Turns::All, Turns::Last, Turns::Split] {
        let options = EncodeOptions {
            turns,
            ..EncodeOptions::default()
        };
        let set = encode_examples(&[row("0", "1"), row("1", "0")], &tokenizer, options).unwrap();
        assert_eq!((set.dropped, set.weightless), (1, 1), "{turns:?}");
        let error = encode_examples(&[row("0", "1")], &tokenizer, options).unwrap_err();
        assert!(
            error
                .message()
                .contains(": all their messages have a weight of 0"),
            "{error}"
        );
        let help = error.help().unwrap();
        assert!(help.contains("a weight above 0"), "{help}");
    }
    // Of all tokens, those of the user count too.
    let all = EncodeOptions {
        loss_on: LossOn::All,
        ..EncodeOptions::default()
    };
    let set = encode_examples(&[row("0", "1"), row("0", "0")], &tokenizer, all).unwrap();
    assert_eq!((set.dropped, set.weightless), (1, 1));
    // A chat without an answer has another cause.
    let asked = chat(&[("user", "hi")]);
    let error = encode_examples(&[asked], &tokenizer, EncodeOptions::default()).unwrap_err();
    assert_eq!(
        error.help(),
        Some("give data with answers, or train on all tokens")
    );
}

#[test]
fn a_last_answer_of_weight_0_is_not_replaced_by_an_earlier_one() {
    let tokenizer = tokenizer(TURNS);
    let row = |last: f64| {
        let row = format!(
            r#"{{"messages": [{{"role": "user", "content": "hi"}}, {{"role": "assistant", "content": "hi"}},
            {{"role": "user", "content": "hi"}}, {{"role": "assistant", "content": "hello", "weight": {last}}}]}}"#
        );
        Example::from_json(&row).unwrap()
    };
    let options = EncodeOptions {
        turns: Turns::Last,
        ..EncodeOptions::default()
    };
    let set = encode_examples(&[row(0.0), row(1.0)], &tokenizer, options).unwrap();
    assert_eq!(
        (&set.sources, set.dropped, set.weightless),
        (&vec![1], 1, 1)
    );
    assert_eq!(set.examples[0].trained(), 4);
}

// The ids and the mask are those of transformers:
// PreTrainedTokenizerFast(tokenizer_file="tests/fixtures/tokenizer/tokenizer.json", eos_token="<|endoftext|>")
// .apply_chat_template(messages, chat_template=.., return_dict=True, return_assistant_tokens_mask=True)
#[test]
fn marks_of_other_roles_are_in_the_loss_as_in_transformers() {
    let template = "{% for m in messages %}{{ '<|assistant|>' if m.role == 'assistant' else '<|user|>' }}\
        {% if m.role == 'system' %}{{ m.content }}{% else %}{% generation %}{{ m.content }}\
        {% endgeneration %}{% endif %}{{ eos_token }}{% endfor %}";
    let tokenizer = tokenizer(template);
    let example = chat(&[
        ("system", "hi"),
        ("user", "hello"),
        ("assistant", "hi"),
        ("user", "hi"),
    ]);
    let encoded = one(&example, &tokenizer, LossOn::Answer);
    let ids = [1, 74, 75, 0, 1, 273, 78, 350, 0, 2, 74, 75, 0, 1, 74, 75, 0];
    assert_eq!(encoded.ids, ids);
    let mask: Vec<u8> = (encoded.labels.iter())
        .map(|label| u8::from(*label != X))
        .collect();
    assert_eq!(mask, [0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0]);
    // The last answer is that of the assistant.
    let options = EncodeOptions {
        turns: Turns::Last,
        ..EncodeOptions::default()
    };
    let rows = encode_example(&example, &tokenizer, options).unwrap();
    assert_eq!((rows.len(), rows[0].trained()), (1, 2));
}

#[test]
fn a_pair_is_tokenized_in_the_two_parts_of_inference() {
    let tokenizer = tokenizer(TURNS);
    // Together, the border is inside of a token.
    let (prompt, completion) = ("hell", "o!");
    let parts = [prompt, completion].map(|text| tokenizer.encode(text).unwrap());
    let whole = tokenizer.encode("hello!").unwrap();
    assert_ne!(parts.concat(), whole);
    let found = one(&pair(prompt, completion), &tokenizer, LossOn::Answer);
    assert_eq!(found.ids, [parts.concat(), vec![0]].concat());
    assert_eq!(found.labels[..parts[0].len()], vec![X; parts[0].len()]);
    assert_eq!(found.trained(), parts[1].len() + 1);
}

#[test]
fn roles_have_their_tokens() {
    let tokenizer = tokenizer(TURNS);
    let example = chat(&[
        ("user", "hi"),
        ("assistant", "hi"),
        ("user", "hi"),
        ("assistant", "hello"),
    ]);
    let tokens = role_tokens(&example, &tokenizer).unwrap();
    assert_eq!(
        (tokens["user"], tokens["assistant"], tokens.len()),
        (6, 9, 2)
    );
    // An earlier answer ends where it ends in the complete chat.
    let rewriting = crate::test_support::tokenizer(REWRITING);
    let tokens = role_tokens(&example, &rewriting).unwrap();
    assert_eq!(
        (tokens["user"], tokens["assistant"], tokens.len()),
        (6, 10, 2)
    );
}

#[test]
fn many_examples_are_encoded_in_their_order() {
    let tokenizer = tokenizer(TURNS);
    let texts: Vec<String> = (0..600)
        .map(|number| "hi ".repeat(number % 7 + 1))
        .collect();
    let example = |text: &String| chat(&[("user", text), ("assistant", text)]);
    let examples: Vec<Example> = texts.iter().map(example).collect();
    let options = EncodeOptions::default();
    let set = encode_examples(&examples, &tokenizer, options).unwrap();
    assert_eq!(set.sources, (0..600).collect::<Vec<_>>());
    for (row, example) in set.examples.iter().zip(&examples) {
        assert_eq!(*row, one(example, &tokenizer, LossOn::Answer));
    }
    // The first error in the order of the examples.
    let mut examples = examples;
    examples[300] = chat(&[("user", "hi"), ("assistant", "")]);
    examples[599] = examples[300].clone();
    let options = EncodeOptions {
        empty_answers: EmptyAnswers::Refuse,
        ..options
    };
    let error = encode_examples(&examples, &tokenizer, options).unwrap_err();
    assert_eq!(
        error.message(),
        "example 301: the answer in message 2 is empty"
    );
}

#[test]
fn a_prompt_needs_a_message_before_the_answer() {
    const READS_THE_FIRST: &str = "{% if messages[0].role == 'judge' %}\
    {{ raise_exception('no judges') }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}";
    let tokenizer = tokenizer(READS_THE_FIRST);
    let example = chat(&[("assistant", "hi")]);
    assert_eq!(encode_prompt(&example, &tokenizer).unwrap(), None);

    let mut example = chat(&[("judge", "hi"), ("assistant", "hi")]);
    example.place = Some(Place::at_line(Path::new("held.jsonl"), 3));
    let error = encode_prompt(&example, &tokenizer).unwrap_err();
    let (file, line) = error.place().unwrap();
    assert_eq!((file, line), (Path::new("held.jsonl"), Some(3)));
    assert!(error.message().contains("no judges"), "{error}");
}
