//! Files of an earlier run: what is in them, if they are whole.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

use sd_conditioner::storage::kohya;
use serde::Deserialize;
use serde::de::{Deserializer as _, Error as _, IgnoredAny, MapAccess, Visitor};

use super::header::Names;
use crate::kinds::{self, Kind};
use crate::output::TIME_IDS;
use crate::scribe::{Metadata, SCHEDULES};

/// Types that a file may have; the format knows fewer.
const TYPES_AT_MOST: usize = 32;

/// The format's own bound.
const HEADER_AT_MOST: u64 = 100_000_000;

/// What the header of a safetensors file says, as far as it matters here.
#[derive(Debug, Default)]
pub(super) struct Header {
    pub(super) metadata: Metadata,
    /// The types of the tensors but sizes, each once.
    pub(super) dtypes: Vec<String>,
    /// The types of the sizes, each once.
    pub(super) of_sizes: Vec<String>,
    /// Bytes of all tensors.
    pub(super) data: u64,
}

/// Where a tensor lies.
#[derive(Deserialize)]
struct Tensor {
    dtype: String,
    data_offsets: (u64, u64),
}

/// The header of a file that is as long as its header says; an error for any other.
pub(super) fn header(path: &Path) -> io::Result<Header> {
    header_of(path, |_, _| ())
}

/// The same, and hands over the name of each tensor with its bytes.
pub(super) fn header_of(path: &Path, mut take: impl FnMut(&str, u64)) -> io::Result<Header> {
    // A pipe of this name would be waited for.
    if !fs::metadata(path)?.is_file() {
        return Err(damaged("it is no file"));
    }
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut start = [0; 8];
    file.read_exact(&mut start)?;
    let n_bytes = u64::from_le_bytes(start);
    if n_bytes > HEADER_AT_MOST || n_bytes + 8 > length {
        return Err(damaged("its header is cut"));
    }
    let mut text = Vec::new();
    file.take(n_bytes).read_to_end(&mut text)?;
    let mut text = serde_json::Deserializer::from_slice(&text);
    let header = text.deserialize_map(Entries(&mut take));
    let header = header.and_then(|header| text.end().map(|()| header));
    let header = header.map_err(io::Error::from)?;
    if header.data.checked_add(8 + n_bytes) != Some(length) {
        return Err(damaged("it is not as long as its header says"));
    }
    Ok(header)
}

/// Whether a file holds what would be written again: whole, of the same words, in the same type, sizes
/// in f32.
pub(super) fn is_whole(path: &Path, kind: Kind, said: &Metadata, dtype: &str) -> bool {
    if kind == Kind::Kohya {
        return is_cached(path, said, dtype);
    }
    let Ok(mut header) = header(path) else {
        return false;
    };
    for key in SCHEDULES.into_iter().chain(kind.keys()) {
        header.metadata.remove(key);
    }
    let all_are = |types: &[String], dtype| types.iter().all(|own| own.eq_ignore_ascii_case(dtype));
    let typed = all_are(&header.dtypes, dtype) && all_are(&header.of_sizes, "f32");
    header.metadata == *said && typed && header.data > 0
}

/// The same of sd-scripts' cache, which has no place for all words.
fn is_cached(path: &Path, said: &Metadata, dtype: &str) -> bool {
    // A pipe of this name would be waited for.
    if !fs::metadata(path).is_ok_and(|about| about.is_file()) {
        return false;
    }
    let found = kohya::summary(path);
    found.is_ok_and(|found| {
        let same = found.metadata == kinds::few_words(said);
        same && found.dtype.as_str() == dtype
    })
}

fn damaged(message: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, message)
}

/// Reads entry after entry; names of tensors are not kept.
struct Entries<'a>(&'a mut dyn FnMut(&str, u64));

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the header of a safetensors file")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header::default();
        let mut names = Names::default();
        while let Some(name) = map.next_key::<String>()? {
            if !names.add(&name) {
                return Err(A::Error::custom("two tensors of one name"));
            }
            if name == "__metadata__" {
                header.metadata = map.next_value::<BTreeMap<String, String>>()?;
                continue;
            }
            let tensor: Tensor = map.next_value()?;
            let (start, end) = tensor.data_offsets;
            (self.0)(&name, end.saturating_sub(start));
            header.data = header.data.max(end);
            let dtypes = if name.ends_with(TIME_IDS) {
                &mut header.of_sizes
            } else {
                &mut header.dtypes
            };
            if !dtypes.contains(&tensor.dtype) {
                dtypes.push(tensor.dtype);
            }
            if dtypes.len() > TYPES_AT_MOST {
                return Err(A::Error::custom("more types than there are"));
            }
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use sd_conditioner::candle_core::{DType, Device, Tensor};
    use sd_conditioner::storage;

    use super::*;

    #[test]
    fn files_that_are_cut_or_say_something_else_are_not_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let said = Metadata::from([("positive".to_owned(), "a cat".to_owned())]);
        let tensor = Tensor::zeros((1, 77, 8), DType::F16, &Device::Cpu).unwrap();
        let tensors = BTreeMap::from([("prompt_embeds".to_owned(), tensor)]);
        storage::write_tensors(&path, &tensors, &said).unwrap();
        assert!(is_whole(&path, Kind::Pair, &said, "f16"));
        assert!(!is_whole(&path, Kind::Pair, &said, "f32"));
        let other = Metadata::from([("positive".to_owned(), "a dog".to_owned())]);
        assert!(!is_whole(&path, Kind::Pair, &other, "f16"));
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 4, 8, 60, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(!is_whole(&path, Kind::Pair, &said, "f16"), "{length} bytes");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        std::fs::write(&path, &longer).unwrap();
        assert!(!is_whole(&path, Kind::Pair, &said, "f16"));
        let mut huge = bytes;
        huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        std::fs::write(&path, &huge).unwrap();
        assert!(!is_whole(&path, Kind::Pair, &said, "f16"));
    }

    /// Earlier versions rounded sizes, too.
    #[test]
    fn files_with_rounded_sizes_are_not_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        for (of_sizes, whole) in [(DType::F32, true), (DType::F16, false)] {
            let tensor = |dtype| Tensor::zeros((1, 6), dtype, &Device::Cpu).unwrap();
            let tensors = BTreeMap::from([
                ("hires.negative_time_ids".to_owned(), tensor(of_sizes)),
                ("prompt_embeds".to_owned(), tensor(DType::F16)),
            ]);
            storage::write_tensors(&path, &tensors, &Metadata::new()).unwrap();
            assert_eq!(is_whole(&path, Kind::Pair, &Metadata::new(), "f16"), whole);
            assert!(!is_whole(&path, Kind::Pair, &Metadata::new(), "f32"));
        }
    }

    #[test]
    fn a_header_of_endless_types_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let tensors = (0..100)
            .map(|number| format!(r#""{number}":{{"dtype":"T{number}","data_offsets":[0,0]}}"#));
        let header = format!("{{{}}}", tensors.collect::<Vec<_>>().join(","));
        let start = (header.len() as u64).to_le_bytes();
        std::fs::write(&path, [&start, header.as_bytes()].concat()).unwrap();
        let error = super::header(&path).unwrap_err();
        assert!(error.to_string().contains("more types"), "{error}");
    }

    /// Which of the two a reader takes is its own affair; most refuse the file.
    #[test]
    fn a_name_that_is_there_twice_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let tensor = r#""x.hires.time_ids":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
        let header = format!("{{{tensor},{tensor}}}");
        let start = (header.len() as u64).to_le_bytes();
        std::fs::write(&path, [&start, header.as_bytes()].concat()).unwrap();
        let error = super::header(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(error.to_string().contains("two tensors"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn nobody_waits_for_a_pipe() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        assert!(!is_whole(&path, Kind::Pair, &Metadata::new(), "f32"));
        assert!(!is_whole(
            folder.path(),
            Kind::Pair,
            &Metadata::new(),
            "f32"
        ));
    }
}
