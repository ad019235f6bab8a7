//! Which files a graph reads, by the names it has for them.

use std::fmt;

/// A folder of `ComfyUI`'s models folder.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subfolder {
    /// `checkpoints`
    Checkpoints,
    /// `text_encoders`, formerly `clip`
    TextEncoders,
    /// `diffusers`
    Diffusers,
    /// `loras`
    Loras,
    /// `embeddings`
    Embeddings,
}

impl Subfolder {
    /// Its names, the one to look into first first.
    pub const fn names(self) -> &'static [&'static str] {
        match self {
            Subfolder::Checkpoints => &["checkpoints"],
            Subfolder::TextEncoders => &["text_encoders", "clip"],
            Subfolder::Diffusers => &["diffusers"],
            Subfolder::Loras => &["loras"],
            Subfolder::Embeddings => &["embeddings"],
        }
    }
}

/// A file, or a folder, that a graph reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Need {
    /// Where.
    pub subfolder: Subfolder,
    /// Its name there, as the workflow spells it.
    pub name: String,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.subfolder.names()[0], self.name)
    }
}

/// Where text encoders come from.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClipSource {
    /// A checkpoint.
    Checkpoint(String),
    /// One encoder's file; its size decides the family (`CLIPLoader`).
    Encoder(String),
    /// SDXL's encoders in two files, in any order (`DualCLIPLoader`).
    SdxlEncoders([String; 2]),
    /// A diffusers folder.
    Diffusers(String),
}

impl ClipSource {
    /// The files.
    pub fn needs(&self) -> Vec<Need> {
        let need = |subfolder, name: &String| Need {
            subfolder,
            name: name.clone(),
        };
        match self {
            ClipSource::Checkpoint(name) => vec![need(Subfolder::Checkpoints, name)],
            ClipSource::Encoder(name) => vec![need(Subfolder::TextEncoders, name)],
            ClipSource::SdxlEncoders(names) => names
                .iter()
                .map(|name| need(Subfolder::TextEncoders, name))
                .collect(),
            ClipSource::Diffusers(name) => vec![need(Subfolder::Diffusers, name)],
        }
    }
}

/// A LoRA, and how much of it.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraUse {
    /// Its name below `loras`.
    pub name: String,
    /// What its part for text encoders is multiplied with.
    pub strength: f64,
}

impl LoraUse {
    /// Its file.
    pub fn need(&self) -> Need {
        Need {
            subfolder: Subfolder::Loras,
            name: self.name.clone(),
        }
    }
}

/// Text encoders as a graph hands them on: which, with which LoRAs, read after which layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Clip {
    /// Where they come from.
    pub source: ClipSource,
    /// In the order of the nodes.
    pub loras: Vec<LoraUse>,
    /// `CLIPSetLastLayer`'s number: -1, -2…
    pub layer: Option<i32>,
}

impl Clip {
    /// Encoders as they are in the files.
    pub fn new(source: ClipSource) -> Clip {
        Clip {
            source,
            loras: Vec::new(),
            layer: None,
        }
    }
}
