//! Requests → packed files of about one size, and an index of them.

use std::path::PathBuf;

use anyhow::{Result, bail};
use sd_conditioner::storage;

use super::found::{self, Found};
use super::index;
use super::known::Finished;
use super::orders::Orders;
use super::parts::{Entry, Part, Paths};
use super::replaced::Replaced;
use super::same::{Same, SameFile};
use super::sink::Place;
use crate::job::{self, Key};
use crate::scribe::{Metadata, Scribe, Sheet};

/// The packed files of one run.
pub(super) struct Pack {
    folder: PathBuf,
    stem: String,
    /// Bytes of tensors in one file.
    size: u64,
    /// What every file says of itself.
    facts: Metadata,
    part: Option<Part>,
    same: SameFile,
    /// Of the part, or of the next one.
    number: u32,
    /// Whether there may be files of earlier runs.
    resumed: bool,
}

impl Pack {
    /// Opens a folder. Returns also what earlier runs have finished in it.
    pub(super) fn open(orders: &Orders, size: u64, scribe: &Scribe) -> Result<(Pack, Finished)> {
        let mut facts = scribe.facts().clone();
        facts.insert("out_dtype".to_owned(), scribe.out_dtype().to_owned());
        let (folder, stem) = (orders.folder.clone(), orders.stem());
        let found = Found::in_folder(&folder, &stem)?;
        if !orders.resume && !found.is_nothing() {
            bail!(
                "{}: holds packed files already; --resume goes on with them",
                folder.display()
            );
        }
        let mut finished = Finished::default();
        let (part, number) = found.go_on((&folder, &stem), &facts, &mut finished)?;
        let pack = Pack {
            same: SameFile::open(&folder, &stem, &mut finished)?,
            folder,
            stem,
            size,
            facts,
            part,
            number,
            resumed: orders.resume,
        };
        Ok((pack, finished))
    }

    pub(super) fn put(&mut self, id: &str, sheet: &Sheet) -> Result<Place> {
        let (mut tensors, mut bytes) = (Vec::new(), Vec::new());
        for (name, tensor) in &sheet.tensors {
            let dtype = tensor.dtype().as_str().to_ascii_uppercase();
            tensors.push((name.clone(), dtype, tensor.dims().to_vec()));
            bytes.push(storage::bytes_of(tensor)?);
        }
        let mut said = sheet.metadata.clone();
        said.retain(|key, _| !self.facts.contains_key(key));
        self.add(&Entry::new(id, said, tensors)?, &bytes)
    }

    pub(super) fn copy(&mut self, id: &str, key: &Key, other: &Place) -> Result<()> {
        self.same.add(&Same {
            id: id.to_owned(),
            request: job::hex(key),
            file: other.file.clone(),
            of: other.id.clone(),
        })
    }

    fn add(&mut self, entry: &Entry, bytes: &[Vec<u8>]) -> Result<Place> {
        let full = match &self.part {
            Some(part) => part.is_full_for(entry, self.size)?,
            None => false,
        };
        if full {
            self.close()?;
        }
        let paths = self.paths(self.number);
        let file = paths.file();
        let part = match &mut self.part {
            Some(part) => part,
            none => none.insert(Part::new(paths, &self.facts, self.size, entry)?),
        };
        part.add(entry, bytes)?;
        let id = entry.id.clone();
        Ok(Place { file, id })
    }

    fn close(&mut self) -> Result<()> {
        if let Some(part) = self.part.take() {
            part.close()?;
            self.number = found::next(self.number)?;
        }
        Ok(())
    }

    pub(super) fn pause(&mut self) -> Result<()> {
        self.part.as_mut().map_or(Ok(()), Part::make_safe)?;
        self.same.make_safe()
    }

    /// Closes the last file and writes the index of all. Returns how many bytes of tensors nobody is led to
    /// by it.
    pub(super) fn finish(mut self) -> Result<u64> {
        self.close()?;
        self.same.make_safe()?;
        let at = (self.folder.as_path(), self.stem.as_str());
        let found = self.resumed.then(|| Replaced::find(at)).transpose()?;
        index::write(at, &self.facts, found.unwrap_or_default())
    }

    fn paths(&self, number: u32) -> Paths {
        Paths::new(&self.folder, &self.stem, number)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::path::Path;

    use safetensors::SafeTensors;
    use sd_conditioner::candle_core::{Device, Tensor};
    use serde_json::Value;

    use super::super::parts;
    use super::*;
    use crate::kinds::Kind;

    fn pack(folder: &Path, size: u64) -> Pack {
        let mut finished = Finished::default();
        Pack {
            same: SameFile::open(folder, "embeddings", &mut finished).unwrap(),
            folder: folder.to_owned(),
            stem: "embeddings".to_owned(),
            size,
            facts: Metadata::from([("family".to_owned(), "sd1".to_owned())]),
            part: None,
            number: 1,
            resumed: true,
        }
    }

    fn sheet(value: f32) -> Sheet {
        let tensor = Tensor::full(value, (1, 4), &Device::Cpu).unwrap();
        Sheet {
            tensors: [("prompt_embeds".to_owned(), tensor)].into(),
            metadata: Metadata::from([("request".to_owned(), value.to_string())]),
            told: Vec::new(),
            kind: Kind::Pair,
        }
    }

    /// The first value of every tensor of a file.
    fn values(path: &Path) -> Vec<(String, f32)> {
        let bytes = fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut all: Vec<(String, f32)> = file
            .iter()
            .map(|(name, view)| {
                let first = view.data().first_chunk::<4>().unwrap();
                (name.to_owned(), f32::from_le_bytes(*first))
            })
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// A kill may cut the part, the journal, or both, anywhere.
    #[test]
    fn a_part_that_was_cut_goes_on_where_it_is_good() {
        for (of_data, of_journal, good) in [(0, 0, 3), (1, 0, 2), (40, 0, 0), (0, 1, 2), (17, 5, 1)]
        {
            let folder = tempfile::tempdir().unwrap();
            let paths = part_of_three(folder.path());
            cut(&paths.part, of_data);
            cut(&paths.journal, of_journal);
            let mut after = pack(folder.path(), 1_000_000);
            let mut finished = Finished::default();
            after.part = found::go_on(&paths, &after.facts, &mut finished).unwrap();
            let has = |value: i32| finished.has(&format!("id{value}"), &value.to_string());
            let found = (0..3).filter(|value| has(*value)).count();
            assert_eq!(found, good, "{of_data} {of_journal}");
            after.put("last", &sheet(9.0)).unwrap();
            after.finish().unwrap();
            let values = values(&paths.whole);
            assert_eq!(values.len(), good + 1);
            assert_eq!(values[good], ("last.prompt_embeds".to_owned(), 9.0));
            assert!(!paths.part.exists() && !paths.journal.exists());
        }
    }

    /// A part with three entries, left as a kill leaves it.
    fn part_of_three(folder: &Path) -> Paths {
        let mut pack = pack(folder, 1_000_000);
        for value in [0.0_f32, 1.0, 2.0] {
            pack.put(&format!("id{value}"), &sheet(value)).unwrap();
        }
        pack.pause().unwrap();
        Paths::new(folder, "embeddings", 1)
    }

    /// Takes so many bytes off the end.
    fn cut(path: &Path, n_bytes: u64) {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length - n_bytes).unwrap();
    }

    #[test]
    fn files_are_full_before_the_next_one_begins() {
        let folder = tempfile::tempdir().unwrap();
        let mut pack = pack(folder.path(), 40);
        for value in [0.0_f32, 1.0, 2.0, 3.0, 4.0] {
            pack.put(&format!("id{value}"), &sheet(value)).unwrap();
        }
        pack.finish().unwrap();
        let counts = (1..=3)
            .map(|number| values(&Paths::new(folder.path(), "embeddings", number).whole).len());
        assert_eq!(counts.collect::<Vec<_>>(), [2, 2, 1]);
        let index = fs::read(folder.path().join("embeddings.index.json")).unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        assert_eq!(
            index["requests"]["id4"]["file"],
            "embeddings-00003.safetensors"
        );
        assert_eq!(index["metadata"]["family"], "sd1");
    }

    /// Names stay as they are, and no file has one twice.
    #[test]
    fn a_name_that_is_there_begins_the_next_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut pack = pack(folder.path(), 1_000_000);
        let named = |name: &str| {
            let mut sheet = sheet(1.0);
            let tensor = sheet.tensors.remove("prompt_embeds").unwrap();
            sheet.tensors.insert(name.to_owned(), tensor);
            sheet
        };
        let lines = [
            ("x", "hires.time_ids"),
            ("y", "time_ids"),
            ("x.hires", "time_ids"),
            ("z", "time_ids"),
        ];
        for (id, name) in lines {
            pack.put(id, &named(name)).unwrap();
        }
        pack.finish().unwrap();
        let counts = (1..=2)
            .map(|number| values(&Paths::new(folder.path(), "embeddings", number).whole).len());
        assert_eq!(counts.collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn a_journal_that_lies_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path(), "embeddings", 1);
        fs::write(&paths.part, b"short").unwrap();
        for journal in [
            "",
            "{",
            "{\"room\":18446744073709551615,\"facts\":{}}\n",
            "\n\n",
        ] {
            let mut file = fs::File::create(&paths.journal).unwrap();
            file.write_all(journal.as_bytes()).unwrap();
            assert!(
                Part::reopen(paths.clone(), &Metadata::new())
                    .unwrap()
                    .is_none()
            );
        }
        assert!(parts::n_bytes("F32", &[usize::MAX, 2]).is_err());
    }

    /// Entries count up to the first that says something false of its tensors.
    #[test]
    fn entries_that_lie_end_what_is_good() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path(), "embeddings", 1);
        let good = entry("[1,4]", 16);
        let next = good.replace(r#""id":"a""#, r#""id":"b""#);
        let bad = [
            // What is there twice.
            good.clone(),
            entry("[1,4]", 20),
            entry("[1,4]", 0),
            entry("[18446744073709551615]", 16),
            entry("[4611686018427387900]", 18_446_744_073_709_551_600),
            entry("[1000]", 4000),
            entry("[1,4]", 16).replace("F32", "F8"),
            "{".repeat(1000),
        ];
        for bad in bad {
            fs::write(&paths.part, [0; 8 + 64 + 100]).unwrap();
            let lines = ["{\"room\":64,\"facts\":{}}", &good, &next, &bad, &next, ""];
            fs::write(&paths.journal, lines.join("\n")).unwrap();
            let reopened = Part::reopen(paths.clone(), &Metadata::new()).unwrap();
            let (_, entries) = reopened.unwrap();
            assert_eq!(entries.len(), 2, "{bad}");
            assert_eq!(fs::metadata(&paths.part).unwrap().len(), 8 + 64 + 32);
        }
    }

    /// A journal's line on one tensor.
    fn entry(shape: &str, n_bytes: u64) -> String {
        format!(r#"{{"id":"a","tensors":[["t","F32",{shape}]],"n_bytes":{n_bytes},"said":{{}}}}"#)
    }
}
