//! Which family a LoRA was made for, and refusing the others by name.

use sd_conditioner::{ErrorKind, Family};

use super::{Written, entry, tiny, write_with};
use crate::support::entries::Entry;

/// A pair of matrices for one module, reading `width` channels.
fn pair(module: &str, width: usize) -> Vec<Entry> {
    vec![
        entry(&format!("{module}.lora_down.weight"), &[4, width], 0.1),
        entry(&format!("{module}.lora_up.weight"), &[width, 4], 0.1),
    ]
}

fn written(modules: &[(&str, usize)], metadata: &[(&str, &str)]) -> Written {
    let entries: Vec<Entry> = modules
        .iter()
        .flat_map(|(module, width)| pair(module, *width))
        .collect();
    write_with(&entries, metadata)
}

/// A text module of a prefix.
fn text(prefix: &str) -> String {
    format!("{prefix}text_model_encoder_layers_0_self_attn_q_proj")
}

const CONTEXT: &str = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k";

#[test]
fn names_widths_and_metadata_tell() {
    use Family::{Refiner, Sd1, Sd2, Sdxl};
    let (te, te1, te2) = (text("lora_te_"), text("lora_te1_"), text("lora_te2_"));
    let check = |modules: &[(&str, usize)], metadata: &[(&str, &str)], want: &[Family]| {
        let lora = written(modules, metadata).open().unwrap();
        assert_eq!(lora.families(), want, "{modules:?} {metadata:?}");
    };
    check(&[(&te1, 768), (&te2, 1280)], &[], &[Sdxl]);
    check(&[(&te, 768)], &[], &[Sd1]);
    check(&[(&te, 1024)], &[], &[Sd2]);
    check(&[(&te, 1280)], &[], &[Refiner]);
    check(&[(&te2, 1280)], &[], &[Sdxl, Refiner]);
    check(&[(&te1, 768)], &[], &[Sd1, Sdxl]);
    check(&[(&te1, 768), (CONTEXT, 2048)], &[], &[Sdxl]);
    check(&[(&te1, 768), (CONTEXT, 768)], &[], &[Sd1]);
    check(&[(CONTEXT, 1024)], &[], &[Sd2]);
    check(
        &[(&te1, 768)],
        &[("ss_base_model_version", "sdxl_base_v1-0")],
        &[Sdxl],
    );
    check(
        &[(&te1, 768)],
        &[("modelspec.architecture", "stable-diffusion-v1/lora")],
        &[Sd1],
    );
    // Names are surer than what anyone can write into metadata.
    check(
        &[(&te, 768)],
        &[("ss_base_model_version", "sdxl_base_v1-0")],
        &[Sd1],
    );
    check(
        &[
            (&te1, 768),
            ("lora_unet_double_blocks_0_img_attn_qkv", 3072),
        ],
        &[],
        &[],
    );
}

/// SD 3 has the encoders of SDXL, under the same names.
#[test]
fn loras_of_transformers_are_not_sdxls() {
    let (te1, te2) = (text("lora_te1_"), text("lora_te2_"));
    let flux = "lora_transformer_single_transformer_blocks_0_attn_to_q";
    for (other, name) in [
        ("transformer.transformer_blocks.0.attn.to_q", "Diffusion 3"),
        (
            "lora_transformer_transformer_blocks_0_attn_to_q",
            "Diffusion 3",
        ),
        (flux, "Flux"),
    ] {
        let lora = written(&[(&te1, 768), (&te2, 1280), (other, 64)], &[]);
        assert!(lora.open().unwrap().families().is_empty(), "{other}");
        let error = tiny(Family::Sdxl).with_loras(&[lora.at(1.0)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn another_familys_lora_is_refused_by_name() {
    let (te, te1, te2) = (text("lora_te_"), text("lora_te1_"), text("lora_te2_"));
    let flux = "lora_unet_double_blocks_0_img_attn_qkv";
    let check = |modules: &[(&str, usize)], family: Family, words: &[&str]| {
        let lora = written(modules, &[]).at(1.0);
        let error = tiny(family).with_loras(&[lora]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
        let text = error.to_string();
        for word in words {
            assert!(text.contains(word), "`{word}` is not in: {text}");
        }
    };
    check(
        &[(&te, 768)],
        Family::Sdxl,
        &["made for sd1", "this is sdxl"],
    );
    check(
        &[(&te1, 768), (&te2, 1280)],
        Family::Sd1,
        &["made for sdxl", "this is sd1"],
    );
    check(&[(&te, 1024)], Family::Sd1, &["made for sd2"]);
    check(
        &[(&te1, 768), (flux, 3072)],
        Family::Sd1,
        &["made for Flux"],
    );
}

/// Where a person insists, shapes still decide.
#[test]
fn any_family_can_be_allowed() {
    let named = ("modelspec.architecture", "stable-diffusion-xl-v1-base/lora");
    let lora = written(&[(&text("lora_te1_"), 128)], &[named]).at(1.0);
    let base = tiny(Family::Sd1);
    assert!(base.with_loras(std::slice::from_ref(&lora)).is_err());
    let text = base.with_loras(&[lora.for_any_family()]).unwrap();
    assert_eq!(text.lora_reports()[0].applied.len(), 1);
    assert!(
        text.lora_reports()[0]
            .notes
            .iter()
            .any(|note| note.contains("made for sdxl"))
    );
}
