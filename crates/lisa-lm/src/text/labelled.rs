//! Texts as tokens with labels: which tokens are in the loss. [`CutRow`]: a row that is truncated.

use crate::error::Error;
use crate::text::answers::Passage;
use crate::text::encoded::{Encoded, IGNORED};
use crate::text::tokenizer::{Tokenizer, Tokens};

/// A row that is cut at a number of tokens, and what is known of the whole row.
pub(super) struct CutRow {
    pub(super) row: Encoded,
    /// The number of tokens before truncation.
    pub(super) length: usize,
    /// The index of the first token in the loss, before truncation.
    pub(super) first: Option<usize>,
}

impl CutRow {
    /// The first `max_length` tokens of a row.
    pub(super) fn of(mut row: Encoded, max_length: usize) -> Self {
        let length = row.ids.len();
        let mut labels = row.labels.iter().enumerate().skip(1);
        let first = labels.find(|(_, label)| **label != IGNORED);
        let first = first.map(|(at, _)| at);
        if length > max_length {
            row.truncate(max_length);
            row.ids.shrink_to_fit();
            row.labels.shrink_to_fit();
        }
        Self { row, length, first }
    }
}

/// A rendered chat as tokens.
pub(super) fn passage(
    passage: &Passage,
    tokenizer: &Tokenizer,
    max_length: usize,
) -> Result<CutRow, Error> {
    let Tokens { mut ids, offsets } = tokenizer.encode_with_offsets(&passage.text, false)?;
    let (length, kept) = (ids.len(), ids.len().min(max_length));
    let is_weighted = passage.spans.iter().any(|(_, weight)| *weight != 1.0);
    let mut labels = vec![IGNORED; kept];
    let mut weights = is_weighted.then(|| vec![1.0; kept]);
    let mut first = None;
    let mut spans = passage.spans.iter().peekable();
    for (at, (start, end)) in offsets.iter().enumerate() {
        while spans.next_if(|(span, _)| span.end <= *start).is_some() {}
        let Some((span, weight)) = spans.peek() else {
            break;
        };
        if *end > span.start && *weight > 0.0 {
            if at > 0 {
                first.get_or_insert(at);
            }
            if at >= kept {
                break;
            }
            labels[at] = i64::from(ids[at]);
            if let Some(weights) = &mut weights {
                weights[at] = *weight;
            }
        }
    }
    if length > kept {
        ids.truncate(kept);
        ids.shrink_to_fit();
    }
    let row = Encoded {
        ids,
        labels,
        weights,
    };
    Ok(CutRow { row, length, first })
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
