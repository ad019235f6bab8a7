//! Which encoder, which family, and files that are something else.

use sd_conditioner::ErrorKind;
use sd_conditioner::weights::{Checkpoint, Embedding, EncoderId};

use super::content::{at, check, l, tensor};
use super::load;
use crate::support::checkpoints::{Projection, open_clip, source};
use crate::support::entries::{Entry, Stored, save, save_sparse};

/// The context width by which a U-Net's family is known.
fn unet(context: usize) -> Entry {
    tensor(
        "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight",
        &[8, context],
    )
}

#[test]
fn two_encoders_for_one_slot() {
    let mismatch = ErrorKind::Mismatch;
    let both = |one: Vec<Entry>, two: Vec<Entry>| [one, two].concat();
    let (ldm, sgm) = (
        "cond_stage_model.transformer.",
        "conditioner.embedders.0.transformer.",
    );
    let one = at(EncoderId::ClipL, ldm);
    check(
        &both(one.clone(), at(EncoderId::ClipL, sgm)),
        mismatch,
        &["ambiguous", ldm, sgm],
    );
    let other_style = open_clip(
        &source(EncoderId::ClipL, 1),
        ldm,
        Projection::Bare,
        Stored::F16,
    );
    check(
        &both(one.clone(), other_style),
        mismatch,
        &["ambiguous", "both naming styles"],
    );
    check(
        &both(
            one,
            at(EncoderId::OpenClipG, "conditioner.embedders.1.model."),
        ),
        mismatch,
        &["both"],
    );
}

/// The rest of a second encoder does not spoil a whole one.
#[test]
fn leftovers_beside_a_whole_encoder() {
    let mut entries = at(EncoderId::ClipL, "cond_stage_model.transformer.");
    let mut rest = at(EncoderId::ClipL, "old.transformer.");
    rest.retain(|entry| !entry.name.ends_with("k_proj.bias"));
    entries.extend(rest);
    entries.push(tensor(
        "embedder.model.token_embedding.weight",
        &[49408, 1024],
    ));
    entries.push(tensor("embedder.model.ln_final.weight", &[1024]));
    let folder = tempfile::tempdir().expect("a folder");
    let path = save_sparse(&folder.path().join("file.safetensors"), &entries);
    load(&path).expect("the complete one");
    let notes = Checkpoint::open(&path)
        .expect("the complete one")
        .report()
        .notes;
    assert!(
        notes
            .iter()
            .any(|note| note.contains("the complete one is used")),
        "{notes:?}"
    );
}

#[test]
fn encoders_and_unets_of_different_families() {
    let with = |mut entries: Vec<Entry>, context| {
        entries.push(unet(context));
        entries
    };
    let mismatch = ErrorKind::Mismatch;
    let l_in_sgm = at(EncoderId::ClipL, "conditioner.embedders.0.transformer.");
    check(
        &with(at(EncoderId::ClipL, "cond_stage_model.transformer."), 1024),
        mismatch,
        &["disagree", "sd1", "sd2"],
    );
    check(
        &with(
            at(EncoderId::OpenClipH, "conditioner.embedders.0.model."),
            1280,
        ),
        mismatch,
        &["disagree", "refiner"],
    );
    check(
        &with(l_in_sgm, 2048),
        ErrorKind::MissingTensor,
        &["second", "clip_g"],
    );
    check(
        &with(l(), 2048),
        ErrorKind::MissingTensor,
        &["second", "clip_g"],
    );
    let g = at(EncoderId::OpenClipG, "conditioner.embedders.1.model.");
    check(&g, ErrorKind::MissingTensor, &["first", "clip_l"]);
    let swapped = at(EncoderId::OpenClipG, "conditioner.embedders.0.transformer.");
    check(
        &[
            swapped,
            at(EncoderId::ClipL, "conditioner.embedders.1.model."),
        ]
        .concat(),
        mismatch,
        &["swapped"],
    );
    check(
        &at(EncoderId::OpenClipG, "cond_stage_model.model."),
        mismatch,
        &["ViT-bigG"],
    );
}

/// A file with these tensors is refused in these words.
#[track_caller]
fn of(names: &[&str], words: &[&str]) {
    let entries: Vec<_> = names
        .iter()
        .map(|name| tensor(name, &[64, 64, 1]))
        .collect();
    check(&entries, ErrorKind::UnknownLayout, words);
}

#[test]
fn files_of_other_kinds() {
    of(
        &["lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"],
        &["LoRA"],
    );
    of(
        &["text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight"],
        &["LoRA"],
    );
    of(&["lora_unet_x.hada_w1_a"], &["LoRA"]);
    of(&["control_model.input_blocks.0.0.weight"], &["ControlNet"]);
    of(&["first_stage_model.encoder.conv_in.weight"], &["VAE"]);
    of(
        &[
            "encoder.down.0.block.0.conv1.weight",
            "decoder.up.0.block.0.conv1.weight",
        ],
        &["VAE"],
    );
    of(&["model.diffusion_model.out.0.weight"], &["U-Net-only"]);
    of(
        &["down_blocks.0.resnets.0.conv1.weight", "up_blocks.0.x"],
        &["diffusers U-Net"],
    );
}

#[test]
fn other_models() {
    of(
        &["model.diffusion_model.joint_blocks.0.x"],
        &["Stable Diffusion 3"],
    );
    of(&["double_blocks.0.img_attn.qkv.weight"], &["Flux"]);
    of(
        &[
            "encoder.block.0.layer.0.SelfAttention.q.weight",
            "shared.weight",
        ],
        &["T5"],
    );
    of(
        &["model.layers.0.self_attn.q_proj.weight"],
        &["language model"],
    );
    of(
        &["cond_stage_model.roberta.embeddings.word_embeddings.weight"],
        &["AltDiffusion"],
    );
    of(
        &["conditioner.embedders.0.open_clip.model.visual.proj"],
        &["Stable Video"],
    );
    of(&["clip_txt_mapper.weight"], &["Cascade"]);
    of(&["image_proj.proj.weight"], &["IP-Adapter"]);
    of(
        &["vision_model.encoder.layers.0.self_attn.q_proj.weight"],
        &["image encoder"],
    );
    of(&["what.ever"], &["1 tensors", "`what.ever`"]);
}

#[test]
fn embeddings_are_named() {
    let unknown = ErrorKind::UnknownLayout;
    let words = ["textual inversion"];
    check(&[tensor("emb_params", &[4, 128])], unknown, &words);
    check(&[tensor("<my-cat>", &[1, 768])], unknown, &words);
    check(
        &[tensor("clip_l", &[2, 768]), tensor("clip_g", &[2, 1280])],
        unknown,
        &words,
    );
}

/// Vectors and placeholder make it, and not where the file lies.
#[test]
fn embeddings_are_told_apart_by_content() {
    let fingerprint = |name: &str, key: &str, value: f32| {
        let entry = Entry::filled(key, Stored::F32, &[1, 128], value);
        let folder = tempfile::tempdir().unwrap();
        let path = save(&folder.path().join(name), &[entry]);
        Embedding::open(&path).unwrap().fingerprint().unwrap()
    };
    let first = fingerprint("a.safetensors", "emb_params", 0.25);
    assert_eq!(first.len(), 64);
    assert_eq!(first, fingerprint("b.safetensors", "emb_params", 0.25));
    assert_ne!(first, fingerprint("a.safetensors", "emb_params", 0.5));
    assert_ne!(first, fingerprint("a.safetensors", "<cat>", 0.25));
}
