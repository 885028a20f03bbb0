//! Texts as tokens with labels: which tokens are in the loss.

use crate::error::Error;
use crate::text::answers::Passage;
use crate::text::encoded::{Encoded, IGNORED};
use crate::text::tokenizer::Tokenizer;

/// A rendered chat as tokens.
pub(super) fn passage(passage: &Passage, tokenizer: &Tokenizer) -> Result<Encoded, Error> {
    let tokens = tokenizer.encode_with_offsets(&passage.text, false)?;
    let is_weighted = passage.spans.iter().any(|(_, weight)| *weight != 1.0);
    let mut labels = vec![IGNORED; tokens.ids.len()];
    let mut weights = is_weighted.then(|| vec![1.0; labels.len()]);
    let mut spans = passage.spans.iter().peekable();
    for (at, (start, end)) in tokens.offsets.iter().enumerate() {
        while spans.next_if(|(span, _)| span.end <= *start).is_some() {}
        let Some((span, weight)) = spans.peek() else {
            break;
        };
        if *end > span.start && *weight > 0.0 {
            labels[at] = i64::from(tokens.ids[at]);
            if let Some(weights) = &mut weights {
                weights[at] = *weight;
            }
        }
    }
    Ok(Encoded {
        ids: tokens.ids,
        labels,
        weights,
    })
}

/// A prompt and its completion as tokens.
pub(super) fn pair(
    prompt: &str,
    completion: &str,
    tokenizer: &Tokenizer,
) -> Result<Encoded, Error> {
    let text = format!("{prompt}{completion}");
    let whole = tokenizer.encode_with_offsets(&text, true)?;
    let mut ids = tokenizer.encode_prompt(prompt)?;
    let border = ids.len();
    ids.extend(tokenizer.encode_with_offsets(completion, false)?.ids);
    let without_end = |ids: &[u32]| {
        let count = ids
            .iter()
            .rev()
            .take_while(|id| tokenizer.is_eos(**id))
            .count();
        tokenizer.decode(&ids[..ids.len() - count], false)
    };
    let labels = if ids == whole.ids || without_end(&ids)? == without_end(&whole.ids)? {
        let labels = ids.iter().enumerate();
        let labels = labels.map(|(at, id)| if at < border { IGNORED } else { i64::from(*id) });
        labels.collect()
    } else {
        ids = whole.ids;
        // By its last byte, since tokenizers exclude the leading space from a token's place.
        let labels = ids.iter().zip(&whole.offsets);
        let label = |(id, (_, end)): (&u32, &(usize, usize))| {
            if *end > prompt.len() {
                i64::from(*id)
            } else {
                IGNORED
            }
        };
        labels.map(label).collect()
    };
    Ok(ended(ids, labels, tokenizer))
}

/// A row that ends with the end of a sequence, which is in the loss.
pub(super) fn ended(mut ids: Vec<u32>, mut labels: Vec<i64>, tokenizer: &Tokenizer) -> Encoded {
    if let Some(eos) = tokenizer.eos_id() {
        if !ids.last().is_some_and(|id| tokenizer.is_eos(*id)) {
            ids.push(eos);
            labels.push(IGNORED);
        }
        if let (Some(id), Some(label)) = (ids.last(), labels.last_mut()) {
            *label = i64::from(*id);
        }
    }
    Encoded::new(ids, labels)
}
