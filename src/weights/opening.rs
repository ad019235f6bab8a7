//! Opening: from a file or a folder to the text encoders in it.

use std::path::Path;
use std::sync::Arc;

use super::checkpoint::{Checkpoint, Container, Located};
use super::format::archive::Archive;
use super::format::folder::{self, Component, Config};
use super::format::sniff::Kind;
use super::layout::family::{self, Decision};
use super::layout::{Layout, Style, Tower, detect, fingerprint};
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
        notes.push(
            "a checkpoint of SD 3 or Flux: its encoders can be read, its family is unknown"
                .to_owned(),
        );
    }
    let located = |tower| Located {
        archive: Arc::clone(&archive),
        tower,
        config: None,
    };
    let encoders: Vec<_> = towers.into_iter().map(located).collect();
    let container = match archive.kind {
        Kind::Safetensors => Container::Safetensors,
        Kind::TorchZip | Kind::TorchLegacy => Container::PyTorch,
        Kind::Gguf => Container::Gguf,
    };
    let path = path.to_owned();
    Ok(Checkpoint {
        path,
        decision,
        encoders,
        archives: vec![archive],
        notes,
        container,
    })
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
            .iter()
            .position(|one| one.found.encoder == tower.found.encoder);
        match rival {
            None => towers.push(tower),
            Some(index) => {
                let better = choose(&towers[index], &tower)?;
                let roots = [&towers[index].found.root, &tower.found.root];
                notes.push(format!(
                    "two encoders {} (`{}` and `{}`): the complete one is used",
                    tower.found.encoder, roots[0], roots[1]
                ));
                if better == Better::Second {
                    towers[index] = tower;
                }
            }
        }
    }
    towers.sort_by_key(|tower| tower.found.encoder);
    Ok(towers)
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
    let (mut notes, mut encoders) = (folder.notes, Vec::<Located>::new());
    for component in folder.components {
        let located = locate(component, &mut notes)?;
        let encoder = located.tower.found.encoder;
        if encoders
            .iter()
            .any(|other| other.tower.found.encoder == encoder)
        {
            let message = format!("both text encoders of the folder are {encoder}");
            return Err(Error::new(ErrorKind::Mismatch, message));
        }
        encoders.push(located);
    }
    let order: Vec<_> = encoders
        .iter()
        .map(|located| located.tower.found.encoder)
        .collect();
    if !order.is_sorted() {
        let message = "the encoders are swapped: text_encoder is larger than text_encoder_2";
        return Err(Error::new(ErrorKind::Mismatch, message));
    }
    let decision = folder_family(&order, folder.class.as_deref())?;
    let archives = encoders
        .iter()
        .map(|located| Arc::clone(&located.archive))
        .collect();
    let container = Container::Folder;
    Ok(Checkpoint {
        path: path.to_owned(),
        decision,
        encoders,
        archives,
        notes,
        container,
    })
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
    contradictions(&config, &tower).map_err(|error| error.at_path(folder.join("config.json")))?;
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

/// Numbers of the configuration that the tensors contradict. `projection_dim` is not among them:
/// SD 2.x folders say 512 and have no projection.
fn contradictions(config: &Config, tower: &Tower) -> Result<()> {
    let dimensions = tower.found.dimensions;
    let pairs = [
        ("hidden_size", config.hidden_size, dimensions.width),
        (
            "num_hidden_layers",
            config.num_hidden_layers,
            dimensions.n_layers,
        ),
        (
            "num_attention_heads",
            config.num_attention_heads,
            dimensions.width / 64,
        ),
        (
            "intermediate_size",
            config.intermediate_size,
            4 * dimensions.width,
        ),
        (
            "max_position_embeddings",
            config.max_position_embeddings,
            dimensions.positions,
        ),
        ("vocab_size", config.vocab_size, dimensions.vocabulary),
    ];
    let wrong = pairs
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
