use super::*;
use crate::test_support::tokenizer;
use crate::text::chat::{Chat, Message};

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
    let example = Example {
        content: Content::Pair {
            prompt: "Hello,".to_owned(),
            completion: " world!".to_owned(),
        },
        answer: Some("world!".to_owned()),
        place: None,
    };
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
    let example = Example {
        content: Content::Pair {
            prompt: "Hel".to_owned(),
            completion: "lo".to_owned(),
        },
        answer: Some("lo".to_owned()),
        place: None,
    };
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
fn a_longer_prompt_for_generation_is_tolerated() {
    let template = TURNS.replace("%}<|assistant|>{% endif", "%}<|assistant|>think{% endif");
    let tokenizer = tokenizer(&template);
    let example = chat(&[("user", "hi"), ("assistant", "hello")]);
    let encoded = one(&example, &tokenizer, LossOn::Answer);
    assert_eq!(encoded.labels, [X, X, X, 2, 273, 78, 350, 0]);
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
        "1 example, 6 tokens, 2 trained on; 2 cut, 1 dropped"
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
