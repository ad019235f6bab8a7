//! ComfyUI's `embedding:name` inside the text of a piece.
//!
//! Rules: `SDTokenizer.tokenize_with_weights` and `_try_get_embedding` in `comfy/sd1_clip.py`.
//! Whether a name is known is for the owner of the embeddings to say, so the grammar leaves these
//! words in the text and this file cuts them out on request.

use std::ops::Range;

use crate::prompt::python;

const MARK: &str = "embedding:";

/// A part of a piece of text.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EmbeddingPiece {
    /// Text to tokenize as it is.
    Text {
        /// The text.
        text: String,
        /// Where it stands in the source.
        span: Range<usize>,
    },
    /// An embedding and the text behind it.
    Embedding {
        /// The first word after the colon. Empty if there is none; the reference raises then.
        name: String,
        /// The words behind the name, joined by single spaces.
        rest: String,
        /// Where all of it stands in the source.
        span: Range<usize>,
    },
}

/// Cuts the text of a piece before every `embedding:` that follows a space or a line feed, both of
/// which are dropped.
///
/// `span` is where the piece stands in the source. If escapes were undone in it, its parts cannot
/// be told apart there and all get the whole span.
///
/// ```
/// use sd_conditioner::prompt::comfy::{EmbeddingPiece, embedding_pieces};
/// let pieces = embedding_pieces("a embedding:style  of it", 0..24);
/// let EmbeddingPiece::Embedding { name, rest, .. } = &pieces[1] else { panic!("two pieces") };
/// assert_eq!((name.as_str(), rest.as_str()), ("style", "of it"));
/// ```
pub fn embedding_pieces(text: &str, span: Range<usize>) -> Vec<EmbeddingPiece> {
    let is_exact = text.len() == span.len();
    let place = |part: Range<usize>| {
        if is_exact {
            span.start + part.start..span.start + part.end
        } else {
            span.clone()
        }
    };
    let parts = parts(text).into_iter().filter(|part| !part.is_empty());
    parts
        .map(|part| piece(&text[part.clone()], place(part)))
        .collect()
}

/// The stretches between the separators.
fn parts(text: &str) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut from = 0;
    for (at, _) in text.match_indices(MARK) {
        if text[..at].ends_with([' ', '\n']) {
            parts.push(from..at - 1);
            from = at;
        }
    }
    parts.push(from..text.len());
    parts
}

fn piece(part: &str, span: Range<usize>) -> EmbeddingPiece {
    let Some(after) = part.strip_prefix(MARK) else {
        return EmbeddingPiece::Text {
            text: part.to_owned(),
            span,
        };
    };
    let mut words = after
        .split(python::is_space)
        .filter(|word| !word.is_empty());
    let name = words.next().unwrap_or_default().to_owned();
    let rest = words.collect::<Vec<_>>().join(" ");
    EmbeddingPiece::Embedding { name, rest, span }
}

/// The second name to try when `name` is unknown: without the commas at both ends. With it comes
/// the text that is left over then, which ends in a space if `rest` is empty.
///
/// The leftover counts characters from the wrong end when commas stood in front (`,one` leaves
/// `e`); that is kept.
pub fn retry_name(name: &str, rest: &str) -> Option<(String, String)> {
    let stripped = name.trim_matches(',');
    if stripped.len() == name.len() {
        return None;
    }
    let leftover = name
        .chars()
        .skip(stripped.chars().count())
        .collect::<String>();
    Some((stripped.to_owned(), format!("{leftover} {rest}")))
}
