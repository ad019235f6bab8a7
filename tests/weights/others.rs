//! Files that are something else than a text encoder: the error says what, in every container.

use std::path::{Path, PathBuf};

use sd_conditioner::ErrorKind::{self, UnknownLayout};
use sd_conditioner::weights::Inspected;

use super::{check_refused, load};
use crate::support::entries::{Entry, Stored, save};
use crate::support::ggufs;
use crate::support::pickles::{save_legacy, save_zip, state};

/// The same tensors in each container.
fn files(folder: &Path, entries: &[Entry]) -> [PathBuf; 4] {
    let lines: Vec<_> = entries.iter().map(ggufs::plain).collect();
    [
        save(&folder.join("x.safetensors"), entries),
        save_zip(&folder.join("x.ckpt"), &state(entries)),
        save_legacy(&folder.join("x.bin"), &state(entries)),
        ggufs::save(&folder.join("x.gguf"), &lines),
    ]
}

#[track_caller]
fn check(tensors: &[(&str, &[usize])], words: &[&str]) {
    check_with(tensors, words, |path| {
        let what = Inspected::open(path, None);
        check_refused(what, UnknownLayout, words);
    });
}

/// The same for files that `inspect` shows: it is told about them otherwise.
#[track_caller]
fn check_with(tensors: &[(&str, &[usize])], words: &[&str], inspect: impl Fn(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    let entries = tensors.iter();
    let entries = entries.map(|(name, shape)| Entry::filled(name, Stored::F16, shape, 0.5));
    for path in files(folder.path(), &entries.collect::<Vec<_>>()) {
        check_refused(load(&path), UnknownLayout, words);
        inspect(&path);
    }
}

#[test]
fn parts_of_checkpoints() {
    let unet = "model.diffusion_model.input_blocks.0.0.weight";
    check(
        &[
            (unet, &[8, 4, 3, 3]),
            ("model.diffusion_model.out.2.bias", &[4]),
        ],
        &["U-Net-only"],
    );
    check(
        &[("input_blocks.0.0.weight", &[8, 4, 3, 3])],
        &["U-Net without prefix"],
    );
    check(
        &[("down_blocks.0.resnets.0.conv1.weight", &[8, 8, 3, 3])],
        &["diffusers U-Net"],
    );
    check(
        &[("first_stage_model.encoder.conv_in.weight", &[8, 3, 3, 3])],
        &["a VAE"],
    );
    check(
        &[("decoder.up.0.block.0.conv1.weight", &[8, 8, 3, 3])],
        &["a VAE"],
    );
    check(
        &[("control_model.input_hint_block.0.weight", &[8, 3, 3, 3])],
        &["ControlNet"],
    );
    check(
        &[("controlnet_cond_embedding.conv_in.weight", &[8, 3, 3, 3])],
        &["ControlNet"],
    );
}

#[test]
fn other_families() {
    check(
        &[("model.diffusion_model.joint_blocks.0.x.weight", &[8, 8])],
        &["Stable Diffusion 3"],
    );
    check(
        &[("double_blocks.0.img_attn.qkv.weight", &[24, 8])],
        &["Flux"],
    );
    check(
        &[("encoder.block.0.layer.0.SelfAttention.q.weight", &[8, 8])],
        &["T5"],
    );
    check(&[("enc.blk.0.attn_q.weight", &[8, 8])], &["T5"]);
    check(&[("blk.0.attn_q.weight", &[8, 8])], &["language model"]);
    check(
        &[("vision_model.embeddings.class_embedding", &[8])],
        &["CLIP image encoder"],
    );
    check(&[("image_proj.proj.weight", &[8, 8])], &["IP-Adapter"]);
}

#[test]
fn adapters_and_embeddings() {
    let is_lora = |path: &Path| {
        let what = Inspected::open(path, None);
        assert!(matches!(what, Ok(Inspected::Lora(_))), "{what:?}");
    };
    let is_embedding = |path: &Path| {
        let what = Inspected::open(path, None);
        assert!(matches!(what, Ok(Inspected::Embedding(_))), "{what:?}");
    };
    let lora = "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight";
    check_with(
        &[(lora, &[4, 768])],
        &["LoRA", "load it as a LoRA"],
        is_lora,
    );
    check_with(&[("unet.x.lora_A.weight", &[4, 8])], &["LoRA"], is_lora);
    let inversion = &["textual inversion"];
    check_with(&[("emb_params", &[2, 768])], inversion, is_embedding);
    check_with(&[("string_to_param.*", &[2, 768])], inversion, is_embedding);
    check_with(
        &[("clip_l", &[2, 768]), ("clip_g", &[2, 1280])],
        inversion,
        is_embedding,
    );
    check_with(&[("<cat-toy>", &[768])], inversion, is_embedding);
}

/// What `encode` writes, alone or by steps.
#[test]
fn conditionings() {
    let words = &["this is a conditioning"];
    check(&[("prompt_embeds", &[1, 77, 768])], words);
    check(
        &[
            ("prompt_embeds.0", &[1, 77, 768]),
            ("negative_prompt_embeds.0", &[1, 77, 768]),
        ],
        words,
    );
}

/// What is wrong with an embedding is said, and not that it is no checkpoint.
#[test]
fn damaged_embeddings() {
    let folder = tempfile::tempdir().unwrap();
    for key in ["emb_params", "clip_l", "string_to_param.*"] {
        let entries = [Entry::filled(key, Stored::F16, &[2, 768], f32::NAN)];
        for path in files(folder.path(), &entries) {
            check_refused(
                Inspected::open(&path, None),
                ErrorKind::Embedding,
                &[key, "value 0 is NaN or infinite"],
            );
        }
    }
}
