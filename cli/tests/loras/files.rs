//! Files that the tests put on, and what the library makes of them.

use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize_to_file};
use sd_conditioner::weights::{EncoderId, Lora, Synthetic, SyntheticSize, TensorSource as _};
use sd_conditioner::{Conditioner, Family, Guidance, Profile, Request};
use tempfile::{TempDir, tempdir};

use crate::support::{Ran, Written, encode, floats, read};

const SD1: [(&str, EncoderId); 1] = [("lora_te", EncoderId::ClipL)];
const SDXL: [(&str, EncoderId); 2] = [
    ("lora_te1", EncoderId::ClipL),
    ("lora_te2", EncoderId::OpenClipG),
];

type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

/// A change of one matrix of each encoder, all of `value`.
fn changes(encoders: &[(&str, EncoderId)], value: f32) -> Tensors {
    let changes = encoders.iter().map(|(prefix, encoder)| {
        let source = Synthetic::new(*encoder, SyntheticSize::Tiny, 73);
        let shape = source.info("layers.0.fc1.weight").unwrap().shape;
        let count = shape.iter().product();
        let name = format!("{prefix}_text_model_encoder_layers_0_mlp_fc1.diff");
        let ramp = (0_u8..=250).cycle().take(count);
        (
            name,
            shape,
            ramp.map(|step| f32::from(step) / 125.0 * value - value)
                .collect(),
        )
    });
    changes.collect()
}

pub(super) fn save(path: &Path, tensors: &Tensors) -> PathBuf {
    let bytes = |values: &[f32]| -> Vec<u8> {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        bytes.collect()
    };
    let stored: Vec<Vec<u8>> = tensors.iter().map(|(.., values)| bytes(values)).collect();
    let views = tensors
        .iter()
        .zip(&stored)
        .map(|((name, shape, _), bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
            (name.clone(), view)
        });
    serialize_to_file(views, None, path).unwrap();
    path.to_owned()
}

/// `film`, `ink` (with what is not used, and an embedding) and, for another family, `xl`.
pub(super) struct Files {
    pub(super) folder: TempDir,
    pub(super) film: String,
    pub(super) ink: String,
    pub(super) xl: String,
}

pub(super) fn files() -> Files {
    let folder = tempdir().unwrap();
    std::fs::create_dir(folder.path().join("loras")).unwrap();
    let at = |name: &str| folder.path().join("loras").join(name);
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let film = text(save(&at("film.safetensors"), &changes(&SD1, 0.2)));
    let xl = text(save(&at("xl.safetensors"), &changes(&SDXL, 0.2)));
    let mut ink = changes(&SD1, -0.1);
    let more: [(&str, Vec<usize>); 4] = [
        (
            "lora_te_text_model_encoder_layers_99_mlp_fc1.diff",
            vec![512, 128],
        ),
        ("lora_unet_x.lora_down.weight", vec![4, 8]),
        ("what.is.this", vec![2]),
        ("bundle_emb.swirl.string_to_param.*", vec![1, 128]),
    ];
    for (name, shape) in more {
        let values = vec![0.5; shape.iter().product()];
        ink.push((name.to_owned(), shape, values));
    }
    let ink = text(save(&at("ink.safetensors"), &ink));
    Files {
        folder,
        film,
        ink,
        xl,
    }
}

impl Files {
    pub(super) fn encode(&self, family: &str, more: &[&str]) -> (Ran, Written) {
        let out = self.folder.path().join("a");
        let ran = encode(family, more, &out).expect(0);
        (ran, read(&out))
    }

    pub(super) fn loras(&self) -> String {
        self.folder.path().join("loras").display().to_string()
    }
}

/// What the library makes of it.
pub(super) fn made(family: Family, loras: &[(&str, f64, f64)], profile: Profile) -> Guidance {
    let text = Conditioner::builder()
        .random_weights(family, SyntheticSize::Tiny, 73)
        .unwrap();
    let loras = loras.iter().map(|(file, strength, strength_2)| {
        Lora::open(file).unwrap().at_each(*strength, *strength_2)
    });
    let text = text.with_loras(&loras.collect::<Vec<_>>()).unwrap();
    let request = |text| Request::new(text).profile(profile);
    text.encode_pair(request("a cat"), request("fog")).unwrap()
}

#[track_caller]
pub(super) fn same(file: &Written, made: &Guidance) {
    let positive = floats(made.positive().context());
    assert!(file.floats("prompt_embeds") == positive, "positive");
    let negative = floats(made.negative().context());
    assert!(
        file.floats("negative_prompt_embeds") == negative,
        "negative"
    );
}
