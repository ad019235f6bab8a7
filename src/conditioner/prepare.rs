//! What a tool takes out of a prompt before it parses it, and where the rest stood.

use std::ops::Range;

use crate::profile::{Choices, TakenOut};
use crate::prompt::networks::{self, ExtraNetwork};
use crate::prompt::{Note, NoteKind, Piece, comments};

/// A text that is ready to be parsed.
pub(super) struct Prepared {
    pub(super) text: String,
    /// The networks that were taken out, with their places in the source.
    pub(super) networks: Vec<ExtraNetwork>,
    /// About those that are no `LoRA`s, and about those that stayed.
    pub(super) notes: Vec<Note>,
    /// For each byte of the text, its place in the source; `None` where nothing was taken out.
    places: Option<Vec<usize>>,
}

impl Prepared {
    /// Takes out comments and networks, where the tool does. Networks are taken out of positive
    /// prompts only (`parse_extra_network_prompts` in AUTOMATIC1111's `modules/processing.py`).
    pub(super) fn of(source: &str, rules: &Choices, is_negative: bool) -> Prepared {
        if rules.taken_out == TakenOut::Nothing || !source.contains(['#', '<']) {
            return Prepared::untouched(source);
        }
        let (stripped, places) = without_comments(source, rules.taken_out);
        let (without, mut networks) = match rules.taken_out {
            TakenOut::Loras => networks::extract_loras(&stripped),
            _ => networks::extract(&stripped),
        };
        let left = left_places(&places, &networks, is_negative);
        for network in &mut networks {
            network.span = moved(&places, network.span.clone());
        }
        let noted = |network: &ExtraNetwork| note(network, is_negative);
        let notes = networks.iter().filter_map(noted).collect();
        let (text, networks) = if is_negative {
            (stripped, Vec::new())
        } else {
            (without, networks)
        };
        Prepared {
            text,
            networks,
            notes,
            places: Some(left),
        }
    }

    fn untouched(source: &str) -> Prepared {
        Prepared {
            text: source.to_owned(),
            networks: Vec::new(),
            notes: Vec::new(),
            places: None,
        }
    }

    /// Where a part of the text stood in the source.
    pub(super) fn to_source(&self, span: Range<usize>) -> Range<usize> {
        match &self.places {
            None => span,
            Some(places) => moved(places, span),
        }
    }

    /// The pieces of the text with their places in the source.
    pub(super) fn pieces_to_source(&self, pieces: &mut [Piece]) {
        for piece in pieces {
            let (Piece::Text { span, .. } | Piece::Embedding { span, .. } | Piece::Break { span }) =
                piece;
            *span = self.to_source(span.clone());
        }
    }
}

/// The text without comments, where the tool knows such, and the place of each byte.
fn without_comments(source: &str, taken_out: TakenOut) -> (String, Vec<usize>) {
    if taken_out != TakenOut::CommentsAndNetworks {
        return (source.to_owned(), (0..source.len()).collect());
    }
    let stripped = comments::strip(source);
    let places = kept_places(source, &stripped);
    (stripped, places)
}

/// `LoRA`s that are taken out are told of where they are looked up.
fn note(network: &ExtraNetwork, is_negative: bool) -> Option<Note> {
    let message = match (is_negative, network.kind.as_str()) {
        (true, _) => "is text in a negative prompt: the tool reads it in positive ones only",
        (false, "lora" | "lyco") => return None,
        (false, _) => "is taken out of the text; load it into the model yourself",
    };
    Some(Note {
        kind: NoteKind::Quirk,
        span: network.span.clone(),
        message: format!("<{}:…> {message}", network.kind),
    })
}

fn moved(places: &[usize], span: Range<usize>) -> Range<usize> {
    let end = places.last().map_or(0, |last| last + 1);
    let start = places.get(span.start).copied().unwrap_or(end);
    match places.get(span.start..span.end) {
        Some([.., last]) => start..last + 1,
        Some([]) | None => start..start,
    }
}

/// The places of the bytes that are left without the networks; a negative prompt keeps them.
fn left_places(places: &[usize], networks: &[ExtraNetwork], is_negative: bool) -> Vec<usize> {
    if is_negative {
        return places.to_vec();
    }
    let (mut left, mut at) = (Vec::with_capacity(places.len()), 0);
    // One behind the other in the text.
    for network in networks {
        left.extend_from_slice(&places[at..network.span.start]);
        at = network.span.end;
    }
    left.extend_from_slice(&places[at..]);
    left
}

/// For each byte that [`comments::strip`] leaves, its place. A line feed that a comment leaves
/// behind is put where the comment begins.
fn kept_places(source: &str, stripped: &str) -> Vec<usize> {
    let bytes = source.as_bytes();
    let mut places: Vec<usize> = Vec::with_capacity(stripped.len());
    let mut at = 0;
    while places.len() < stripped.len() {
        match bytes.get(at) {
            Some(b'#') => {
                let after_line = places.last().is_some_and(|last| last + 1 == at);
                if !(after_line && bytes[at - 1] == b'\n') {
                    places.push(at);
                }
                let rest = &source[at..];
                at += rest.find('\n').map_or(rest.len(), |end| end + 1);
            }
            Some(_) => {
                places.push(at);
                at += 1;
            }
            None => places.push(source.len()),
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    #[test]
    fn what_is_left_is_found_in_the_source() {
        let sources = [
            "a cat",
            "a <lora:film:0.8> cat",
            "a # note\ncat",
            "# one\n# two\na cat",
            "a\n# one\n# two\ncat <3",
            "a\n\n# one\ncat # <lora:x:1>\ndog<lora:猫:1>猫",
            "a cat #",
        ];
        for source in sources {
            for is_negative in [false, true] {
                let prepared = Prepared::of(source, &Profile::A1111.choices(), is_negative);
                for (at, sign) in prepared.text.char_indices() {
                    let found = &source[prepared.to_source(at..at + sign.len_utf8())];
                    let comment = sign == '\n' && found == "#";
                    assert!(comment || found == sign.to_string(), "{source:?} at {at}");
                }
            }
        }
    }

    #[test]
    fn networks_are_noted_where_they_were_typed() {
        let source = "#x\na <lora:film:0.8>";
        let prepared = Prepared::of(source, &Profile::A1111.choices(), false);
        assert_eq!(prepared.text, "\na ");
        assert_eq!(prepared.networks[0].span, 5..20);
        assert_eq!(prepared.to_source(3..3), 5..5);
        let prepared = Prepared::of(source, &Profile::A1111.choices(), true);
        assert_eq!(prepared.text, "\na <lora:film:0.8>");
        assert_eq!(prepared.notes[0].span, 5..20);
    }
}
