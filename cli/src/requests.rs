//! `encode --requests`: one JSON object a line in, one file each out. A bad line stops nothing.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};

use crate::embeddings::Shelf;
use crate::encode::Session;
use crate::job::Job;
use crate::line::Line;
use crate::progress::Progress;
use crate::ui::{self, Done};
use crate::wishes::Wishes;

/// No prompt is as long as this; a file without line breaks is not read into memory.
const LINE_AT_MOST: u64 = 1 << 20;

/// An opened requests file, and where the answers go.
pub(crate) struct Source {
    name: String,
    lines: Box<dyn BufRead>,
    folder: PathBuf,
}

/// Opens the file (`-` is standard input) and makes the folder.
pub(crate) fn open(path: &Path, folder: &Path) -> anyhow::Result<Source> {
    let (name, lines): (String, Box<dyn BufRead>) = if path.as_os_str() == "-" {
        ("standard input".to_owned(), Box::new(io::stdin().lock()))
    } else {
        let name = path.display().to_string();
        let file = File::open(path).with_context(|| name.clone())?;
        (name, Box::new(BufReader::new(file)))
    };
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    Ok(Source {
        name,
        lines,
        folder: folder.to_owned(),
    })
}

/// Encodes line after line; holds one at a time.
pub(crate) fn run(
    source: Source,
    session: &Session,
    (wishes, shelf): (&Wishes, Shelf),
    bar: &Progress,
) -> Done {
    let mut run = Run {
        session,
        wishes,
        shelf,
        folder: &source.folder,
        seen: HashSet::new(),
        told: HashSet::new(),
        warnings: Vec::new(),
    };
    let mut lines = source.lines;
    let (mut number, mut written, mut failed) = (0_u64, 0_u64, 0_u64);
    while let Some(line) = next_line(&mut lines).with_context(|| source.name.clone())? {
        number += 1;
        let done = line.and_then(|text| run.one(&text));
        let place = format!("{}: line {number}", source.name);
        bar.aside(|| run.tell(&place));
        match done {
            Ok(true) => written += 1,
            Ok(false) => (),
            Err(error) => {
                failed += 1;
                bar.aside(|| ui::error(format!("{place}: {}", ui::describe(&error))));
            }
        }
        bar.counting(written, failed);
    }
    bar.clear();
    bar.summary(format!("{written} written, {failed} failed"));
    Ok(ExitCode::from(u8::from(failed > 0)))
}

struct Run<'a> {
    session: &'a Session,
    wishes: &'a Wishes,
    shelf: Shelf,
    folder: &'a Path,
    seen: HashSet<String>,
    /// Warnings about options that would be the same for every line.
    told: HashSet<String>,
    /// What is to be said of the line at hand.
    warnings: Vec<String>,
}

impl Run<'_> {
    /// Encodes one line; false where it is blank.
    fn one(&mut self, text: &str) -> anyhow::Result<bool> {
        if text.trim().is_empty() {
            return Ok(false);
        }
        let line = Line::parse(text).map_err(|error| anyhow!(error))?;
        let id = line.id().map_err(|error| anyhow!(error))?;
        if !self.seen.insert(id.clone()) {
            bail!("the id `{id}` was used by a line before");
        }
        let wishes = line.over(self.wishes).map_err(|error| anyhow!(error))?;
        let job = wishes.job().map_err(|error| anyhow!(error))?;
        let job = self.shelf.supply(job)?;
        self.note_unused(&job);
        let path = self.folder.join(format!("{id}.safetensors"));
        self.warnings.extend(self.session.write(&job, &path)?);
        Ok(true)
    }

    fn note_unused(&mut self, job: &Job) {
        let unused = self.session.unused(job).into_iter();
        let new: Vec<String> = unused
            .filter(|text| self.told.insert(text.clone()))
            .collect();
        self.warnings.extend(new);
    }

    fn tell(&mut self, place: &str) {
        for warning in self.warnings.drain(..) {
            ui::warn(format!("{place}: {warning}"));
        }
    }
}

/// The next line, or what is wrong with it; `None` at the end.
fn next_line(source: &mut dyn BufRead) -> io::Result<Option<anyhow::Result<String>>> {
    let mut bytes = Vec::new();
    let read = source.take(LINE_AT_MOST).read_until(b'\n', &mut bytes)?;
    if read == 0 {
        return Ok(None);
    }
    if read as u64 == LINE_AT_MOST && !bytes.ends_with(b"\n") {
        source.skip_until(b'\n')?;
        let message = format!("longer than {LINE_AT_MOST} bytes");
        return Ok(Some(Err(anyhow!(message))));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        anyhow!("not UTF-8 at byte {at}")
    });
    // Some editors begin a file with a byte-order mark.
    let text = text.map(|text| text.trim_start_matches('\u{feff}').to_owned());
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded() {
        let long = "x".repeat(usize::try_from(LINE_AT_MOST).unwrap() + 5);
        let text = format!("\u{feff}one\n{long}\n\nlast");
        let mut source: Box<dyn BufRead> = Box::new(io::Cursor::new(text));
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut *source).unwrap() {
            lines.push(line.unwrap_or_else(|error| error.to_string()));
        }
        assert_eq!(lines.len(), 4);
        assert_eq!((lines[0].trim(), lines[3].as_str()), ("one", "last"));
        assert!(lines[1].starts_with("longer than"));
        let mut source: Box<dyn BufRead> = Box::new(io::Cursor::new(b"\xff\n".to_vec()));
        let line = next_line(&mut *source).unwrap().unwrap();
        assert!(line.unwrap_err().to_string().contains("byte 0"));
    }
}
