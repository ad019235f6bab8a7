//! `encode --requests`: one JSON object a line in, one file each out. A bad line stops nothing.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};

use crate::encode::Session;
use crate::job::Job;
use crate::line::Line;
use crate::progress::Progress;
use crate::supplies::Supplies;
use crate::together::Made;
use crate::ui::{self, Done};
use crate::wardrobe::Worn;
use crate::wishes::Wishes;
use crate::worn;

/// No prompt is as long as this; a file without line breaks is not read into memory.
const LINE_AT_MOST: u64 = 1 << 20;

/// Lines that are encoded together, if they are already there.
const LINES_TOGETHER: usize = 16;

/// How far a file is read ahead.
const AHEAD: usize = 1 << 16;

type Lines = BufReader<Box<dyn Read>>;

/// An opened requests file, and where the answers go.
pub(crate) struct Source {
    name: String,
    lines: Lines,
    folder: PathBuf,
}

/// Opens the file (`-` is standard input) and makes the folder.
pub(crate) fn open(path: &Path, folder: &Path) -> anyhow::Result<Source> {
    let (name, bytes): (String, Box<dyn Read>) = if path.as_os_str() == "-" {
        ("standard input".to_owned(), Box::new(io::stdin().lock()))
    } else {
        let name = path.display().to_string();
        let file = File::open(path).with_context(|| name.clone())?;
        (name, Box::new(file))
    };
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    Ok(Source {
        name,
        lines: BufReader::with_capacity(AHEAD, bytes),
        folder: folder.to_owned(),
    })
}

/// Encodes line after line, some of them together; nothing waits for a line that is not there yet.
pub(crate) fn run(
    source: Source,
    session: &Session,
    (wishes, supplies): (&Wishes, Supplies),
    bar: &Progress,
) -> Done {
    let Source {
        name,
        mut lines,
        folder,
    } = source;
    let mut run = Run {
        session,
        wishes,
        supplies,
        bar,
        name,
        folder,
        seen: HashSet::new(),
        told: HashSet::new(),
        counts: [0, 0],
    };
    let (mut number, mut waiting) = (0_u64, Vec::new());
    while let Some(line) = next_line(&mut lines).with_context(|| run.name.clone())? {
        number += 1;
        let read = line.and_then(|text| run.read(&text));
        waiting.push((number, read));
        if waiting.len() == LINES_TOGETHER || !lines.buffer().contains(&b'\n') {
            run.finish(std::mem::take(&mut waiting));
        }
    }
    bar.clear();
    let [written, failed] = run.counts;
    bar.summary(format!("{written} written, {failed} failed"));
    Ok(ExitCode::from(u8::from(failed > 0)))
}

struct Run<'a> {
    session: &'a Session,
    wishes: &'a Wishes,
    supplies: Supplies,
    bar: &'a Progress,
    name: String,
    folder: PathBuf,
    seen: HashSet<String>,
    /// What would be said of every line, and is said once.
    told: HashSet<String>,
    /// Lines written, lines failed.
    counts: [u64; 2],
}

/// A line that can be encoded.
struct Ready {
    job: Job,
    path: PathBuf,
    warnings: Vec<String>,
}

/// What is said of a line.
#[derive(Default)]
struct Said {
    summaries: Vec<String>,
    warnings: Vec<String>,
}

/// A line and its number; `None` where it is blank.
type Numbered = (u64, anyhow::Result<Option<Ready>>);

impl Run<'_> {
    /// Reads and checks one line.
    fn read(&mut self, text: &str) -> anyhow::Result<Option<Ready>> {
        if text.trim().is_empty() {
            return Ok(None);
        }
        let line = Line::parse(text).map_err(|error| anyhow!(error))?;
        let id = line.id().map_err(|error| anyhow!(error))?;
        if !self.seen.insert(id.clone()) {
            bail!("the id `{id}` was used by a line before");
        }
        let wishes = line.over(self.wishes).map_err(|error| anyhow!(error))?;
        let job = wishes.job().map_err(|error| anyhow!(error))?;
        let job = self.supplies.supply(job)?;
        let unused = self.session.unused(&job).into_iter();
        let warnings = unused
            .filter(|text| self.told.insert(text.clone()))
            .collect();
        let path = self.folder.join(format!("{id}.safetensors"));
        Ok(Some(Ready {
            job,
            path,
            warnings,
        }))
    }

    /// Encodes and writes what was read, and tells of each line in order.
    fn finish(&mut self, lines: Vec<Numbered>) {
        let ready = lines
            .iter()
            .filter_map(|(_, line)| line.as_ref().ok()?.as_ref());
        let jobs: Vec<&Job> = ready.map(|ready| &ready.job).collect();
        let mut encoded = self.session.encoders().encode_all(&jobs).into_iter();
        for (number, line) in lines {
            let (said, written) = match line {
                Ok(None) => continue,
                Err(error) => (Said::default(), Err(error)),
                Ok(Some(ready)) => self.write(ready, encoded.next()),
            };
            self.tell(number, &said, written);
        }
    }

    fn write(
        &mut self,
        ready: Ready,
        encoded: Option<sd_conditioner::Result<Made>>,
    ) -> (Said, anyhow::Result<()>) {
        let Ready {
            job,
            path,
            warnings,
        } = ready;
        let mut said = Said {
            warnings,
            ..Said::default()
        };
        let encoded = encoded.context("nothing was encoded");
        let written = encoded.and_then(|made| {
            let (made, worn) = (made?, self.session.encoders().worn(&job)?);
            let notes = self.session.write(&job, &made, &worn, &path)?;
            self.report(&worn, &mut said);
            said.warnings.extend(notes);
            Ok(())
        });
        (said, written)
    }

    /// What became of `LoRAs`, each thing once for all lines.
    fn report(&mut self, worn: &[Worn], said: &mut Said) {
        for (_, report) in worn {
            let mut first = |text: &String| self.told.insert(text.clone());
            let summary = Some(worn::summary(report));
            said.summaries.extend(summary.filter(&mut first));
            let warnings = worn::warnings(report).into_iter();
            said.warnings.extend(warnings.filter(&mut first));
        }
    }

    fn tell(&mut self, number: u64, said: &Said, written: anyhow::Result<()>) {
        let place = format!("{}: line {number}", self.name);
        self.counts[usize::from(written.is_err())] += 1;
        self.bar.aside(|| {
            for summary in &said.summaries {
                self.bar.summary(summary);
            }
            for warning in &said.warnings {
                ui::warn(format!("{place}: {warning}"));
            }
            if let Err(error) = written {
                ui::error(format!("{place}: {}", ui::describe(&error)));
            }
        });
        self.bar.counting(self.counts[0], self.counts[1]);
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
