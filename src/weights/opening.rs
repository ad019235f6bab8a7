//! Opening: from a file or a folder to the text encoders in it.

use std::path::Path;
use std::sync::Arc;

use super::checkpoint::{Checkpoint, Container, Located};
use super::format::archive::Archive;
use super::format::folder::{self, Component, Config};
use super::format::sniff::Kind;
use super::layout::family::{self, Decision};
use super::layout::{Dimensions, Layout, Style, Tower, detect, fingerprint};
use super::{EncoderId, Family};
use crate::error::{Error, ErrorKind, Result};

/// Opens whatever is at the path.
pub(super) fn open(path: &Path, variant: Option<&str>) -> Result<Checkpoint> {
    let metadata = std::fs::metadata(path).map_err(|error| Error::io(path, error))?;
    let opened = if metadata.is_dir() {
        folder::open(path, variant).and_then(|folder| open_folder(path, folder))
    } else {
        open_file(path)
    };
    opened.map_err(|error| error.at_path(path))
}

fn open_file(path: &Path) -> Result<Checkpoint> {
    let archive = Arc::new(Archive::open(path)?);
    fingerprint::refuse_adapters(&archive)?;
    let mut notes = Vec::new();
    let towers = towers(&archive, &mut notes)?;
    let decision = family::decide(&archive, &towers)?;
    if decision.candidates.is_empty() && family::is_sd3(&archive) {
        let note = "a checkpoint of SD 3 or Flux: its encoders can be read, its family is unknown";
        notes.push(note.to_owned());
    }
    let located = |tower| Located {
        archive: Arc::clone(&archive),
        tower,
        config: None,
    };
    Ok(Checkpoint {
        path: path.to_owned(),
        decision,
        encoders: towers.into_iter().map(located).collect(),
        container: container(archive.kind),
        archives: vec![archive],
        notes,
    })
}

const fn container(kind: Kind) -> Container {
    match kind {
        Kind::Safetensors => Container::Safetensors,
        Kind::TorchZip | Kind::TorchLegacy => Container::PyTorch,
        Kind::Gguf => Container::Gguf,
    }
}

/// At most one tower for each encoder, in the encoders' order.
fn towers(archive: &Archive, notes: &mut Vec<String>) -> Result<Vec<Tower>> {
    let found = detect::find(archive)?;
    if found.is_empty() {
        return Err(fingerprint::no_tower(archive));
    }
    let mut towers: Vec<Tower> = Vec::new();
    for found in found {
        let tower = Tower::build(archive, found)?;
        let rival = towers
            .iter_mut()
            .find(|one| one.found.encoder == tower.found.encoder);
        match rival {
            None => towers.push(tower),
            Some(rival) => notes.push(keep_better(rival, tower)?),
        }
    }
    towers.sort_by_key(|tower| tower.found.encoder);
    Ok(towers)
}

/// Leaves the complete one of two rivals in the place of the first; a note that says so.
fn keep_better(first: &mut Tower, second: Tower) -> Result<String> {
    let better = choose(first, &second)?;
    let note = format!(
        "two encoders {} (`{}` and `{}`): the complete one is used",
        second.found.encoder, first.found.root, second.found.root
    );
    if better == Better::Second {
        *first = second;
    }
    Ok(note)
}

#[derive(PartialEq, Eq)]
enum Better {
    First,
    Second,
}

/// The complete one of two rivals; two complete ones are an error.
fn choose(first: &Tower, second: &Tower) -> Result<Better> {
    match (first.problems.is_empty(), second.problems.is_empty()) {
        (true, true) => {
            let styles = if first.found.style == second.found.style {
                ""
            } else {
                " in both naming styles"
            };
            let message = format!(
                "ambiguous: two complete text encoders {}{styles}, below `{}` and `{}`",
                first.found.encoder, first.found.root, second.found.root
            );
            Err(Error::new(ErrorKind::Mismatch, message).hint("remove one of them"))
        }
        (false, true) => Ok(Better::Second),
        (true | false, false) => Ok(Better::First),
    }
}

fn open_folder(path: &Path, folder: folder::Folder) -> Result<Checkpoint> {
    let mut notes = folder.notes;
    let components = folder.components.into_iter();
    let encoders = components.map(|component| locate(component, &mut notes));
    let encoders: Vec<Located> = encoders.collect::<Result<_>>()?;
    let order = encoders.iter().map(|located| located.tower.found.encoder);
    let order: Vec<EncoderId> = order.collect();
    check_order(&order)?;
    let decision = folder_family(&order, folder.class.as_deref())?;
    let archives = encoders
        .iter()
        .map(|located| Arc::clone(&located.archive))
        .collect();
    Ok(Checkpoint {
        path: path.to_owned(),
        decision,
        encoders,
        archives,
        notes,
        container: Container::Folder,
    })
}

/// The folder of the second encoder has the larger one.
fn check_order(encoders: &[EncoderId]) -> Result<()> {
    let mut pairs = encoders.iter().zip(encoders.iter().skip(1));
    if let Some((encoder, _)) = pairs.find(|(first, second)| first == second) {
        let message = format!("both text encoders of the folder are {encoder}");
        return Err(Error::new(ErrorKind::Mismatch, message));
    }
    if !encoders.is_sorted() {
        let message = "the encoders are swapped: text_encoder is larger than text_encoder_2";
        return Err(Error::new(ErrorKind::Mismatch, message));
    }
    Ok(())
}

/// One component of a folder, checked against its configuration.
fn locate(component: Component, notes: &mut Vec<String>) -> Result<Located> {
    let Component {
        folder,
        config,
        archive,
    } = component;
    fingerprint::refuse_adapters(&archive).map_err(|error| error.at_path(&archive.path))?;
    let towers = towers(&archive, notes).map_err(|error| error.at_path(&archive.path))?;
    let [mut tower] = <[Tower; 1]>::try_from(towers).map_err(|towers| {
        let message = format!("{} text encoders in one component", towers.len());
        Error::new(ErrorKind::Mismatch, message).at_path(&folder)
    })?;
    check_config(&config, &tower).map_err(|error| error.at_path(folder.join("config.json")))?;
    if tower.found.style == Style::HuggingFace {
        tower.layout = Layout::Diffusers;
    }
    notes.extend(activation_note(&config, tower.found.encoder));
    Ok(Located {
        archive: Arc::new(archive),
        tower,
        config: Some(config),
    })
}

/// A note if the configuration names another activation than the encoder usually has.
fn activation_note(config: &Config, encoder: EncoderId) -> Option<String> {
    let usual = encoder.usual_activation();
    let named = config.hidden_act.as_deref()?;
    (named != usual).then(|| {
        format!("config.json gives {encoder} the activation `{named}`, which is used; usual is `{usual}`")
    })
}

/// Activations that a configuration may name.
const ACTIVATIONS: [&str; 4] = ["quick_gelu", "gelu", "gelu_new", "gelu_pytorch_tanh"];

/// What the configuration says of sizes, by field, and what the tensors have. `projection_dim` is
/// not among them: SD 2.x folders say 512 and have no projection.
fn sizes(config: &Config, dimensions: Dimensions) -> [(&'static str, Option<usize>, usize); 6] {
    let (width, n_layers) = (dimensions.width, dimensions.n_layers);
    [
        ("hidden_size", config.hidden_size, width),
        ("num_hidden_layers", config.num_hidden_layers, n_layers),
        (
            "num_attention_heads",
            config.num_attention_heads,
            width / 64,
        ),
        ("intermediate_size", config.intermediate_size, 4 * width),
        (
            "max_position_embeddings",
            config.max_position_embeddings,
            dimensions.positions,
        ),
        ("vocab_size", config.vocab_size, dimensions.vocabulary),
    ]
}

/// An error if the tensors contradict the configuration, or no CLIP text encoder is like that.
fn check_config(config: &Config, tower: &Tower) -> Result<()> {
    let wrong = sizes(config, tower.found.dimensions)
        .into_iter()
        .find(|(_, told, found)| told.is_some_and(|told| told != *found));
    if let Some((field, Some(told), found)) = wrong {
        let message = format!("`{field}` is {told}, but the tensors have {found}");
        return Err(Error::new(ErrorKind::Mismatch, message));
    }
    let strange = config
        .hidden_act
        .as_deref()
        .filter(|act| !ACTIVATIONS.contains(act));
    if let Some(act) = strange {
        let message = format!("`hidden_act` is `{act}`, which no CLIP text encoder has");
        let known = format!("known are {}", ACTIVATIONS.join(", "));
        return Err(Error::new(ErrorKind::Unsupported, message).hint(known));
    }
    match config.layer_norm_eps {
        Some(epsilon) if (epsilon - 1e-5).abs() > 1e-9 => {
            let message = format!("`layer_norm_eps` is {epsilon}; CLIP text encoders have 1e-5");
            Err(Error::new(ErrorKind::Unsupported, message))
        }
        _ => Ok(()),
    }
}

/// The family of a pipeline folder, in whichever slots its encoders are; of one encoder's folder,
/// what it may serve as.
fn folder_family(encoders: &[EncoderId], class: Option<&str>) -> Result<Decision> {
    let Some(class) = class else {
        return Ok(family::of_encoders(encoders));
    };
    let xl = class.contains("StableDiffusionXL");
    let missing = |which: &str| {
        let message = format!("`{class}` without its {which} text encoder");
        Err(Error::new(ErrorKind::MissingTensor, message))
    };
    match encoders {
        [EncoderId::ClipL] if xl => missing("second"),
        [EncoderId::OpenClipG] if class == "StableDiffusionXLPipeline" => missing("first"),
        [EncoderId::ClipL] => Ok(Decision::sure(Family::Sd1)),
        [EncoderId::OpenClipG] => Ok(Decision::sure(Family::Refiner)),
        [EncoderId::OpenClipH] | [EncoderId::ClipL, EncoderId::OpenClipG] => {
            Ok(family::of_encoders(encoders))
        }
        _ => {
            let tags: Vec<_> = encoders.iter().map(|encoder| encoder.tag()).collect();
            let message = format!("no family has the encoders {}", tags.join(" and "));
            Err(Error::new(ErrorKind::Mismatch, message))
        }
    }
}
