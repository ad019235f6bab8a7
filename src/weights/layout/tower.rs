//! One text encoder inside a file: where each canonical tensor is, and everything wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::detect::Found;
use super::names::{PROJECTION, Part};
use super::{Layout, projection, scaled};
use crate::error::{Error, ErrorKind, Result, named};
use crate::weights::format::archive::{Archive, Entry};

/// How to make one canonical tensor.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    /// The archive's name of the tensor.
    pub(crate) name: String,
    pub(crate) entry: Entry,
    pub(crate) part: Part,
    /// The file has `[in, out]`.
    pub(crate) transposed: bool,
    /// Canonical shape.
    pub(crate) shape: Vec<usize>,
    /// What the stored values must be multiplied by.
    pub(crate) scale: Option<Entry>,
}

/// One thing wrong with a tower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) kind: ErrorKind,
    pub(crate) tensor: String,
    pub(crate) text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", named(&self.tensor), self.text)
    }
}

/// A tower and how to read it.
#[derive(Clone, Debug)]
pub(crate) struct Tower {
    pub(crate) found: Found,
    pub(crate) layout: Layout,
    pub(crate) recipes: BTreeMap<String, Recipe>,
    /// Names in the archive that it uses.
    pub(crate) used: BTreeSet<String>,
    pub(crate) problems: Vec<Problem>,
    /// The tensors of these problems.
    flawed: BTreeSet<String>,
    pub(crate) notes: Vec<String>,
}

/// How many problems an error spells out.
const SPELT_OUT: usize = 10;

impl Tower {
    /// Looks up and checks every tensor. Problems are collected, not returned as an error; an error
    /// here means that the file could not be read.
    pub(crate) fn build(archive: &Archive, found: Found) -> Result<Tower> {
        let (recipes, used, problems) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        let layout = Layout::of(archive, &found);
        let mut tower = Tower {
            found,
            layout,
            recipes,
            used,
            problems,
            flawed: BTreeSet::new(),
            notes: Vec::new(),
        };
        for canonical in tower.found.dimensions.names() {
            tower.add(archive, &canonical);
        }
        projection::add(&mut tower, archive)?;
        scaled::add(&mut tower, archive)?;
        tower.strangers(archive);
        Ok(tower)
    }

    /// Finds one tensor by the style's table.
    fn add(&mut self, archive: &Archive, canonical: &str) {
        let style = self.found.style.naming();
        let Some((below, part)) = style.file_name(canonical) else {
            return;
        };
        let name = format!("{}{below}", self.found.root);
        if let Some(entry) = archive.entries.get(&name) {
            return self.place(canonical, &name, entry, part, false);
        }
        let fused = style.fused_name(canonical);
        let fused = fused.map(|(below, part)| (format!("{}{below}", self.found.root), part));
        let fused = fused.and_then(|(name, part)| Some((archive.entries.get(&name)?, name, part)));
        match fused {
            Some((entry, name, part)) => self.place(canonical, &name, entry, part, false),
            None => self.problem(ErrorKind::MissingTensor, name, "missing".to_owned()),
        }
    }

    /// Takes a tensor in after checking its type and shape.
    pub(super) fn place(
        &mut self,
        canonical: &str,
        name: &str,
        entry: &Entry,
        part: Part,
        transposed: bool,
    ) {
        let Some(shape) = self.found.dimensions.shape_of(canonical) else {
            return;
        };
        self.used.insert(name.to_owned());
        if let Some((kind, text)) = fault(entry, &as_stored(&shape, part, transposed)) {
            return self.problem(kind, entry.file_name.clone(), text);
        }
        let recipe = Recipe {
            name: name.to_owned(),
            entry: entry.clone(),
            part,
            transposed,
            shape,
            scale: None,
        };
        self.recipes.insert(canonical.to_owned(), recipe);
    }

    /// Notes a problem, once for each tensor.
    pub(super) fn problem(&mut self, kind: ErrorKind, tensor: String, text: String) {
        if self.flawed.insert(tensor.clone()) {
            self.problems.push(Problem { kind, tensor, text });
        }
    }

    /// Leftovers of quantizers and of other architectures inside the root mean that the plain
    /// weights are not what they seem.
    fn strangers(&mut self, archive: &Archive) {
        const FOREIGN: [(&str, &str); 6] = [
            (".SCB", "bitsandbytes 8-bit weights"),
            (".absmax", "bitsandbytes 4-bit weights"),
            (".quant_map", "bitsandbytes 4-bit weights"),
            (".qweight", "GPTQ or AWQ weights"),
            (".qzeros", "GPTQ or AWQ weights"),
            ("cls_emb", "a CoCa text encoder"),
        ];
        let names: Vec<String> = self.territory(archive).map(str::to_owned).collect();
        for name in names {
            let marked = FOREIGN.iter().find(|(suffix, _)| name.ends_with(suffix));
            let state = name
                .contains(".quant_state.")
                .then_some("bitsandbytes 4-bit weights");
            if let Some(what) = marked.map(|(_, what)| *what).or(state) {
                self.problem(ErrorKind::Unsupported, name, format!("this marks {what}"));
            }
        }
    }

    /// Every name that lies inside the tower: all below its root, or, where the root is empty, what
    /// begins with the words of its style.
    pub(crate) fn territory<'a>(&'a self, archive: &'a Archive) -> impl Iterator<Item = &'a str> {
        let root = &self.found.root;
        let words: &[&str] = if root.is_empty() {
            self.found.style.naming().territory
        } else {
            &[""]
        };
        words.iter().flat_map(move |word| {
            let prefix = format!("{root}{word}");
            let from = archive.entries.range(prefix.clone()..);
            from.map(|(name, _)| name.as_str())
                .take_while(move |name| name.starts_with(&prefix))
        })
    }

    /// The number of stored bytes that its tensors take.
    pub(crate) fn n_bytes(&self, archive: &Archive) -> u64 {
        self.used
            .iter()
            .filter_map(|name| archive.entries.get(name))
            .map(|entry| entry.n_bytes)
            .sum()
    }

    /// True if it has a projection that can be used.
    pub(crate) fn has_projection(&self) -> bool {
        self.recipes.contains_key(PROJECTION)
    }

    /// All problems as one error: the first ten and how many more.
    pub(crate) fn check(&self, archive: &Archive) -> Result<()> {
        let Some(first) = self.problems.first() else {
            return Ok(());
        };
        let spelt = self.problems.iter().take(SPELT_OUT);
        let spelt: Vec<_> = spelt.map(Problem::to_string).collect();
        let more = self.problems.len().saturating_sub(SPELT_OUT);
        let rest = if more == 0 {
            String::new()
        } else {
            format!(", and {more} more")
        };
        let message = format!(
            "the text encoder {} has {} problem(s): {}{rest}",
            self.found.encoder,
            self.problems.len(),
            spelt.join("; ")
        );
        Err(Error::new(first.kind, message)
            .at_path(&archive.path)
            .at_tensor(&first.tensor))
    }
}

/// The shape in a file of what has this `shape` here.
fn as_stored(shape: &[usize], part: Part, transposed: bool) -> Vec<usize> {
    let mut stored = shape.to_vec();
    if transposed {
        stored.reverse();
    }
    if let (Part::Third(_), Some(rows)) = (part, stored.first_mut()) {
        *rows *= 3;
    }
    stored
}

/// What is wrong with a tensor that should be in a file in this shape, if anything.
fn fault(entry: &Entry, expected: &[usize]) -> Option<(ErrorKind, String)> {
    if !entry.stored.is_weight() {
        let text = format!("type {} cannot hold weights", entry.stored);
        return Some((ErrorKind::TensorValue, text));
    }
    let text = || format!("shape {:?}, expected {expected:?}", entry.shape);
    (entry.shape != expected).then(|| (ErrorKind::TensorShape, text()))
}
