//! How far it is, on standard error, for people who watch: never into a file or a pipe.

use std::fmt::Display;
use std::io::{IsTerminal as _, stderr};
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sd_conditioner::hub::{self, Phase};
use sd_conditioner::weights::EncoderId;

use crate::ui;

/// A bar that is only there on a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    quiet: bool,
}

impl Progress {
    /// Shown on a terminal, unless everything is to be quiet.
    pub(crate) fn new(quiet: bool) -> Progress {
        let watched = !quiet && stderr().is_terminal();
        let target = if watched {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        Progress { bar, quiet }
    }

    /// Layers of an encoder.
    pub(crate) fn loading(&self, encoder: EncoderId, done: usize, total: usize) {
        let message = format!("loading {encoder}");
        self.show(COUNTED, message, done as u64, Some(total as u64));
    }

    /// Tensors of a file that is written.
    pub(crate) fn writing(&self, path: &Path, done: usize, total: usize) {
        let name = path.file_name().unwrap_or(path.as_os_str());
        let message = ui::harmless(&format!("writing {}", name.display()));
        self.show(COUNTED, message, done as u64, Some(total as u64));
    }

    /// Bytes of a file.
    pub(crate) fn fetching(&self, now: hub::Progress<'_>) {
        let verb = match now.phase {
            Phase::Verifying => "checking",
            _ => "fetching",
        };
        let message = ui::harmless(&format!("{verb} {}", now.file));
        self.show(BYTES, message, now.done, now.total);
    }

    /// Lines of a requests file: written, failed and skipped ones, and how far in its bytes that is.
    pub(crate) fn counting(&self, lines: [u64; 3], bytes: u64, length: Option<u64>) {
        if self.bar.is_hidden() {
            return;
        }
        let [written, failed, skipped] = lines;
        let more = [(failed, "failed"), (skipped, "done before")];
        let more = more.into_iter().filter(|(count, _)| *count > 0);
        let more: Vec<String> = more
            .map(|(count, what)| format!(", {count} {what}"))
            .collect();
        let (all, more) = (written + failed + skipped, more.concat());
        let rate = (written + failed) as f64 / self.bar.elapsed().as_secs_f64().max(0.1);
        let style = if length.is_some() { LINES } else { SPINNING };
        self.bar
            .set_prefix(format!("{all} lines{more}, {rate:.1}/s"));
        self.show(style, "encoding".to_owned(), bytes, length);
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Says something while the bar is out of the way.
    pub(crate) fn aside(&self, say: impl FnOnce()) {
        self.bar.suspend(say);
    }

    /// Says what was done, unless everything is to be quiet.
    pub(crate) fn summary(&self, text: impl Display) {
        if !self.quiet {
            ui::info(text);
        }
    }

    fn show(&self, style: &str, message: String, done: u64, total: Option<u64>) {
        if self.bar.is_hidden() {
            return;
        }
        if self.bar.message() != message {
            self.bar.reset();
            self.bar.set_style(template(style));
            self.bar.set_message(message);
        }
        if let Some(total) = total {
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
    }
}

const COUNTED: &str = "{msg} {wide_bar} {pos}/{len}";
const BYTES: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}";
const LINES: &str = "{msg} {wide_bar} {prefix}, {eta} left";
const SPINNING: &str = "{spinner} {msg}: {prefix} in {elapsed}";

fn template(text: &str) -> ProgressStyle {
    ProgressStyle::with_template(text).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_sound() {
        for text in [COUNTED, BYTES, LINES, SPINNING] {
            assert!(ProgressStyle::with_template(text).is_ok(), "{text}");
        }
    }
}
