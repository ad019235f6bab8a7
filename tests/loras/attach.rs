//! A conditioner with `LoRA`s and the one it was made from.

use std::cell::Cell;

use sd_conditioner::candle_core::DType;
use sd_conditioner::prompt::NoteKind;
use sd_conditioner::weights::{EncoderId, Inspected, SyntheticSize};
use sd_conditioner::{Conditioner, ErrorKind, Family};

use super::plain::Plain;
use super::{SEED, Written, entry, exact, scalar, tensors, tiny, write};
use crate::support::close::bits;
use crate::support::entries::{Entry, Stored};
use crate::support::loras;

const MODULE: &str = "lora_te_text_model_encoder_layers_0_mlp_fc1";
const WEIGHT: &str = "clip_l.layers.0.fc1.weight";

/// All modules of a family, from the rule of the reference files.
fn everywhere(family: Family, naming: &str) -> Written {
    write(&loras::entries(
        family,
        SyntheticSize::Tiny,
        naming,
        (SEED, Stored::F32),
    ))
}

/// As in the tools; here a note says so.
#[test]
fn a_strength_that_leaves_nothing_is_told() {
    let (text, lora) = (tiny(Family::Sd1), everywhere(Family::Sd1, "kohya"));
    for (strength, is_finite) in [(1.0, true), (1e38, false)] {
        let worn = text.with_loras(&[lora.at(strength)]).unwrap();
        let made = worn.encode("a lighthouse at dusk").unwrap();
        assert_eq!(made.is_finite().unwrap(), is_finite);
        let mut notes = made.notes().iter();
        let is_told = notes.any(|note| note.kind == NoteKind::Strength);
        assert_eq!(is_told, !is_finite, "{:?}", made.notes());
    }
}

fn encoded(text: &Conditioner) -> Vec<u32> {
    bits(text.encode("a lighthouse at dusk").unwrap().context())
}

/// Two conditioners have the same bits in every tensor.
#[track_caller]
fn assert_same(one: &Conditioner, other: &Conditioner) {
    let (one, other) = (tensors(one), tensors(other));
    assert!(one.keys().eq(other.keys()));
    for (name, tensor) in &one {
        assert_eq!(tensor.dtype(), other[name].dtype(), "{name}");
        assert!(exact(tensor) == exact(&other[name]), "{name} differs");
    }
}

/// The handle that it was asked of stays as it is.
#[test]
fn putting_on_stops_when_the_caller_asks() {
    let (text, lora) = (tiny(Family::Sdxl), everywhere(Family::Sdxl, "kohya"));
    let (before, loras) = (encoded(&text), [lora.at(0.8)]);
    let asked = Cell::new(0);
    let stopping_at = |most: usize| {
        asked.set(0);
        text.with_loras_unless(&loras, &|| asked.replace(asked.get() + 1) == most)
    };
    drop(stopping_at(usize::MAX).unwrap());
    let most = asked.get();
    for at in [0, most / 2, most - 1] {
        assert_eq!(stopping_at(at).unwrap_err().kind(), ErrorKind::Stopped);
        assert_eq!(asked.get(), at + 1);
    }
    assert_eq!(encoded(&text), before);
}

#[test]
fn taking_away_and_weighting_anew_leave_nothing_behind() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let load = || {
            let builder = Conditioner::builder().dtype(dtype).output_dtype(DType::F32);
            let family = Family::Sdxl;
            builder
                .random_weights(family, SyntheticSize::Tiny, SEED)
                .unwrap()
        };
        let (one, two) = (
            everywhere(Family::Sdxl, "kohya"),
            everywhere(Family::Sdxl, "peft"),
        );
        let (base, fresh) = (load(), load());
        let (before, fingerprint) = (encoded(&base), base.fingerprint().to_owned());
        let both = base.with_loras(&[one.at(0.8), two.at(-0.3)]).unwrap();
        assert_ne!(encoded(&both), before);
        assert_ne!(both.fingerprint(), fingerprint);
        assert_eq!(both.lora_reports().len(), 2);
        let again = both.with_loras(&[two.at(0.5)]).unwrap();
        assert_same(&again, &fresh.with_loras(&[two.at(0.5)]).unwrap());
        let none = again.with_loras(&[]).unwrap();
        assert_same(&none, &fresh);
        assert_eq!(encoded(&none), before);
        assert_eq!(none.fingerprint(), fingerprint);
        assert!(none.lora_reports().is_empty());
        assert_eq!(encoded(&base), before, "the base was touched");
    }
}

#[test]
fn a_strength_of_zero_changes_nothing() {
    let base = tiny(Family::Sd1);
    let lora = everywhere(Family::Sd1, "kohya");
    assert_same(&base.with_loras(&[lora.at(0.0)]).unwrap(), &base);
}

#[test]
fn untouched_tensors_are_shared() {
    let lora = write(&[entry(&format!("{MODULE}.diff"), &[512, 128], 0.1)]);
    let base = tiny(Family::Sd1);
    let changed = base.with_loras(&[lora.at(1.0)]).unwrap();
    let (one, other) = (tensors(&base), tensors(&changed));
    for name in [
        "clip_l.token_embedding",
        "clip_l.layers.1.fc1.weight",
        "clip_l.layers.0.fc2.weight",
    ] {
        assert_eq!(one[name].id(), other[name].id(), "{name} was copied");
    }
    assert_ne!(one[WEIGHT].id(), other[WEIGHT].id());
}

/// q, k and v are kept as one matrix; each must change its own third.
#[test]
fn every_module_changes_its_own_tensor() {
    let base = tiny(Family::Sd1);
    let before = tensors(&base);
    for (canonical, path) in loras::MODULES {
        let module = format!(
            "lora_te_text_model_encoder_layers_1_{}",
            path.replace('.', "_")
        );
        let weight = format!("clip_l.layers.1.{canonical}.weight");
        let shape = before[&weight].dims().to_vec();
        let written = write(&[entry(&format!("{module}.diff"), &shape, 0.1)]);
        let after = tensors(&base.with_loras(&[written.at(1.0)]).unwrap());
        for (name, tensor) in &after {
            let same = exact(tensor) == exact(&before[name]);
            assert_eq!(same, *name != weight, "{path}: {name}");
        }
    }
}

#[test]
fn several_add_up_in_their_order() {
    let diff = |scale: f64| write(&[entry(&format!("{MODULE}.diff"), &[512, 128], scale)]);
    let (one, two) = (diff(0.1), diff(0.02));
    let base = tiny(Family::Sd1);
    let both = base
        .with_loras(&[one.at(0.5), two.at(2.0), one.at(0.25)])
        .unwrap();
    let delta = Plain::stored(&format!("{MODULE}.diff"), 512, 128, 1.0);
    let want = Plain::of(&tensors(&base)[WEIGHT]).plus(&delta.scaled(0.05 + 0.04 + 0.025));
    want.assert_near("three", &Plain::of(&tensors(&both)[WEIGHT]), 3e-6);
    // What sets a weight sees what came before; what comes after sees the set weight.
    let set = write(&[entry(&format!("{MODULE}.set_weight"), &[512, 128], 0.3)]);
    let last = base.with_loras(&[one.at(1.0), set.at(1.0)]).unwrap();
    let first = base.with_loras(&[set.at(1.0), one.at(1.0)]).unwrap();
    let stored = Plain::stored(&format!("{MODULE}.set_weight"), 512, 128, 0.3);
    stored.assert_near("set last", &Plain::of(&tensors(&last)[WEIGHT]), 1e-7);
    let moved = stored.plus(&delta.scaled(0.1));
    moved.assert_near("set first", &Plain::of(&tensors(&first)[WEIGHT]), 3e-6);
}

#[test]
fn each_encoder_has_its_strength() {
    let base = tiny(Family::Sdxl);
    let lora = everywhere(Family::Sdxl, "kohya").open().unwrap();
    let (all, second) = (lora.at(0.8), lora.at_each(0.0, 0.8));
    let (all, second) = (
        base.with_loras(&[all]).unwrap(),
        base.with_loras(&[second]).unwrap(),
    );
    let (before, all, second) = (tensors(&base), tensors(&all), tensors(&second));
    let (l, g) = ("clip_l.layers.0.q.weight", "clip_g.layers.0.q.weight");
    assert!(exact(&second[l]) == exact(&before[l]) && exact(&second[g]) == exact(&all[g]));
    assert!(exact(&all[l]) != exact(&before[l]));
}

/// The three namings of the reference files hold the same matrices; kohya's have alpha 2 at rank 4.
#[test]
fn namings_agree() {
    let base = tiny(Family::Sdxl);
    let changed = |naming: &str, strength: f64| {
        let lora = everywhere(Family::Sdxl, naming);
        base.with_loras(&[lora.at(strength)]).unwrap()
    };
    assert_same(&changed("kohya", 1.0), &changed("peft", 0.5));
    assert_same(&changed("peft", 0.7), &changed("diffusers", 0.7));
    // One file may have both styles, and the names that transformers 5.6 gives.
    let mixed = loras::entries(
        Family::Sdxl,
        SyntheticSize::Tiny,
        "peft",
        (SEED, Stored::F32),
    );
    let mixed: Vec<Entry> = mixed.into_iter().map(restyled).collect();
    let mixed = base.with_loras(&[write(&mixed).at(0.7)]).unwrap();
    assert_same(&mixed, &changed("peft", 0.7));
}

/// Attention in the style of 2023's processors, the rest flat.
fn restyled(mut entry: Entry) -> Entry {
    let name = &entry.name;
    entry.name = if name.contains("self_attn") {
        let name = name
            .replace("_proj.lora_A.", "_lora.down.")
            .replace("_proj.lora_B.", "_lora.up.");
        name.replace("self_attn.", "self_attn.to_")
    } else {
        name.replace("text_model.", "")
    };
    entry
}

#[test]
fn a_report_says_what_became_of_a_file() {
    let mut entries = loras::entries(
        Family::Sd2,
        SyntheticSize::Tiny,
        "kohya",
        (SEED, Stored::F32),
    );
    let layer = "lora_te_text_model_encoder_layers_23_mlp_fc1";
    entries.push(entry(&format!("{layer}.lora_down.weight"), &[4, 192], 0.1));
    entries.push(entry(&format!("{layer}.lora_up.weight"), &[768, 4], 0.1));
    entries.push(scalar(
        "lora_te_text_model_encoder_layers_0_mlp_fc9.alpha",
        1.0,
    ));
    entries.push(scalar("mystery", 1.0));
    entries.push(entry(
        "lora_te3_encoder_block_0_layer_0_DenseReluDense_wo.lora_up.weight",
        &[8, 4],
        1.0,
    ));
    let base = tiny(Family::Sd2);
    let text = base.with_loras(&[write(&entries).at(0.8)]).unwrap();
    let [report] = text.lora_reports() else {
        panic!("one report")
    };
    assert_eq!(report.applied[&EncoderId::OpenClipH], 4 * 6);
    assert_eq!(report.kinds["LoRA"], 4 * 6);
    assert_eq!(report.names["kohya"], 4 * 6 + 2);
    assert_eq!((report.skipped["unet"], report.skipped["t5"]), (1, 1));
    assert_eq!(report.unknown, ["mystery"]);
    assert_eq!(
        report.strengths[&EncoderId::OpenClipH].to_bits(),
        0.8_f64.to_bits()
    );
    let unmatched: Vec<String> = report
        .unmatched
        .iter()
        .map(|one| format!("{}: {}", one.module, one.reason))
        .collect();
    assert_eq!(unmatched.len(), 2, "{unmatched:?}");
    assert!(
        unmatched[0].contains("fc9") && unmatched[0].contains("no module"),
        "{unmatched:?}"
    );
    assert!(
        unmatched[1].contains("layer 23") && unmatched[1].contains("0 to 3"),
        "{unmatched:?}"
    );
    assert!(!report.is_without_effect());
}

#[test]
fn a_file_for_the_unet_alone_is_no_error() {
    let unet = "lora_unet_mid_block_attentions_0_proj_in";
    let written = write(&[
        entry(&format!("{unet}.lora_down.weight"), &[4, 64], 0.1),
        entry(&format!("{unet}.lora_up.weight"), &[64, 4], 0.1),
    ]);
    let base = tiny(Family::Sd1);
    let text = base.with_loras(&[written.at(1.0)]).unwrap();
    let report = &text.lora_reports()[0];
    assert!(report.is_without_effect() && report.skipped["unet"] == 1);
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains("no modules of text")),
        "{report:?}"
    );
    assert_same(&text, &base);
}

#[test]
fn a_summary_needs_no_encoder() {
    let written = everywhere(Family::Sdxl, "kohya");
    let inspected = Inspected::open(written.open().unwrap().path(), None).unwrap();
    let Inspected::Lora(summary) = inspected else {
        panic!("a LoRA")
    };
    assert_eq!(summary.families, [Family::Sdxl]);
    assert_eq!(
        (summary.modules["lora_te1_"], summary.modules["lora_te2_"]),
        (18, 24)
    );
    assert_eq!((summary.kinds["LoRA"], summary.ranks[&4]), (42, 42));
    assert_eq!(
        (summary.n_tensors, summary.stored["F32"]),
        (42 * 3 + 2, 42 * 3 + 2)
    );
    assert_eq!(summary.report.skipped["unet"], 1);
    assert!(summary.made_for.contains("sdxl"), "{}", summary.made_for);
}
