//! Job → what `tokens` shows of it: for each encoder its windows, and where every id came from.

use std::collections::BTreeMap;

use sd_conditioner::conditioner::{ReadText, Reading, readings_for};
use sd_conditioner::profile::PooledFrom;
use sd_conditioner::prompt::{Note, Piece};
use sd_conditioner::tokens::{CONTEXT, Chunk, TokenId, Tokenizer};
use sd_conditioner::{Family, Request};
use serde::Serialize;

use crate::editing::{self, EditedPart};
use crate::job::{Job, Side};
use crate::notes::{self, Collected, Told};
use crate::schedules::NamedPass;

/// Everything that is shown, and the JSON object.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    pub(crate) family: &'static str,
    pub(crate) profile: &'static str,
    /// The choices that are not the profile's own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) overrides: BTreeMap<&'static str, String>,
    #[serde(flatten)]
    pub(crate) texts: Texts,
}

/// The texts as they are, or as the steps of a generation see them.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Texts {
    AsTheyAre {
        positive: Vec<Encoder>,
        /// `null` where no negative was given.
        negative: Option<Vec<Encoder>>,
    },
    BySteps {
        entries: Vec<Entry>,
        /// What prompt editing had to guess.
        schedule_notes: Vec<String>,
    },
}

/// A text that is meant at some steps.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    /// Which pass: `schedule` or `hires_schedule`, as in the metadata of files.
    pub(crate) pass: &'static str,
    pub(crate) side: &'static str,
    /// Which of the prompts between `AND`s, and its weight.
    pub(crate) part: usize,
    pub(crate) weight: f64,
    pub(crate) until_step: u32,
    pub(crate) encoders: Vec<Encoder>,
}

/// What one encoder makes of a text.
#[derive(Debug, Serialize)]
pub(crate) struct Encoder {
    #[serde(rename = "encoder")]
    pub(crate) name: &'static str,
    /// What the spans are bytes of.
    pub(crate) text: String,
    pub(crate) windows: Vec<Window>,
    /// Which window the pooled vector is read from; `null` where that is `raw_window`.
    pub(crate) pooled_from: Option<usize>,
    /// The text as typed in a window of its own, where only the pooled vector is read from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) raw_window: Option<Window>,
    /// What was cut or guessed.
    pub(crate) notes: Vec<Noted>,
}

/// 77 ids and what is known of each.
#[derive(Debug, Serialize)]
pub(crate) struct Window {
    /// Which of the texts that are put together (compel's blends and conjunctions), and its weight.
    pub(crate) part: usize,
    pub(crate) weight: f64,
    /// How many ids are neither start, end nor padding.
    pub(crate) tokens: usize,
    /// The row that a pooled vector is read at.
    pub(crate) end: usize,
    pub(crate) ids: Vec<TokenId>,
    pub(crate) pieces: Vec<String>,
    pub(crate) strengths: Vec<f64>,
    /// The bytes of the text that each came from; `null` for start, end and padding.
    pub(crate) spans: Vec<Option<[usize; 2]>>,
    /// Vectors of embeddings that stand in for ids.
    pub(crate) embeddings: Vec<Vector>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Vector {
    pub(crate) row: usize,
    name: String,
    /// Which of the embedding's.
    #[serde(rename = "vector")]
    index: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct Noted {
    pub(crate) kind: &'static str,
    pub(crate) span: [usize; 2],
    pub(crate) message: String,
}

impl Shown {
    /// Reads the job's texts as encoders of this family would.
    pub(crate) fn of(job: &Job, family: Family) -> Shown {
        let mut overrides: BTreeMap<_, _> = job.manner().into_iter().collect();
        overrides.remove("profile");
        Shown {
            family: family.name(),
            profile: job.profile().name(),
            overrides,
            texts: match job.steps() {
                None => as_they_are(job, family),
                Some(steps) => by_steps(job, family, steps.passes()),
            },
        }
    }
}

fn as_they_are(job: &Job, family: Family) -> Texts {
    let side = |side| encoders(family, &job.request(family, side));
    let negative = job.text(Side::Negative).is_some();
    Texts::AsTheyAre {
        positive: side(Side::Positive),
        negative: negative.then(|| side(Side::Negative)),
    }
}

fn by_steps(job: &Job, family: Family, passes: impl Iterator<Item = NamedPass>) -> Texts {
    let (mut entries, mut notes) = (Vec::new(), Collected::default());
    for (pass, side) in passes.flat_map(|pass| Side::BOTH.map(|side| (pass, side))) {
        let Some(edited) = editing::read(job, family, side, pass.pass) else {
            continue;
        };
        notes.add(edited.notes);
        for (number, part) in edited.parts.iter().enumerate() {
            entries.extend(part_entries(job, family, (pass, side), (number, part)));
        }
    }
    Texts::BySteps {
        entries,
        schedule_notes: notes.finish().iter().map(Told::to_string).collect(),
    }
}

fn part_entries(
    job: &Job,
    family: Family,
    (pass, side): (NamedPass, Side),
    (number, part): (usize, &EditedPart),
) -> Vec<Entry> {
    let entries = part.entries.iter().map(|(until_step, text)| Entry {
        pass: pass.key,
        side: side.name(),
        part: number,
        weight: part.weight,
        until_step: *until_step,
        encoders: encoders(family, &job.request_of(family, side, Some(text))),
    });
    entries.collect()
}

fn encoders(family: Family, request: &Request<'_>) -> Vec<Encoder> {
    let readings = readings_for(family, request);
    readings.into_iter().map(encoder).collect()
}

fn encoder(reading: Reading) -> Encoder {
    let texts = whole(&reading).into_iter().enumerate();
    let windows = texts.flat_map(|(part, text)| {
        let windows = text.chunks.iter();
        let windows = windows.map(|chunk| window(chunk, &text.pieces, (part, text.weight)));
        windows.collect::<Vec<_>>()
    });
    Encoder {
        name: reading.encoder.tag(),
        windows: windows.collect(),
        pooled_from: pooled_from(&reading),
        raw_window: reading.raw.as_ref().map(|raw| window(raw, &[], (0, 1.0))),
        notes: reading.notes.iter().map(noted).collect(),
        text: reading.source,
    }
}

fn pooled_from(reading: &Reading) -> Option<usize> {
    let windows = reading.texts.iter().map(|text| text.chunks.len().get());
    match reading.pooled {
        PooledFrom::FirstWindow => Some(0),
        PooledFrom::LastWindow => Some(windows.sum::<usize>().saturating_sub(1)),
        _ => None,
    }
}

/// The texts with as many windows as the result has. Several texts are shown as they are: where
/// they are mixed, their windows lie over each other.
fn whole(reading: &Reading) -> Vec<ReadText> {
    let mut texts = reading.texts.clone();
    if let ([text], Some(windows)) = (
        texts.as_mut_slice(),
        std::num::NonZeroUsize::new(reading.windows),
    ) {
        let chunks = text.chunks.clone().padded_to(windows.get());
        text.chunks = chunks.cut_to(windows);
    }
    texts
}

fn window(chunk: &Chunk, pieces: &[Piece], (part, weight): (usize, f64)) -> Window {
    let piece = |id: &TokenId| Tokenizer::clip().piece(*id).unwrap_or("?").to_owned();
    let mut names: Vec<String> = chunk.ids().iter().map(piece).collect();
    for splice in chunk.splices() {
        names[splice.row] = format!("{}[{}]", notes::quoted(&splice.name), splice.vector);
    }
    let vectors = chunk.splices().iter().map(|splice| Vector {
        row: splice.row,
        name: splice.name.to_string(),
        index: splice.vector,
    });
    let spans = chunk.pieces().iter();
    let spans = spans.map(|piece| span(pieces.get(usize::try_from(*piece).ok()?.checked_sub(1)?)?));
    Window {
        part,
        weight,
        tokens: chunk.content(),
        end: chunk.end(),
        ids: chunk.ids().to_vec(),
        pieces: names,
        strengths: chunk.strengths().to_vec(),
        spans: spans.collect(),
        embeddings: vectors.collect(),
    }
}

/// Where a piece stands; `None` for kinds that are not known yet.
pub(crate) fn span(piece: &Piece) -> Option<[usize; 2]> {
    match piece {
        Piece::Text { span, .. } | Piece::Embedding { span, .. } | Piece::Break { span } => {
            Some([span.start, span.end])
        }
        _ => None,
    }
}

/// A note for the JSON object.
pub(crate) fn noted(note: &Note) -> Noted {
    Noted {
        kind: note.kind.name(),
        span: [note.span.start, note.span.end],
        message: note.message.clone(),
    }
}

impl Noted {
    /// For people: what, where, and the text that is meant.
    pub(crate) fn about(&self, text: &str) -> String {
        let [start, end] = self.span;
        let meant = text.get(start..end).filter(|meant| !meant.is_empty());
        let place = meant.map(|meant| format!(" at {start}..{end}: `{}`", notes::quoted(meant)));
        let place = place.unwrap_or_default();
        format!("{} ({}{place})", self.message, self.kind)
    }
}

impl Window {
    /// How many rows there are before the padding begins.
    pub(crate) fn used(&self) -> usize {
        let content = self.spans.iter().rposition(Option::is_some);
        let content = content.unwrap_or(self.tokens);
        let last = self.ids.last();
        let padding = self.ids.iter().rev().take_while(|id| Some(*id) == last);
        (content + 2).max(CONTEXT - padding.count()).min(CONTEXT)
    }

    /// The id after them and how often it stands there.
    pub(crate) fn padding(&self) -> Option<(TokenId, usize)> {
        let used = self.used();
        Some((*self.ids.get(used)?, self.ids.len() - used))
    }

    /// An id for people; a vector has none.
    pub(crate) fn shown_id(&self, row: usize) -> String {
        if self.is_vector(row) {
            "–".to_owned()
        } else {
            self.ids[row].to_string()
        }
    }

    /// True where an embedding's vector stands.
    pub(crate) fn is_vector(&self, row: usize) -> bool {
        self.embeddings.iter().any(|vector| vector.row == row)
    }
}
