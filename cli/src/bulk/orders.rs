//! Flags of a run over many lines → what it is to do.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;

use crate::flags::EncodeFlags;
use crate::groups::Wrong;
use crate::inputs::Inputs;
use crate::job::Only;
use crate::kinds::Kind;
use crate::values::Place;

/// Windows of one forward, unless something else is asked for.
const ON_THE_CPU: usize = 32;
const ON_A_DEVICE: usize = 128;

#[derive(Args, Debug)]
pub(crate) struct BulkFlags {
    /// Skip lines that an earlier run has finished; files that are cut or were asked for otherwise
    /// are made anew. With --pack, what was asked for otherwise is refused: it stays in the file (see
    /// --replace)
    #[arg(long)]
    pub(crate) resume: bool,
    /// Only every N-th line, from line I on (1 to N): N runs share one requests file
    #[arg(long, value_name = "I/N")]
    pub(crate) shard: Option<Share>,
    /// What each request becomes: `<id>.safetensors`, or what other programs read of the positive prompt
    /// alone, `<id>_te_outputs.npz` (kohya's sd-scripts, SDXL) or `<id>.conditioning` (`ComfyUI`'s custom
    /// nodes)
    #[arg(long, value_enum)]
    pub(crate) format: Option<Kind>,
    /// Write many requests into one file of about this size (such as 2GB), and an index beside them
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) pack: Option<u64>,
    /// With --pack and --resume: what was asked for otherwise is made anew, into another file, which
    /// the index then names; what was packed before stays in its file, unused
    #[arg(long, requires_all = ["pack", "resume"])]
    pub(crate) replace: bool,
    /// Windows of 77 ids in one forward [default: 32 on the CPU, 128 elsewhere]
    #[arg(long, value_name = "N", value_parser = windows())]
    pub(crate) batch_windows: Option<usize>,
}

impl BulkFlags {
    /// Whether any of them is.
    pub(crate) fn is_given(&self) -> bool {
        let numbers = self.pack.is_some() || self.batch_windows.is_some();
        self.resume || self.shard.is_some() || self.format.is_some() || numbers
    }

    /// The kind of the files.
    pub(crate) fn kind(&self) -> Kind {
        self.format.unwrap_or(Kind::Pair)
    }

    /// What clap's own rules cannot say.
    pub(crate) fn wrong(&self) -> Wrong {
        let message = "--pack writes safetensors files alone: leave it out, or --format";
        let wrong = self.pack.is_some() && self.kind() != Kind::Pair;
        wrong.then_some((ErrorKind::ArgumentConflict, message))
    }
}

/// Which lines of a file are a run's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// From 1 to `of`.
    pub(super) number: u64,
    pub(super) of: u64,
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Share, String> {
        let parts = text.split_once('/');
        let parts = parts.and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        let found = parts.filter(|(number, of): &(u64, u64)| (1..=*of).contains(number));
        let (number, of) = found
            .filter(|(_, of)| *of <= 100_000)
            .ok_or("expected I/N with I from 1 to N, such as 2/8")?;
        Ok(Share { number, of })
    }
}

impl Share {
    const ALL: Share = Share { number: 1, of: 1 };

    /// Whether a line (counted from 1) is among them.
    pub(super) fn has(self, line: u64) -> bool {
        (line - 1) % self.of == self.number - 1
    }
}

/// What a run is to do.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    pub(super) folder: PathBuf,
    pub(super) resume: bool,
    /// Whether packed requests that changed are made anew.
    pub(super) replace: bool,
    pub(super) share: Share,
    /// Bytes of a file with many requests; `None` for a file each.
    pub(super) pack: Option<u64>,
    pub(super) batch_windows: usize,
    /// Of a file for one request.
    pub(super) kind: Kind,
    /// Where a line says nothing else.
    pub(super) only: Option<Only>,
    /// What no file takes the place of.
    pub(super) inputs: Inputs,
}

impl Orders {
    pub(crate) fn new(flags: &EncodeFlags, folder: &Path) -> Orders {
        let default = match flags.compute.device {
            Place::Cpu => ON_THE_CPU,
            Place::Cuda(_) | Place::Metal => ON_A_DEVICE,
        };
        let inputs = Inputs::of(flags);
        let (only, flags) = (flags.target.only, &flags.bulk);
        Orders {
            only,
            inputs,
            kind: flags.kind(),
            folder: folder.to_owned(),
            resume: flags.resume,
            replace: flags.replace,
            share: flags.shard.unwrap_or(Share::ALL),
            pack: flags.pack,
            batch_windows: flags.batch_windows.unwrap_or(default),
        }
    }

    /// What packed files are called, up to their numbers.
    pub(super) fn stem(&self) -> String {
        let Share { number, of } = self.share;
        match of {
            1 => "embeddings".to_owned(),
            _ => format!("embeddings-{number}-of-{of}"),
        }
    }
}

fn windows() -> impl TypedValueParser<Value = usize> {
    let count = clap::value_parser!(u32).range(1..=4096);
    count.map(|count| count as usize)
}

/// `2GB`, `500MB`, `64KB` or bytes; powers of 1000.
fn size(text: &str) -> Result<u64, String> {
    let units = [
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("KB", 1000),
        ("", 1),
    ];
    let upper = text.trim().to_ascii_uppercase();
    let found = units.into_iter().find_map(|(unit, bytes)| {
        let number: u64 = upper.strip_suffix(unit)?.trim().parse().ok()?;
        number.checked_mul(bytes)
    });
    let fits = found.filter(|bytes| (1000..=1_000_000_000_000).contains(bytes));
    fits.ok_or_else(|| "expected a size from 1KB to 1000GB, such as 2GB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_sizes() {
        for bad in [
            "", "1", "0/2", "3/2", "1/0", "a/b", "1/2/3", "-1/2", "1/100001",
        ] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
        assert_eq!("2/8".parse(), Ok(Share { number: 2, of: 8 }));
        let sizes = [
            ("2GB", Some(2_000_000_000)),
            ("64 kb", Some(64_000)),
            ("1000", Some(1000)),
            ("999", None),
            ("2TB", None),
            ("99999999999999999999GB", None),
            ("18446744073709551615GB", None),
            ("-1", None),
        ];
        for (text, want) in sizes {
            assert_eq!(size(text).ok(), want, "{text}");
        }
    }
}
