//! The `LoRAs` that are put on: files of the command line or of a request line, and a folder for those
//! that prompts name themselves.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sd_conditioner::Result;
use sd_conditioner::weights::{Lora, LoraFolder, WeightedLora};
use serde::Deserialize;

use crate::job::Job;

/// A file and its strengths; the second encoder's is the first one's where it is not given.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoraFile {
    file: PathBuf,
    #[serde(default = "full")]
    strength: f64,
    strength_2: Option<f64>,
    /// Relative paths of request lines start at their file.
    #[serde(skip, default = "yes")]
    from_line: bool,
}

impl LoraFile {
    /// As it was given.
    pub(crate) fn path(&self) -> &Path {
        &self.file
    }
}

const fn full() -> f64 {
    1.0
}

const fn yes() -> bool {
    true
}

/// Reads `FILE[:STRENGTH[:STRENGTH_2]]`. Numbers are taken from the right, and none where a file has
/// the whole text for its name.
pub(crate) fn typed(text: &str) -> Result<LoraFile, String> {
    split(text, |file| Path::new(file).exists())
}

fn split(text: &str, exists: impl Fn(&str) -> bool) -> Result<LoraFile, String> {
    let (file, strengths) = taken_apart(text, exists)?;
    if file.is_empty() {
        return Err("the name of a file is missing".to_owned());
    }
    if let Some(bad) = strengths.iter().find(|strength| !strength.is_finite()) {
        return Err(format!("a strength of {bad}"));
    }
    Ok(LoraFile {
        file: file.into(),
        strength: strengths.first().copied().unwrap_or_else(full),
        strength_2: strengths.get(1).copied(),
        from_line: false,
    })
}

/// The name of the file, and the numbers behind it: at most two.
fn taken_apart(text: &str, exists: impl Fn(&str) -> bool) -> Result<(&str, Vec<f64>), String> {
    let mut file = text;
    let mut strengths = Vec::new();
    while strengths.len() < 2 && !exists(file) {
        let Some((before, last)) = file.rsplit_once(':') else {
            break;
        };
        match last.parse() {
            Ok(number) => {
                file = before;
                strengths.insert(0, number);
            }
            Err(_) if exists(before) => return Err(format!("`{last}` is not a strength")),
            Err(_) => break,
        }
    }
    Ok((file, strengths))
}

/// Where `LoRAs` come from. Remembers the last files, since the lines of a file are often alike.
#[derive(Debug)]
pub(crate) struct Rack {
    folder: Option<Arc<LoraFolder>>,
    /// What relative paths of lines start from.
    base: PathBuf,
    last: Option<(Vec<LoraFile>, Vec<WeightedLora>)>,
}

impl Rack {
    /// The folder, if there is one, and where the paths of request lines start.
    pub(crate) fn open(folder: Option<&Path>, requests: Option<&Path>) -> Result<Rack> {
        let folder = folder.map(LoraFolder::open).transpose()?;
        let base = requests.and_then(Path::parent).unwrap_or(Path::new(""));
        Ok(Rack {
            folder: folder.map(Arc::new),
            base: base.to_owned(),
            last: None,
        })
    }

    /// Folders and files that could not be listed.
    pub(crate) fn notes(&self) -> &[String] {
        self.folder.as_deref().map_or(&[], LoraFolder::notes)
    }

    /// The job with what it puts on.
    pub(crate) fn supply(&mut self, job: Job) -> Result<Job> {
        let Some(files) = job.lora_files() else {
            return Ok(job);
        };
        let loras = self.opened(files)?;
        Ok(job.with_loras(loras, self.folder.clone()))
    }

    fn opened(&mut self, files: &[LoraFile]) -> Result<Vec<WeightedLora>> {
        if let Some((_, loras)) = self.last.as_ref().filter(|(known, _)| known == files) {
            return Ok(loras.clone());
        }
        let loras = files.iter().map(|file| file.open(&self.base));
        let loras = loras.collect::<Result<Vec<WeightedLora>>>()?;
        self.last = Some((files.to_vec(), loras.clone()));
        Ok(loras)
    }
}

impl LoraFile {
    fn open(&self, base: &Path) -> Result<WeightedLora> {
        let lora = if self.from_line {
            Lora::open(base.join(&self.file))?
        } else {
            Lora::open(&self.file)?
        };
        let second = self.strength_2.unwrap_or(self.strength);
        Ok(lora.at_each(self.strength, second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files that exist.
    const THERE: [&str; 4] = [
        "film.safetensors",
        "a:0.5",
        r"C:\film.safetensors",
        "odd:1:2",
    ];

    /// What is typed, and what it means: file, strength, second strength.
    const TYPED: [(&str, &str, f64, Option<f64>); 15] = [
        ("film.safetensors", "film.safetensors", 1.0, None),
        ("film.safetensors:0.8", "film.safetensors", 0.8, None),
        (
            "film.safetensors:-1:2e-1",
            "film.safetensors",
            -1.0,
            Some(0.2),
        ),
        ("a:0.5", "a:0.5", 1.0, None),
        ("a:0.5:0.8", "a:0.5", 0.8, None),
        ("a:0.5:0.8:0.9", "a:0.5", 0.8, Some(0.9)),
        ("odd:1:2", "odd:1:2", 1.0, None),
        ("film:1:2:3", "film:1", 2.0, Some(3.0)),
        (r"C:\film.safetensors", r"C:\film.safetensors", 1.0, None),
        (
            r"C:\film.safetensors:0.5",
            r"C:\film.safetensors",
            0.5,
            None,
        ),
        (
            r"C:\film.safetensors:0.5:0",
            r"C:\film.safetensors",
            0.5,
            Some(0.0),
        ),
        // What is not there is told by name when it is opened.
        ("none.safetensors:0.5", "none.safetensors", 0.5, None),
        (r"D:\none.safetensors", r"D:\none.safetensors", 1.0, None),
        (r"D:\none:0.5:1", r"D:\none", 0.5, Some(1.0)),
        ("none:x", "none:x", 1.0, None),
    ];

    #[test]
    fn strengths_are_taken_from_the_right() {
        for (text, file, strength, strength_2) in TYPED {
            let want = LoraFile {
                file: file.into(),
                strength,
                strength_2,
                from_line: false,
            };
            let read = split(text, |file| THERE.contains(&file));
            assert_eq!(read, Ok(want), "{text}");
        }
    }

    #[test]
    fn what_is_no_strength_is_said() {
        let cases = [
            ("film:half", "`half` is not a strength"),
            ("film:", "`` is not a strength"),
            ("film:nan", "a strength of NaN"),
            ("film:1:inf", "a strength of inf"),
            (":1", "missing"),
            ("", "missing"),
        ];
        for (text, want) in cases {
            let error = split(text, |file| file == "film").unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
