//! The encoders alone, against `open_clip`: last state, the one before with and without the final
//! norm, pooled and projected.

use sd_conditioner::encoder::{Pooled, Readout, Window};
use sd_conditioner::tokens::{
    ChunkRule, Chunks, Cleaner, PoolAt, Split, TokenRule, Tokenizer, Trigger,
};
use sd_conditioner::weights::EncoderId;
use sd_conditioner::{Conditioner, Dialect, Prompt};
use serde_json::json;

use super::{Loaded, manifest_name};
use crate::support::close::distance;
use crate::support::golden::{Case, Goldens};

/// `open_clip` pads every tower with zeros and cleans with ftfy.
const RULE: ChunkRule = ChunkRule {
    tokens: TokenRule {
        cleaner: Cleaner::OpenClip,
        bang_is_special: false,
    },
    padding: 0,
    split: Split::Truncate,
    trigger: Trigger::None,
    pool_at: PoolAt::FirstEnd,
    refill: false,
};

fn readout(case: &Case, layers: usize) -> Readout {
    let (layer, final_norm) = match case.option("layer").and_then(|name| name.as_str()) {
        Some("last") => (layers, true),
        Some("penultimate") => (layers - 1, true),
        Some("penultimate_raw") => (layers - 1, false),
        other => panic!("no layer {other:?}"),
    };
    Readout {
        layer,
        final_norm,
        pooled: Pooled::Projected,
        pooled_layer: layers,
    }
}

/// Both sides of a case in one forward; the largest relative error.
fn check(goldens: &Goldens, conditioner: &Conditioner, case: &Case) -> f64 {
    let encoder = case.option("encoder").unwrap();
    let is_meant = |id: EncoderId| json!(manifest_name(id)) == *encoder;
    let mut towers = conditioner.encoders();
    let clip = towers
        .find(|clip| is_meant(clip.config().encoder))
        .expect("the family has it");
    let sides = [("positive", &case.positive), ("negative", &case.negative)];
    let chunks = sides.map(|(_, text)| {
        let prompt = Prompt::parse(text.as_str().unwrap(), Dialect::Plain);
        Chunks::of(&prompt, Tokenizer::clip(), RULE)
    });
    let windows: Vec<Window<'_>> = chunks.iter().flatten().map(Window::from).collect();
    let readout = readout(case, clip.config().full_layers);
    let encoded = clip.encode(&windows, &[readout; 2]).unwrap();
    let mut largest = 0.0_f64;
    for (index, (name, _)) in sides.into_iter().enumerate() {
        let ids = json!([windows[index].chunk().ids().to_vec()]);
        assert_eq!(case.tokens[name][encoder.as_str().unwrap()]["ids"], ids);
        let hidden = encoded.hidden.narrow(0, index, 1).unwrap();
        let pooled = encoded.pooled(Pooled::Projected).unwrap();
        let pooled = pooled.narrow(0, index, 1).unwrap();
        for (part, ours) in [("hidden_states", hidden), ("pooled", pooled)] {
            let (theirs, ours) = goldens.rows(&case.tensors[&format!("{name}.{part}")], &ours);
            let found = distance(&ours, &theirs);
            let allowed = case.tolerance.rel_f32;
            assert!(
                found.relative <= allowed,
                "{} {name}.{part}: {found:?}",
                case.id
            );
            largest = largest.max(found.relative);
        }
    }
    largest
}

#[test]
fn every_tower_equals_open_clip() {
    let goldens = Goldens::load(&["open_clip"]);
    let mut loaded = Loaded::new(goldens.manifest.seed);
    let mut largest = 0.0_f64;
    for case in &goldens.manifest.cases {
        let conditioner = loaded.get(case.family(), "open-clip");
        largest = largest.max(check(&goldens, conditioner, case));
    }
    println!("open_clip: largest relative error {largest:e}");
    assert_eq!(goldens.manifest.cases.len(), 20);
}
