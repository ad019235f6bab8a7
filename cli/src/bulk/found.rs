//! Packed files that earlier runs have left: what is in them, and where to go on.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::finished;
use super::index;
use super::known::Finished;
use super::parts::{OTHER_RUN, Part, Paths};
use crate::scribe::Metadata;
use crate::ui;

/// The numbers of packed files that earlier runs have left.
pub(super) struct Found {
    whole: Vec<u32>,
    begun: Vec<u32>,
    /// Of those whose journals are there, whether there is a part or not.
    journals: Vec<u32>,
}

impl Found {
    pub(super) fn in_folder(folder: &Path, stem: &str) -> Result<Found> {
        Ok(Found {
            whole: index::numbers(folder, stem, "", ".safetensors")?,
            begun: index::numbers(folder, stem, ".", ".part")?,
            journals: index::numbers(folder, stem, ".", ".journal")?,
        })
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.whole.is_empty() && self.begun.is_empty()
    }

    /// Learns what all of them hold. Returns the part to go on with and its number, or the number of
    /// the next one; other parts are removed.
    pub(super) fn go_on(
        self,
        (folder, stem): (&Path, &str),
        facts: &Metadata,
        finished: &mut Finished,
    ) -> Result<(Option<Part>, u32)> {
        let paths = |number| Paths::new(folder, stem, number);
        for number in &self.whole {
            read(&paths(*number), facts, finished)?;
        }
        // A kill may have come before a journal was removed, or before its part was made.
        for number in self.journals {
            if !self.begun.contains(&number) {
                remove(&paths(number));
            }
        }
        let last = self.whole.last().copied().unwrap_or(0);
        let (mut part, mut number) = (None, next(last)?);
        for begun in self.begun.into_iter().rev() {
            if begun <= last || part.is_some() {
                remove(&paths(begun));
                continue;
            }
            part = go_on(&paths(begun), facts, finished)?;
            number = begun;
        }
        Ok((part, number))
    }
}

/// The number of the file behind this one.
pub(super) fn next(number: u32) -> Result<u32> {
    let next = number.checked_add(1);
    next.with_context(|| format!("there is no number behind {number} for a packed file"))
}

/// Learns what a whole file holds. One that is damaged is put aside.
fn read(paths: &Paths, facts: &Metadata, finished: &mut Finished) -> Result<()> {
    let path = &paths.whole;
    let header = match finished::header(path) {
        Ok(header) => header,
        Err(error) if is_damage(&error) => return put_aside(path, &error.to_string()),
        Err(error) => return Err(unread(error, path)),
    };
    let agrees = |(key, value)| header.metadata.get(key) == Some(value);
    if !facts.iter().all(agrees) {
        bail!("{}: {OTHER_RUN}", path.display());
    }
    for (id, said) in index::entries(&header.metadata) {
        if let Some(request) = said.get("request") {
            finished.add_packed(&paths.file(), id, request);
        }
    }
    Ok(())
}

/// Goes on with a part that a kill has left, as far as it is good.
pub(super) fn go_on(
    paths: &Paths,
    facts: &Metadata,
    finished: &mut Finished,
) -> Result<Option<Part>> {
    let Some((part, entries)) = Part::reopen(paths.clone(), facts)? else {
        remove(paths);
        return Ok(None);
    };
    for entry in entries {
        if let Some(request) = entry.said.get("request") {
            finished.add_packed(&part.file(), &entry.id, request);
        }
    }
    Ok(Some(part))
}

/// What cannot be removed is written over later.
fn remove(paths: &Paths) {
    let _ = fs::remove_file(&paths.part);
    let _ = fs::remove_file(&paths.journal);
}

/// Whether a file was read and is not what it should be. Everything else may be well another time.
pub(super) fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof
    )
}

/// Ends the run, and leaves the file as it is.
pub(super) fn unread(error: io::Error, path: &Path) -> anyhow::Error {
    let message = format!(
        "{}: an earlier run has packed it, and it cannot be read; the run goes on with --resume when \
         this is mended",
        path.display()
    );
    anyhow::Error::new(error).context(message)
}

fn put_aside(path: &Path, why: &str) -> Result<()> {
    let aside = path.with_extension("damaged");
    fs::rename(path, &aside).with_context(|| path.display().to_string())?;
    ui::warn(format!(
        "{}: {why}; it is {} now, and what it held is made anew",
        path.display(),
        aside.display()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journals_without_parts_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            ".embeddings-00007.journal",
            ".embeddings-00009.journal",
            ".embeddings-7.journal",
        ] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = Found::in_folder(folder.path(), "embeddings").unwrap();
        assert!(found.is_nothing());
        let (facts, mut finished) = (Metadata::new(), Finished::default());
        let at = (folder.path(), "embeddings");
        let (part, number) = found.go_on(at, &facts, &mut finished).unwrap();
        assert!(part.is_none() && number == 1);
        let left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, [".embeddings-7.journal"]);
    }

    #[test]
    fn only_broken_content_is_damage() {
        let all = [
            (ErrorKind::InvalidData, true),
            (ErrorKind::UnexpectedEof, true),
            (ErrorKind::PermissionDenied, false),
            (ErrorKind::NotFound, false),
            (ErrorKind::Interrupted, false),
            (ErrorKind::Other, false),
        ];
        for (kind, want) in all {
            assert_eq!(is_damage(&kind.into()), want, "{kind}");
        }
    }

    /// A link to itself cannot be opened, by no user.
    #[cfg(unix)]
    #[test]
    fn what_cannot_be_opened_is_left_as_it_is() {
        for name in [
            "embeddings-00001.safetensors",
            ".embeddings-00001.journal",
            ".embeddings-00001.part",
        ] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(
                folder.path().join(".embeddings-00001.journal"),
                "{\"room\":64,\"facts\":{}}\n",
            )
            .unwrap();
            fs::write(folder.path().join(".embeddings-00001.part"), [0; 72]).unwrap();
            let path = folder.path().join(name);
            let _ = fs::remove_file(&path);
            std::os::unix::fs::symlink(&path, &path).unwrap();
            let found = Found::in_folder(folder.path(), "embeddings").unwrap();
            let (facts, mut finished) = (Metadata::new(), Finished::default());
            let at = (folder.path(), "embeddings");
            let error = found.go_on(at, &facts, &mut finished).err().unwrap();
            assert!(
                error.to_string().contains("it cannot be read"),
                "{name}: {error}"
            );
            assert!(path.is_symlink(), "{name}");
        }
    }

    #[test]
    fn files_of_nearly_the_same_name_are_none_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let names = [
            "embeddings-1.safetensors",
            "embeddings-000001.safetensors",
            "embeddings-00002.safetensors",
            "embeddings-+0003.safetensors",
            "embeddings-4294967295.safetensors",
            "embeddings-4294967296.safetensors",
            "embeddings-.safetensors",
            "embeddings-2-of-8-00003.safetensors",
        ];
        for name in names {
            fs::write(folder.path().join(name), b"").unwrap();
        }
        let found = Found::in_folder(folder.path(), "embeddings").unwrap();
        assert_eq!(found.whole, [2, u32::MAX]);
        let (facts, mut finished) = (Metadata::new(), Finished::default());
        let folder = (folder.path(), "embeddings");
        let error = found.go_on(folder, &facts, &mut finished).err().unwrap();
        assert!(error.to_string().contains("there is no number behind"));
    }
}
