//! A file of lines → those that are this run's, bounded in length, with their numbers.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};

use super::orders::Share;

/// No prompt is as long as this; a file without line breaks is not read into memory.
pub(super) const LINE_AT_MOST: u64 = 1 << 20;

/// How far a file is read ahead.
const AHEAD: usize = 1 << 16;

/// An opened requests file.
pub(super) struct Lines {
    /// For messages.
    pub(super) name: String,
    /// Bytes of the whole; `None` where they come as they come.
    pub(super) length: Option<u64>,
    source: BufReader<Box<dyn Read + Send>>,
    share: Share,
    /// What was read of it.
    number: u64,
    bytes: u64,
}

/// Where a line is in its file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// Counted from 1.
    pub(super) number: u64,
    /// Of the file, up to the end of the line.
    pub(super) bytes: u64,
}

/// A line, or what is wrong with it.
pub(super) type Text = anyhow::Result<String>;

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Lines {
    /// Opens the file; `-` is standard input.
    pub(super) fn open(path: &Path, share: Share) -> anyhow::Result<Lines> {
        if path.as_os_str() == "-" {
            let name = "standard input".to_owned();
            return Ok(Lines::new(name, Box::new(io::stdin()), None, share));
        }
        let name = path.display().to_string();
        let file = File::open(path).with_context(|| name.clone())?;
        let about = file.metadata().with_context(|| name.clone())?;
        if about.is_dir() {
            bail!("{name}: a folder, and lines are to be read");
        }
        let length = about.is_file().then_some(about.len());
        Ok(Lines::new(name, Box::new(file), length, share))
    }

    fn new(name: String, source: Box<dyn Read + Send>, length: Option<u64>, share: Share) -> Lines {
        Lines {
            name,
            length,
            source: BufReader::with_capacity(AHEAD, source),
            share,
            number: 0,
            bytes: 0,
        }
    }

    /// True if whoever writes the lines may be waiting for an answer.
    pub(super) fn may_wait(&self) -> bool {
        self.length.is_none() && !self.source.buffer().contains(&b'\n')
    }

    /// The next line of this run's share; `None` at the end.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<(Place, Text)>> {
        if self.number == 0 {
            self.expect_text()?;
        }
        loop {
            let read = if self.share.has(self.number + 1) {
                next_line(&mut self.source)
            } else {
                let skipped = self.source.skip_until(b'\n');
                skipped.map(|bytes| (bytes as u64, None))
            };
            let (bytes, text) = read.with_context(|| self.name.clone())?;
            if bytes == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.bytes += bytes;
            if let Some(text) = text {
                let (number, bytes) = (self.number, self.bytes);
                return Ok(Some((Place { number, bytes }, text)));
            }
        }
    }
}

/// The byte-order marks of UTF-16.
const OF_WORDS: [[u8; 2]; 2] = [[0xff, 0xfe], [0xfe, 0xff]];

impl Lines {
    /// Refuses a file whose beginning has no line that could be read: one message, not one for each line feed
    /// that happens to be in it. Some shells and editors write UTF-16.
    fn expect_text(&mut self) -> anyhow::Result<()> {
        // What cannot be read is told where lines are read.
        let begun = self.source.fill_buf().unwrap_or_default();
        if OF_WORDS.iter().any(|mark| begun.starts_with(mark)) {
            bail!("{}: this is UTF-16; save it as UTF-8", self.name);
        }
        let first = begun.split(|byte| *byte == b'\n').next();
        let is_text = |line: &[u8]| !line.contains(&0) && std::str::from_utf8(line).is_ok();
        if begun.contains(&0) && !first.is_some_and(is_text) {
            bail!(
                "{}: this is no text; a JSON object on each line is wanted",
                self.name
            );
        }
        Ok(())
    }
}

/// How many bytes were read (0 at the end), and the line or what is wrong with it.
fn next_line(source: &mut dyn BufRead) -> io::Result<(u64, Option<Text>)> {
    let mut bytes = Vec::new();
    let read = source.take(LINE_AT_MOST).read_until(b'\n', &mut bytes)? as u64;
    if read == LINE_AT_MOST && !bytes.ends_with(b"\n") {
        let rest = source.skip_until(b'\n')? as u64;
        let message = format!("longer than {LINE_AT_MOST} bytes");
        return Ok((read + rest, Some(Err(anyhow!(message)))));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        anyhow!("not UTF-8 at byte {at}")
    });
    // Some editors begin a file with a byte-order mark.
    let text = text.map(|text| text.trim_start_matches('\u{feff}').to_owned());
    Ok((read, Some(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8], share: &str) -> Vec<(u64, String)> {
        let source = Box::new(io::Cursor::new(text.to_vec()));
        let mut lines = Lines::new("x".to_owned(), source, None, share.parse().unwrap());
        let mut all = Vec::new();
        while let Some((place, text)) = lines.next().unwrap() {
            let text = text.unwrap_or_else(|error| error.to_string());
            all.push((place.number, text.trim().to_owned()));
        }
        assert_eq!(lines.bytes, text.len() as u64);
        all
    }

    #[test]
    fn lines_are_bounded() {
        let long = "x".repeat(usize::try_from(LINE_AT_MOST).unwrap() + 5);
        let text = format!("\u{feff}one\n{long}\n\nlast");
        let lines = lines(text.as_bytes(), "1/1");
        assert_eq!(lines.len(), 4);
        assert_eq!((lines[0].1.as_str(), lines[3].1.as_str()), ("one", "last"));
        assert!(lines[1].1.starts_with("longer than"));
        let (_, error) = &self::lines(b"\xff\n", "1/1")[0];
        assert!(error.contains("byte 0"));
    }

    /// A line with zeros, as a disk that filled up leaves, stops no others.
    #[test]
    fn what_is_no_text_is_refused_once() {
        let first = |text: &[u8]| {
            let source = Box::new(io::Cursor::new(text.to_vec()));
            let mut lines = Lines::new("x".to_owned(), source, None, "1/1".parse().unwrap());
            lines.next().map(|_| ()).map_err(|error| error.to_string())
        };
        assert!(
            first(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
                .unwrap_err()
                .contains("no text")
        );
        assert!(first(b"{}\0\n{}\n").is_err());
        for text in [&b""[..], b"\n", b"\xff\n{}\n", b"{}\n\0\0\0\n"] {
            assert!(first(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn utf_16_is_told_once() {
        for text in [b"\xff\xfe{\0}\0\n\0".as_slice(), b"\xfe\xff\0{\0}\0\n"] {
            let source = Box::new(io::Cursor::new(text.to_vec()));
            let mut lines = Lines::new("x".to_owned(), source, None, "1/1".parse().unwrap());
            let error = lines.next().unwrap_err().to_string();
            assert_eq!(error, "x: this is UTF-16; save it as UTF-8");
        }
    }

    #[test]
    fn shares_are_every_nth_line() {
        let text = b"1\n2\n\n4\n5\n6";
        let numbers = |share| {
            let lines = lines(text, share).into_iter();
            lines.map(|(number, _)| number).collect::<Vec<u64>>()
        };
        assert_eq!(numbers("1/3"), [1, 4]);
        assert_eq!(numbers("2/3"), [2, 5]);
        assert_eq!(numbers("3/3"), [3, 6]);
    }
}
