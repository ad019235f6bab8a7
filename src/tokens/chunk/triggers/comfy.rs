//! `embedding:name`, each a stretch of its own (`SDTokenizer.tokenize_with_weights`).

use std::ops::Range;

use crate::prompt::NoteKind;
use crate::prompt::comfy::{EmbeddingPiece, embedding_pieces, retry_name};
use crate::tokens::Known;

use super::Build;

pub(super) fn place(build: &mut Build<'_>, text: &str, span: Range<usize>) {
    for piece in embedding_pieces(text, span) {
        match piece {
            EmbeddingPiece::Text { text, span } => {
                build.begin(span);
                let ids = build.encode(&text);
                build.ids(&ids);
            }
            EmbeddingPiece::Embedding { name, rest, span } => named(build, &name, rest, span),
        }
    }
}

fn named(build: &mut Build<'_>, name: &str, rest: String, span: Range<usize>) {
    if name.is_empty() {
        let message = "no name follows `embedding:`; ComfyUI fails here".to_owned();
        build.note(NoteKind::ReferenceError, span, message);
        return;
    }
    let retry = match build.lexicon.find(name) {
        Known::No => retry_name(name, &rest),
        Known::Unfit { .. } | Known::Fit { .. } => None,
    };
    let (name, rest) = retry.unwrap_or_else(|| (name.to_owned(), rest));
    build.begin(span.clone());
    build.embedding(&name, span.clone());
    if !rest.is_empty() {
        build.begin(span);
        let ids = build.encode(&rest);
        build.ids(&ids);
    }
}
