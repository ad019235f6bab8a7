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

    /// Tensors of an encoder.
    pub(crate) fn loading(&self, encoder: EncoderId, done: usize, total: usize) {
        let message = format!("loading {encoder}");
        self.show(COUNTED, message, done as u64, Some(total as u64));
    }

    /// Tensors of a file that is written.
    pub(crate) fn writing(&self, path: &Path, done: usize, total: usize) {
        let name = path.file_name().unwrap_or(path.as_os_str());
        let message = format!("writing {}", name.display());
        self.show(COUNTED, message, done as u64, Some(total as u64));
    }

    /// Bytes of a file.
    pub(crate) fn fetching(&self, now: hub::Progress<'_>) {
        let verb = match now.phase {
            Phase::Downloading => "fetching",
            Phase::Verifying => "checking",
        };
        self.show(BYTES, format!("{verb} {}", now.file), now.done, now.total);
    }

    /// Lines of a requests file.
    pub(crate) fn counting(&self, written: u64, failed: u64) {
        let failures = match failed {
            0 => String::new(),
            _ => format!(", {failed} failed"),
        };
        self.bar.set_prefix(failures);
        self.show(SPINNING, "encoding".to_owned(), written + failed, None);
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
const SPINNING: &str = "{spinner} {msg}: {pos} lines{prefix} in {elapsed}";

fn template(text: &str) -> ProgressStyle {
    ProgressStyle::with_template(text).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_sound() {
        for text in [COUNTED, BYTES, SPINNING] {
            assert!(ProgressStyle::with_template(text).is_ok(), "{text}");
        }
    }
}
