//! What a tokenizer takes over from another one.

use super::*;

#[test]
fn a_tokenizer_of_another_model_is_refused_before_its_tokens_are_added() {
    let vocab: serde_json::Map<String, Value> = (0..50_000_u32)
        .map(|id| (format!("word{id}"), id.into()))
        .collect();
    let model = json!({"type": "WordLevel", "vocab": vocab, "unk_token": "word0"});
    let file = json!({"version": "1.0", "model": model}).to_string();
    let other = Tokenizer::from_dir(folder(&[("tokenizer.json", &file)]).path()).unwrap();
    let base = Tokenizer::from_dir(folder(&[("tokenizer.json", TOKENIZER)]).path()).unwrap();
    let next = base.id_count();
    let error = base.with_changes_of(&other).unwrap_err();
    assert_eq!(
        error.message(),
        format!("the token \"word0\" would get the id {next}, and 0 in the other tokenizer")
    );
}

#[test]
fn a_token_that_is_given_twice_is_added_once() {
    let base = Tokenizer::from_dir(folder(&[("tokenizer.json", TOKENIZER)]).path()).unwrap();
    let next = base.id_count() as u32;
    let more = base.with_added_tokens(["<a>", "<b>", "<a>"]).unwrap();
    assert_eq!(more.added_tokens(), ["<a>", "<b>"]);
    assert_eq!(more.encode("<b><a>").unwrap(), [next + 1, next]);
}
