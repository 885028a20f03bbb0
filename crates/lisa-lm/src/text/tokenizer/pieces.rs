//! [`of`]: encodes a long text in overlapping pieces, since an encoding of the tokenizers crate has
//! about 200 bytes for each token.
//!
//! Near its ends, a piece may have other tokens than the whole text. So two pieces overlap, and they
//! are joined where both have the same tokens at the same places: at the border of two words, as the
//! pre-tokenizer splits words, or inside of many equal tokens if it splits none there. What is before
//! the border then has no effect on what is after it. If the pieces have no such place, the whole text
//! is encoded.

use std::ops::Range;

use tokenizers::Encoding;

/// The longest text, in bytes, that is encoded whole.
pub(super) const PIECE: usize = 256 << 10;

/// A piece overlaps the next one by this part of its length.
const OVERLAP: usize = 16;

/// How many tokens before and after the border of two words are equal.
const EQUAL: usize = 4;

/// How many tokens are equal where no word begins.
const EQUAL_IN_WORD: usize = 64;

/// The tokens of a text.
pub(super) struct Pieces {
    pub(super) ids: Vec<u32>,
    pub(super) offsets: Vec<(usize, usize)>,
    /// The tokens of the text itself, without those that the tokenizer adds at its ends.
    pub(super) own: Range<usize>,
}

/// The tokens of a text, encoded by `encode` in pieces of about `length` bytes.
pub(super) fn of<E>(
    text: &str,
    length: usize,
    encode: impl Fn(&str) -> Result<Encoding, E>,
) -> Result<Pieces, E> {
    if text.len() > length
        && let Some(joined) = joined(text, length, &encode)?
    {
        return Ok(joined);
    }
    let whole = Piece::new(&encode(text)?, 0);
    Ok(Pieces {
        ids: whole.tokens.iter().map(|token| token.id).collect(),
        offsets: whole.tokens.iter().map(|token| token.place).collect(),
        own: whole.own,
    })
}

fn joined<E>(
    text: &str,
    length: usize,
    encode: &impl Fn(&str) -> Result<Encoding, E>,
) -> Result<Option<Pieces>, E> {
    let mut all = Pieces {
        ids: Vec::new(),
        offsets: Vec::new(),
        own: 0..0,
    };
    let overlap = length / OVERLAP;
    let (mut start, mut end) = (0, text.floor_char_boundary(length));
    let mut left = Piece::new(&encode(&text[..end])?, 0);
    // The first token of the left piece that is not in `all`.
    let mut from = 0;
    all.own.start = left.own.start;
    while end < text.len() {
        start = text.floor_char_boundary(end - overlap).max(start + 1);
        end = text.floor_char_boundary(start + length);
        let right = Piece::new(&encode(&text[start..end])?, start);
        let Some((at, to)) = join(&left, from, &right) else {
            return Ok(None);
        };
        all.extend(&left.tokens[from..at]);
        (left, from) = (right, to);
    }
    let after = left.tokens.len() - left.own.end;
    all.extend(&left.tokens[from..]);
    all.own.end = all.ids.len() - after;
    Ok(Some(all))
}

impl Pieces {
    /// Removes the token with this index. `own` stays as it is.
    pub(super) fn remove(&mut self, index: usize) {
        self.ids.remove(index);
        self.offsets.remove(index);
    }

    fn extend(&mut self, tokens: &[Token]) {
        self.ids.extend(tokens.iter().map(|token| token.id));
        self.offsets.extend(tokens.iter().map(|token| token.place));
    }
}

/// The tokens of a piece, with their places in the whole text.
struct Piece {
    tokens: Vec<Token>,
    /// The tokens of the text itself.
    own: Range<usize>,
}

#[derive(PartialEq)]
struct Token {
    id: u32,
    place: (usize, usize),
    /// Whether a word begins here.
    begins: bool,
}

impl Piece {
    fn new(encoding: &Encoding, start: usize) -> Self {
        // 1 for a token that the tokenizer added.
        let mask = encoding.get_special_tokens_mask();
        let before = mask.iter().take_while(|added| **added == 1).count();
        let after = mask.iter().rev().take_while(|added| **added == 1).count();
        let own = before..mask.len() - after.min(mask.len() - before);
        let words = encoding.get_word_ids();
        let tokens = encoding.get_ids().iter().zip(encoding.get_offsets());
        let tokens = tokens.enumerate().map(|(at, (id, (from, to)))| Token {
            id: *id,
            place: if own.contains(&at) {
                (from + start, to + start)
            } else {
                (*from, *to)
            },
            begins: at > 0 && words[at] != words[at - 1],
        });
        Self {
            tokens: tokens.collect(),
            own,
        }
    }
}

/// Where the pieces are joined: before these tokens of both. The tokens of the left piece before
/// `from` are not considered.
fn join(left: &Piece, from: usize, right: &Piece) -> Option<(usize, usize)> {
    let first = right.tokens.get(right.own.start)?.place.0;
    let own = &left.tokens[..left.own.end];
    let overlap = own.partition_point(|token| token.place.0 < first);
    let mut to = right.own.start;
    let mut run = 0;
    for at in overlap.max(from)..left.own.end {
        let place = left.tokens[at].place;
        while to < right.own.end && right.tokens[to].place < place {
            to += 1;
            run = 0;
        }
        let Some(other) = right.tokens[..right.own.end].get(to) else {
            break;
        };
        if left.tokens[at] != *other {
            run = 0;
            continue;
        }
        run += 1;
        to += 1;
        if run >= 2 * EQUAL && left.tokens[at + 1 - EQUAL].begins {
            return Some((at + 1 - EQUAL, to - EQUAL));
        }
        if run >= EQUAL_IN_WORD {
            return Some((at + 1 - run / 2, to - run / 2));
        }
    }
    None
}

#[cfg(test)]
mod tests;
