//! `tokens`: windows, ids and pieces of a prompt, and what was cut. Runs no encoder.

mod explain;
mod html;
mod plain;
pub(crate) mod shown;

use std::path::Path;
use std::process::ExitCode;

use anyhow::anyhow;
use sd_conditioner::{Family, storage};

use self::shown::{Encoder, Entry, Shown, Texts, Window};
use crate::flags::TokensFlags;
use crate::paint::Paint;
use crate::ui::{self, Done};
use crate::wishes::Wishes;
use crate::{output, weights};

/// Chunks and prints.
pub(crate) fn run(flags: &TokensFlags, quiet: bool) -> Done {
    let family = weights::family(&flags.weights)?.unwrap_or(Family::Sd1);
    let job = Wishes::from(flags).job().map_err(|error| anyhow!(error))?;
    if let Some(page) = &flags.html {
        output::check_place(page)?;
    }
    let job = flags.manner.supplies(None)?.supply(job)?;
    for warning in job.unused(family) {
        ui::warn(warning);
    }
    let shown = Shown::of(&job, family);
    if let Some(page) = &flags.html {
        write_page(page, &shown, quiet)?;
    }
    if flags.json {
        ui::print(serde_json::to_string(&shown)?)?;
    } else if flags.explain {
        ui::print_painted(explain::text(&shown, Paint::for_stdout()))?;
    } else if flags.html.is_none() {
        ui::print(plain::text(&shown))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_page(path: &Path, shown: &Shown, quiet: bool) -> anyhow::Result<()> {
    let text = html::page(shown);
    storage::write_file(path, text.as_bytes())?;
    if !quiet {
        ui::info(format!("wrote {}", path.display()));
    }
    Ok(())
}

/// A list of encoders and what they are shown as.
type Section<'a> = (String, &'a [Encoder]);

impl Shown {
    /// The first line: `sd1, as a1111 does it, with emphasis ignore`.
    fn title(&self) -> String {
        let overrides = self.overrides.iter();
        let overrides: Vec<String> = overrides
            .map(|(key, name)| format!("{} {name}", key.replace('_', "-")))
            .collect();
        let with = if overrides.is_empty() { "" } else { ", with " };
        let overrides = overrides.join(", ");
        format!(
            "{}, as {} does it{with}{overrides}",
            self.family, self.profile
        )
    }

    /// `positive`, `negative`; or one for each text and its steps.
    fn sections(&self) -> Vec<Section<'_>> {
        match &self.texts {
            Texts::AsTheyAre { positive, negative } => {
                let first = ("positive".to_owned(), positive.as_slice());
                let second = negative.as_deref();
                let second = second.map(|encoders| ("negative".to_owned(), encoders));
                std::iter::once(first).chain(second).collect()
            }
            Texts::BySteps { entries, .. } => {
                let sections = entries.iter();
                let sections = sections.map(|entry| (entry.title(), entry.encoders.as_slice()));
                sections.collect()
            }
        }
    }

    /// What is said of no text in particular.
    fn notes(&self) -> &[String] {
        match &self.texts {
            Texts::AsTheyAre { .. } => &[],
            Texts::BySteps { schedule_notes, .. } => schedule_notes,
        }
    }
}

impl Entry {
    /// `positive until step 10`, with the weight of its prompt where that is not 1.
    fn title(&self) -> String {
        let hires = match self.pass {
            "schedule" => "",
            _ => "hires ",
        };
        let weight = match self.weight {
            1.0 => String::new(),
            weight => format!(" × {}", ui::short(weight)),
        };
        let (side, until) = (self.side, self.until_step);
        format!("{side}{weight} until {hires}step {until}")
    }
}

/// A window as it is shown.
struct Named<'a> {
    name: String,
    window: &'a Window,
    /// Whether the pooled vector is read from it.
    pooled: bool,
}

impl Named<'_> {
    /// Whether the pooled vector is read at this row.
    fn is_pooled(&self, row: usize) -> bool {
        self.pooled && row == self.window.end
    }
}

impl Encoder {
    /// `clip_l: 2 windows`.
    fn title(&self) -> String {
        match self.windows.len() {
            1 => format!("{}: 1 window", self.name),
            count => format!("{}: {count} windows", self.name),
        }
    }

    /// All windows and what they are called.
    fn named_windows(&self) -> Vec<Named<'_>> {
        let windows = self.windows.iter().enumerate();
        let windows = windows.map(|(index, window)| Named {
            name: self.window_name(index),
            window,
            pooled: self.pooled_from == Some(index),
        });
        let raw = self.raw_window.iter().map(|window| Named {
            name: "the text as typed, for the pooled vector".to_owned(),
            window,
            pooled: true,
        });
        windows.chain(raw).collect()
    }

    /// `window 1`, or `window 1 of text 2 × 0.5`.
    fn window_name(&self, index: usize) -> String {
        let window = &self.windows[index];
        let before = self.windows[..index].iter();
        let number = 1 + before.filter(|other| other.part == window.part).count();
        if self.windows.iter().all(|window| window.part == 0) {
            return format!("window {number}");
        }
        let (part, weight) = (window.part + 1, ui::short(window.weight));
        format!("window {number} of text {part} × {weight}")
    }
}
