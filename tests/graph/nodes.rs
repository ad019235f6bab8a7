//! What nodes give when they are run.

use std::fs;

use sd_conditioner::candle_core::DType;
use sd_conditioner::graph::{Folder, entries_json};
use sd_conditioner::weights::EncoderId;
use sd_conditioner::{Conditioner, Emphasis, Profile, Request};
use serde_json::{Value, json};

use super::sessions::{plan, positive};
use super::support::{models, node, simple, with};
use crate::support::close::{bits, values};
use crate::support::entries::Stored;

#[test]
fn the_nodes_of_adv_clip_emb() {
    let encode = json!({
        "clip": ["1", 1], "text": "a (red:1.4) cat", "token_normalization": "length+mean",
        "weight_interpretation": "A1111",
    });
    let list = positive(&with(
        json!({"3": node("BNK_CLIPTextEncodeAdvanced", encode)}),
        "3",
    ));
    let checkpoint = models().join("checkpoints/v1-5-pruned-emaonly.safetensors");
    let text = Conditioner::open(checkpoint).unwrap();
    let emphasis = Emphasis::named("adv:length+mean:A1111").unwrap();
    let request = Request::new("a (red:1.4) cat")
        .profile(Profile::ComfyUi)
        .emphasis(emphasis);
    let want = text.encode(request).unwrap();
    let found = list.entries()[0].conditioning();
    assert_eq!(bits(found.context()), bits(want.context()));
    let encode = json!({
        "clip": ["4", 1], "text_l": "a (red:1.4) cat", "text_g": "b", "token_normalization": "none",
        "weight_interpretation": "comfy++", "balance": 0.7,
    });
    let sizes = json!({
        "conditioning": ["3", 0], "width": 8, "height": 16, "crop_w": 1, "crop_h": 2,
        "target_width": 3, "target_height": 4,
    });
    let refiner = json!({"conditioning": ["5", 0], "width": 9, "height": 10, "ascore": 6.5});
    let list = positive(&with(
        json!({
            "3": node("BNK_CLIPTextEncodeSDXLAdvanced", encode),
            "4": node("CheckpointLoaderSimple", json!({"ckpt_name": "sd_xl_base_1.0.safetensors"})),
            "5": node("BNK_AddCLIPSDXLParams", sizes),
            "6": node("BNK_AddCLIPSDXLRParams", refiner),
        }),
        "6",
    ));
    let want = json!([{
        "width": 9, "height": 10, "crop_w": 1, "crop_h": 2, "target_width": 3, "target_height": 4,
        "aesthetic_score": 6.5,
    }]);
    let found: Value = serde_json::from_str(&entries_json(&list)).unwrap();
    assert_eq!(found, want);
    let Some(Emphasis::Adv(mut adv)) = Emphasis::named("adv:none:comfy++") else {
        panic!("a method")
    };
    adv.balance = 0.7;
    let checkpoint = models().join("checkpoints/sd_xl_base_1.0.safetensors");
    let request = Request::per_encoder("a (red:1.4) cat", "b").profile(Profile::ComfyUi);
    let request = request.emphasis(Emphasis::Adv(adv));
    let want = Conditioner::open(checkpoint)
        .unwrap()
        .encode(request)
        .unwrap();
    let found = list.entries()[0].conditioning();
    assert_eq!(bits(found.context()), bits(want.context()));
}

#[test]
fn masks_areas_and_strengths() {
    let list = positive(&with(
        json!({
            "3": node("SolidMask", json!({"value": 0.25, "width": 16, "height": 8})),
            "4": node("InvertMask", json!({"mask": ["3", 0]})),
            "5": node("SolidMask", json!({"value": 1.0, "width": 4, "height": 4})),
            "6": node("MaskComposite", json!({"destination": ["4", 0], "source": ["5", 0],
                "x": 14, "y": 1, "operation": "subtract"})),
            "7": node("ConditioningSetMask", json!({"conditioning": ["2", 0], "mask": ["6", 0],
                "strength": 0.5, "set_cond_area": "mask bounds"})),
            "8": node("ConditioningSetAreaStrength",
                json!({"conditioning": ["7", 0], "strength": 2})),
            "10": node("ConditioningSetAreaPercentage", json!({"conditioning": ["2", 0],
                "width": 0.5, "height": 0.25, "x": 0.125, "y": 0, "strength": 1})),
            "11": node("ConditioningCombine",
                json!({"conditioning_1": ["8", 0], "conditioning_2": ["10", 0]})),
        }),
        "11",
    ));
    let want = json!([
        {"strength": 2.0, "set_area_to_bounds": true, "mask_strength": 0.5},
        {"area": ["percentage", 0.25, 0.5, 0.0, 0.125], "strength": 1.0,
            "set_area_to_bounds": false},
    ]);
    let found: Value = serde_json::from_str(&entries_json(&list)).unwrap();
    assert_eq!(found, want);
    let mask = list.entries()[0].mask().unwrap().tensor();
    assert_eq!(mask.dims(), [1, 8, 16]);
    let mask = values(mask);
    assert_eq!(mask[..16], [0.75; 16]);
    assert_eq!(mask[16..32][13..], [0.75, 0.0, 0.0]);
    assert_eq!(mask[5 * 16..], [0.75; 48]);
}

/// Values of `ComfyUI`'s `MaskComposite`, which rounds before it compares.
#[test]
fn masks_are_rounded_before_they_are_compared() {
    let masks = |first: f64, second: f64, operation: &str| {
        let solid = |value| {
            node(
                "SolidMask",
                json!({"value": value, "width": 8, "height": 8}),
            )
        };
        let both = json!({"destination": ["3", 0], "source": ["4", 0], "x": 0, "y": 0,
            "operation": operation});
        let set = json!({"conditioning": ["2", 0], "mask": ["5", 0], "strength": 1,
            "set_cond_area": "default"});
        let list = positive(&with(
            json!({
                "3": solid(first),
                "4": solid(second),
                "5": node("MaskComposite", both),
                "6": node("ConditioningSetMask", set),
            }),
            "6",
        ));
        values(list.entries()[0].mask().unwrap().tensor())[0] != 0.0
    };
    let cases = [
        (0.5, 1.0, [false, true, true]),
        (0.51, 1.0, [true, true, false]),
        (0.3, 0.5, [false, false, false]),
        (0.3, 0.6, [false, true, true]),
    ];
    for (first, second, want) in cases {
        let found = ["and", "or", "xor"].map(|operation| masks(first, second, operation));
        assert_eq!(found, want, "{first} {second}");
    }
}

#[test]
fn loaders_and_what_they_give() {
    let family = |nodes: Value, clip: Value| {
        let mut all = with(nodes, "2");
        all["2"]["inputs"]["clip"] = clip;
        positive(&all).entries()[0]
            .conditioning()
            .context()
            .dims()
            .to_vec()
    };
    let checkpoint = "v1-5-pruned-emaonly.safetensors";
    let one = json!({"3": node("unCLIPCheckpointLoader",
        json!({"ckpt_name": "v2-1_768-ema-pruned.safetensors"}))});
    assert_eq!(family(one, json!(["3", 1])), [1, 77, 192]);
    let two = json!({"3": node("DualCLIPLoader", json!({"clip_name1": "clip_g.safetensors",
        "clip_name2": "clip_l.safetensors", "type": "sdxl", "device": "default"}))});
    assert_eq!(family(two, json!(["3", 0])), [1, 77, 384]);
    let lone = json!({"3": node("CLIPLoader",
        json!({"clip_name": "clip_l.safetensors", "type": "stable_diffusion"}))});
    assert_eq!(family(lone, json!(["3", 0])), [1, 77, 128]);
    // A configuration with clip skip 2.
    let read = |config: &str, layer: i32| {
        let loader = json!({"config_name": config, "ckpt_name": checkpoint});
        let skip = json!({"clip": ["1", 1], "stop_at_clip_layer": layer});
        let encode = |clip: &str, slot: u32| {
            node("CLIPTextEncode", json!({"clip": [clip, slot], "text": "a"}))
        };
        let all = json!({
            "3": node("CheckpointLoader", loader), "4": node("CLIPSetLastLayer", skip),
            "5": encode("3", 1), "6": encode("4", 0),
            "7": node("ConditioningCombine",
                json!({"conditioning_1": ["5", 0], "conditioning_2": ["6", 0]})),
        });
        let list = positive(&with(all, "7"));
        let context = |place: usize| bits(list.entries()[place].conditioning().context());
        context(0) == context(1)
    };
    assert!(read("anything_v3.yaml", -2) && read("v1-inference.yaml", -1));
    assert!(!read("v1-inference.yaml", -2));
}

#[test]
fn diffusers_folders_and_data_types() {
    use crate::support::checkpoints::{Layout, write};
    let models = tempfile::tempdir().unwrap();
    let folder = models.path().join("diffusers/my-model");
    fs::create_dir_all(&folder).unwrap();
    let family = super::support::family("sdxl");
    write(&folder, family, Layout::Diffusers, Stored::F32, 73);
    let mut json = simple("a");
    json["1"] = node("DiffusersLoader", json!({"model_path": "my-model"}));
    let library = Folder::new(models.path()).output_dtype(DType::BF16);
    let list = plan(&json).run(&library).unwrap().remove(0);
    let context = list.entries()[0].conditioning().context();
    assert_eq!(
        (context.dims(), context.dtype()),
        (&[1, 77, 384][..], DType::BF16)
    );
    let encoders = library.dtype(DType::F16);
    let shared = sd_conditioner::graph::Library::load(
        &encoders,
        &sd_conditioner::graph::ClipSource::Diffusers("my-model".to_owned()),
    );
    let shared = shared.unwrap();
    assert_eq!(shared.dtype(), DType::F16);
    assert_eq!(
        shared.encoders().next().unwrap().config().encoder,
        EncoderId::ClipL
    );
}
