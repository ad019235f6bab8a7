//! `compare`: how the profiles read one prompt, side by side, and with weights how near their
//! conditionings are.

mod cosine;
mod table;

use std::process::ExitCode;

use anyhow::anyhow;
use sd_conditioner::conditioner::{ReadText, Reading, readings_for};
use sd_conditioner::prompt::Piece;
use sd_conditioner::tokens::Chunk;
use sd_conditioner::{Conditioner, Family, Profile, Request, Result};
use serde::Serialize;

use self::cosine::Cosines;
use crate::flags::CompareFlags;
use crate::job::{Job, Side};
use crate::manner::Manner;
use crate::paint::Paint;
use crate::progress::Progress;
use crate::supplies::Supplies;
use crate::tokens::shown::{Noted, noted, span};
use crate::ui::{self, Done};
use crate::values::Held;
use crate::wishes::Wishes;
use crate::{pool, weights, worn};

/// Reads, encodes if there are weights, and prints.
pub(crate) fn run(flags: &CompareFlags, quiet: bool) -> Done {
    let jobs = jobs(flags)?;
    let text = if flags.source.is_given() {
        pool::start()?;
        let progress = Progress::new(quiet);
        let text = weights::load(&flags.source, (&flags.compute, Held::Briefly), &progress)?;
        Some(dressed(text, &jobs, &progress)?)
    } else {
        None
    };
    let compared = compare(flags, &jobs, text.as_ref())?;
    if flags.json {
        ui::print(serde_json::to_string(&compared)?)?;
    } else {
        ui::print_painted(table::text(&compared, Paint::for_stdout()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// With the files that were given; they are the same for every profile.
fn dressed(text: Conditioner, jobs: &[Job], progress: &Progress) -> Result<Conditioner> {
    let Some(job) = jobs.first().filter(|job| !job.loras().is_empty()) else {
        return Ok(text);
    };
    let text = text.with_loras(job.loras())?;
    for report in text.lora_reports() {
        progress.summary(worn::summary(report));
        worn::warnings(report).iter().for_each(ui::warn);
    }
    Ok(text)
}

fn compare<'a>(
    flags: &'a CompareFlags,
    jobs: &[Job],
    text: Option<&Conditioner>,
) -> Result<Compared<'a>> {
    let family = text.map(Conditioner::family);
    let family = family.or(flags.source.family()).unwrap_or(Family::Sd1);
    let requests = jobs.iter().map(|job| job.request(family, Side::Positive));
    let requests: Vec<Request<'_>> = requests.collect();
    let columns = jobs.iter().zip(&requests);
    let columns = columns.map(|(job, request)| Column::of(job, &read(text, family, request)));
    let cosines = text.map(|text| Cosines::of(&text.encode_batch(&requests)?));
    Ok(Compared {
        family: family.name(),
        text: &flags.text,
        profiles: columns.collect(),
        cosines: cosines.transpose()?,
    })
}

/// One job for each profile, with the same text and embeddings.
fn jobs(flags: &CompareFlags) -> anyhow::Result<Vec<Job>> {
    let (embeddings, loras) = (flags.embeddings.as_deref(), flags.loras.as_deref());
    let mut supplies = Supplies::open(embeddings, loras, None)?;
    let jobs = Profile::ALL.map(|profile| {
        let wishes = Wishes {
            positive: Some(flags.text.clone()),
            manner: Manner {
                profile: Some(profile),
                ..Manner::default()
            },
            embeddings: Some(Vec::new()),
            loras: Some(flags.lora.clone()),
            ..Wishes::default()
        };
        let job = wishes.job().map_err(|error| anyhow!(error))?;
        supplies.supply(job)
    });
    jobs.into_iter().collect()
}

fn read(text: Option<&Conditioner>, family: Family, request: &Request<'_>) -> Vec<Reading> {
    match text {
        Some(text) => text.readings(request),
        None => readings_for(family, request),
    }
}

/// The JSON object.
#[derive(Debug, Serialize)]
struct Compared<'a> {
    family: &'static str,
    text: &'a str,
    profiles: Vec<Column>,
    /// `null` without weights.
    cosines: Option<Cosines>,
}

/// What one profile makes of the prompt.
#[derive(Debug, Serialize)]
struct Column {
    profile: &'static str,
    dialect: &'static str,
    emphasis: String,
    encoders: Vec<Encoder>,
}

#[derive(Debug, Serialize)]
struct Encoder {
    #[serde(rename = "encoder")]
    name: &'static str,
    /// How many windows the result has.
    windows: usize,
    /// How many ids there are beside start, end and padding.
    tokens: usize,
    texts: Vec<Text>,
    notes: Vec<Noted>,
}

/// One text; compel's blends and conjunctions have several.
#[derive(Debug, Serialize)]
struct Text {
    weight: f64,
    pieces: Vec<ShownPiece>,
}

#[derive(Debug, PartialEq, Serialize)]
struct ShownPiece {
    kind: &'static str,
    text: String,
    strength: f64,
    span: Option<[usize; 2]>,
}

impl Column {
    fn of(job: &Job, readings: &[Reading]) -> Column {
        let choices = job.choices();
        Column {
            profile: job.profile().name(),
            dialect: crate::names::dialect_name(choices.dialect),
            emphasis: choices.emphasis.name(),
            encoders: readings.iter().map(encoder).collect(),
        }
    }
}

fn encoder(reading: &Reading) -> Encoder {
    let chunks = reading.texts.iter().flat_map(|text| &text.chunks);
    Encoder {
        name: reading.encoder.tag(),
        windows: reading.windows,
        tokens: chunks.map(Chunk::content).sum(),
        notes: reading.notes.iter().map(noted).collect(),
        texts: reading.texts.iter().map(shown_text).collect(),
    }
}

fn shown_text(text: &ReadText) -> Text {
    Text {
        weight: text.weight,
        pieces: text.pieces.iter().map(shown_piece).collect(),
    }
}

fn shown_piece(piece: &Piece) -> ShownPiece {
    let (kind, text, strength) = match piece {
        Piece::Text { text, strength, .. } => ("text", text.as_str(), strength.get()),
        Piece::Embedding { name, strength, .. } => ("embedding", name.as_str(), strength.get()),
        Piece::Break { .. } => ("break", "", 1.0),
        _ => ("other", "", 1.0),
    };
    ShownPiece {
        kind,
        text: text.to_owned(),
        strength,
        span: span(piece),
    }
}
