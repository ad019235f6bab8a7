//! Synthetic checkpoints in every layout found in the wild: the same encoders each time, so that
//! every layout must give the same canonical tensors.

use std::path::{Path, PathBuf};

use sd_conditioner::Family;
use sd_conditioner::weights::{EncoderId, Synthetic, SyntheticSize};

use super::entries::{Entry, Stored, save};
pub(crate) use super::spelling::{Projection, huggingface, open_clip};

/// A way to store the encoders of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A diffusers folder.
    Diffusers,
    /// The family's usual single file.
    SingleFile,
    /// One file for each encoder, transformers' names.
    Standalone,
    /// One file for each encoder, `open_clip`'s names, with an image encoder.
    OpenClip,
    /// The same without the image encoder.
    OpenClipText,
    /// A single file without `text_model.`
    SingleFileFlat,
    /// SD 2.x below `conditioner.embedders.0.model.`
    Sgm,
    /// SD 2.x below `cond_stage_model.transformer.text_model.`
    Transformers,
    /// A single file with `text_projection.weight` among `open_clip`'s names.
    LinearProjection,
    /// One file for each encoder, as transformers 5.6 saves them.
    StandaloneFlat,
    /// One file for each encoder, with a bare projection.
    ComfyOld,
    /// One file for each encoder, with `logit_scale`.
    ComfySave,
    /// All encoders in one file, `clip_l.` and so on.
    ComfyPrefixed,
    /// All encoders in one file, `te1.` and so on.
    SdCpp,
    /// One file for each encoder, a whole `CLIPModel`.
    ClipModel,
    /// One file for each encoder, `module.` before each name of `open_clip`'s.
    Wrapped,
}

/// Writes a family's encoders into `folder`: files in encoder order, or the diffusers folder.
pub(crate) fn write(
    folder: &Path,
    family: Family,
    layout: Layout,
    stored: Stored,
    seed: u64,
) -> Vec<PathBuf> {
    if layout == Layout::Diffusers {
        return vec![diffusers(folder, family, stored, seed)];
    }
    let sources = family
        .encoders()
        .iter()
        .map(|encoder| source(*encoder, seed));
    if let Some(prefixes) = single_file(family, layout) {
        let mut entries = filler(family);
        for (source, prefix) in sources.zip(prefixes) {
            entries.extend(tower(&source, prefix, layout, stored));
        }
        return vec![save(
            &folder.join(format!("{family}.safetensors")),
            &entries,
        )];
    }
    let path = |source: &Synthetic| folder.join(format!("{}.safetensors", source.encoder()));
    sources
        .map(|source| save(&path(&source), &tower(&source, "", layout, stored)))
        .collect()
}

/// The tiny encoder that every layout holds.
pub(crate) fn source(encoder: EncoderId, seed: u64) -> Synthetic {
    Synthetic::new(encoder, SyntheticSize::Tiny, seed)
}

/// Prefixes of a family's encoders in files that hold them all; `None` for one file each. Those
/// with `transformer` are transformers' names.
fn single_file(family: Family, layout: Layout) -> Option<Vec<&'static str>> {
    let prefixes: &[&str] = match (layout, family) {
        (Layout::SingleFile | Layout::SingleFileFlat, Family::Sd1)
        | (Layout::Transformers, Family::Sd2) => &["cond_stage_model.transformer."],
        (Layout::SingleFile, Family::Sd2) => &["cond_stage_model.model."],
        (Layout::SingleFile | Layout::LinearProjection, Family::Refiner)
        | (Layout::Sgm, Family::Sd2) => &["conditioner.embedders.0.model."],
        (Layout::SingleFile | Layout::SingleFileFlat | Layout::LinearProjection, Family::Sdxl) => {
            &[
                "conditioner.embedders.0.transformer.",
                "conditioner.embedders.1.model.",
            ]
        }
        (Layout::ComfyPrefixed, Family::Sdxl) => &["clip_l.transformer.", "clip_g.transformer."],
        (Layout::ComfyPrefixed, Family::Sd2) => &["clip_h.transformer."],
        (Layout::SdCpp, Family::Sdxl) => &["te1.", "te2."],
        (Layout::SdCpp, Family::Sd1) => &["te."],
        _ => return None,
    };
    Some(prefixes.to_vec())
}

/// One encoder's tensors in the layout's names.
fn tower(source: &Synthetic, prefix: &str, layout: Layout, stored: Stored) -> Vec<Entry> {
    let is_l = source.encoder() == EncoderId::ClipL;
    let hugging =
        |root: &str, projection: Projection| huggingface(source, prefix, root, projection, stored);
    let linear = if is_l {
        Projection::None
    } else {
        Projection::Linear
    };
    match layout {
        Layout::OpenClip => {
            let mut entries = open_clip(source, "", Projection::Bare, stored);
            entries.extend(vision("visual.", stored));
            entries
        }
        Layout::OpenClipText => open_clip(source, "", Projection::Bare, stored),
        Layout::Wrapped => open_clip(source, "module.", Projection::Bare, stored),
        Layout::StandaloneFlat => hugging("", linear),
        Layout::ComfyOld => hugging("text_model.", Projection::Bare),
        Layout::ComfySave => {
            let mut entries = hugging("text_model.", Projection::Linear);
            entries.push(Entry::filled("logit_scale", stored, &[], 4.6055));
            entries
        }
        Layout::ClipModel => {
            let mut entries = hugging("text_model.", Projection::Linear);
            entries.extend(vision("vision_model.", stored));
            entries.push(Entry::filled(
                "visual_projection.weight",
                stored,
                &[4, 4],
                0.5,
            ));
            entries
        }
        Layout::SingleFile | Layout::LinearProjection | Layout::Sgm
            if prefix.ends_with("model.") =>
        {
            let projection = if layout == Layout::LinearProjection {
                Projection::Linear
            } else {
                Projection::Bare
            };
            open_clip(source, prefix, projection, stored)
        }
        Layout::SingleFileFlat if prefix.ends_with("model.") => {
            open_clip(source, prefix, Projection::Bare, stored)
        }
        Layout::SingleFileFlat => hugging("", Projection::None),
        Layout::Standalone if is_l => {
            let mut entries = hugging("text_model.", Projection::None);
            entries.push(position_ids(prefix));
            entries
        }
        Layout::SingleFile => {
            let mut entries = hugging("text_model.", Projection::None);
            entries.push(position_ids(prefix));
            entries
        }
        _ => hugging("text_model.", linear),
    }
}

fn position_ids(prefix: &str) -> Entry {
    let name = format!("{prefix}text_model.embeddings.position_ids");
    Entry::new(&name, Stored::I64, &[1, 77], || {
        (0_u8..77).map(f32::from).collect()
    })
}

fn vision(prefix: &str, stored: Stored) -> Vec<Entry> {
    [
        "conv1.weight",
        "ln_pre.weight",
        "transformer.resblocks.0.ln_1.weight",
        "proj",
    ]
    .map(|name| Entry::filled(&format!("{prefix}{name}"), stored, &[8, 8], 0.25))
    .into()
}

/// A few tensors of U-Net, VAE and schedule. The context width is the real family's.
fn filler(family: Family) -> Vec<Entry> {
    let context = match family {
        Family::Sd1 => 768,
        Family::Sd2 => 1024,
        Family::Sdxl => 2048,
        Family::Refiner => 1280,
        other => panic!("{other}"),
    };
    let unet = |name: &str, shape: &[usize]| {
        Entry::filled(
            &format!("model.diffusion_model.{name}"),
            Stored::F16,
            shape,
            0.1,
        )
    };
    vec![
        unet("input_blocks.0.0.weight", &[8, 4, 3, 3]),
        unet(
            "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight",
            &[8, context],
        ),
        unet(
            "input_blocks.4.1.transformer_blocks.0.attn1.to_k.weight",
            &[8, 640],
        ),
        unet("out.2.bias", &[4]),
        Entry::filled(
            "first_stage_model.encoder.conv_in.bias",
            Stored::F32,
            &[128],
            0.1,
        ),
        Entry::filled("alphas_cumprod", Stored::F32, &[1000], 0.1),
        Entry::filled("model_ema.num_updates", Stored::I32, &[], 470_000.0),
    ]
}

/// A diffusers folder with its text part only; H has one layer fewer and no projection.
fn diffusers(folder: &Path, family: Family, stored: Stored, seed: u64) -> PathBuf {
    let slots: &[&str] = match family {
        Family::Sd1 | Family::Sd2 => &["text_encoder"],
        Family::Sdxl => &["text_encoder", "text_encoder_2"],
        Family::Refiner => &["text_encoder_2"],
        other => panic!("{other}"),
    };
    let class = match family {
        Family::Sd1 | Family::Sd2 => "StableDiffusionPipeline",
        Family::Sdxl => "StableDiffusionXLPipeline",
        Family::Refiner => "StableDiffusionXLImg2ImgPipeline",
        other => panic!("{other}"),
    };
    let mut index = serde_json::json!({
        "_class_name": class,
        "_diffusers_version": "0.21.0",
        "text_encoder": [null, null],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "requires_safety_checker": false,
    });
    for (encoder, slot) in family.encoders().iter().zip(slots) {
        let class = if *encoder == EncoderId::OpenClipG {
            "CLIPTextModelWithProjection"
        } else {
            "CLIPTextModel"
        };
        index[*slot] = serde_json::json!(["transformers", class]);
        text_encoder(&folder.join(slot), *encoder, stored, seed);
    }
    save_text(&folder.join("model_index.json"), &index.to_string());
    folder.to_owned()
}

/// The folder of one encoder.
pub(crate) fn text_encoder(folder: &Path, encoder: EncoderId, stored: Stored, seed: u64) {
    let source = diffusers_source(encoder, seed);
    let projection = if encoder == EncoderId::OpenClipG {
        Projection::Linear
    } else {
        Projection::None
    };
    let entries = huggingface(&source, "", "text_model.", projection, stored);
    save(&folder.join("model.safetensors"), &entries);
    save_text(&folder.join("config.json"), &config(encoder).to_string());
}

/// What a diffusers folder holds of an encoder.
pub(crate) fn diffusers_source(encoder: EncoderId, seed: u64) -> Synthetic {
    match encoder {
        EncoderId::OpenClipH => source(encoder, seed).with_layers(3).without_projection(),
        EncoderId::ClipL => source(encoder, seed).without_projection(),
        EncoderId::OpenClipG => source(encoder, seed),
        other => panic!("{other}"),
    }
}

/// `config.json` with the values that real repositories have.
pub(crate) fn config(encoder: EncoderId) -> serde_json::Value {
    let (width, n_layers, act) = match encoder {
        EncoderId::ClipL => (128, 3, "quick_gelu"),
        EncoderId::OpenClipH => (192, 3, "gelu"),
        EncoderId::OpenClipG => (256, 4, "gelu"),
        other => panic!("{other}"),
    };
    serde_json::json!({
        "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "hidden_act": act,
        "hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width / 64,
        "num_hidden_layers": n_layers, "max_position_embeddings": 77, "vocab_size": 49408,
        "layer_norm_eps": 1e-5, "projection_dim": 512, "eos_token_id": 2, "bos_token_id": 0,
    })
}

/// Writes a text file and the folders above it.
pub(crate) fn save_text(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a writable folder");
    std::fs::write(path, text).expect("a writable file");
}
