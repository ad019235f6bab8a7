//! `tokens`: windows, ids and pieces of a prompt, and what was cut. Runs no encoder.

use std::process::ExitCode;

use anyhow::anyhow;
use sd_conditioner::conditioner::chunks_for;
use sd_conditioner::prompt::Note;
use sd_conditioner::tokens::{Chunk, Chunks, TokenId, Tokenizer};
use sd_conditioner::weights::EncoderId;
use sd_conditioner::{Family, Request};
use serde::Serialize;

use crate::embeddings::Shelf;
use crate::flags::TokensFlags;
use crate::job::Side;
use crate::notes;
use crate::ui::{self, Done};
use crate::weights;
use crate::wishes::Wishes;

/// Chunks and prints.
pub(crate) fn run(flags: &TokensFlags) -> Done {
    let family = weights::family(&flags.weights)?.unwrap_or(Family::Sd1);
    let job = Wishes::from(flags).job().map_err(|error| anyhow!(error))?;
    let job = Shelf::open(flags.manner.embeddings.as_deref(), None)?.supply(job)?;
    for warning in job.unused(family) {
        ui::warn(warning);
    }
    let negative = flags.texts.negative.is_some();
    let shown = Shown {
        family: family.name(),
        profile: flags.manner.profile.name(),
        positive: side(family, job.request(family, Side::Positive)),
        negative: negative.then(|| side(family, job.request(family, Side::Negative))),
    };
    if flags.json {
        ui::print(serde_json::to_string(&shown)?)?;
    } else {
        ui::print(text(&shown))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The JSON object.
#[derive(Debug, Serialize)]
struct Shown {
    family: &'static str,
    profile: &'static str,
    positive: Vec<Encoder>,
    /// `null` where no negative was given.
    negative: Option<Vec<Encoder>>,
}

#[derive(Debug, Serialize)]
struct Encoder {
    #[serde(rename = "encoder")]
    name: &'static str,
    windows: Vec<Window>,
    /// What was cut or guessed; spans are bytes of the text.
    notes: Vec<Told>,
}

#[derive(Debug, Serialize)]
struct Window {
    /// How many ids are neither start, end nor padding.
    tokens: usize,
    /// The row that the pooled vector is read at.
    end: usize,
    ids: Vec<TokenId>,
    pieces: Vec<String>,
    strengths: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Told {
    kind: &'static str,
    span: [usize; 2],
    message: String,
}

fn side(family: Family, request: Request<'_>) -> Vec<Encoder> {
    let all = chunks_for(family, request).into_iter();
    all.map(|(id, chunks)| encoder(id, &chunks)).collect()
}

fn encoder(id: EncoderId, chunks: &Chunks) -> Encoder {
    Encoder {
        name: id.tag(),
        windows: chunks.iter().map(window).collect(),
        notes: chunks.notes().iter().map(told).collect(),
    }
}

fn window(chunk: &Chunk) -> Window {
    let piece = |id: &TokenId| Tokenizer::clip().piece(*id).unwrap_or("?").to_owned();
    Window {
        tokens: chunk.content(),
        end: chunk.end(),
        ids: chunk.ids().to_vec(),
        pieces: chunk.ids().iter().map(piece).collect(),
        strengths: chunk.strengths().to_vec(),
    }
}

fn told(note: &Note) -> Told {
    Told {
        kind: notes::kind(note.kind),
        span: [note.span.start, note.span.end],
        message: note.message.clone(),
    }
}

/// For people: one id a line, padding counted.
fn text(shown: &Shown) -> String {
    let mut lines = vec![format!("{}, as {} does it", shown.family, shown.profile)];
    let positive = ("positive", Some(&shown.positive));
    for (name, side) in [positive, ("negative", shown.negative.as_ref())] {
        for encoder in side.into_iter().flatten() {
            let count = match encoder.windows.len() {
                1 => "1 window".to_owned(),
                count => format!("{count} windows"),
            };
            lines.push(format!("{name}, {}: {count}", encoder.name));
            for (window, number) in encoder.windows.iter().zip(1..) {
                lines.push(format!("  window {number}: {} of 75 ids", window.tokens));
                lines.extend(rows(window));
            }
            let notes = encoder.notes.iter();
            lines.extend(notes.map(|note| format!("  note: {}", note.message)));
        }
    }
    lines.join("\n")
}

fn rows(window: &Window) -> Vec<String> {
    let used = window.tokens + 2;
    let all = window.ids.iter().zip(&window.pieces).zip(&window.strengths);
    let mut lines: Vec<String> = all
        .take(used)
        .enumerate()
        .map(|(row, ((id, piece), strength))| match strength {
            1.0 => format!("    {row:>2}  {id:>5}  {piece}"),
            _ => format!("    {row:>2}  {id:>5}  {piece}  × {strength}"),
        })
        .collect();
    if let Some(padding) = window.ids.get(used) {
        let count = window.ids.len() - used;
        lines.push(format!("        {padding:>5}  padding × {count}"));
    }
    lines
}
