//! What the two sides of a pair share, and texts that nothing reads.

use sd_conditioner::candle_core::Tensor;
use sd_conditioner::conditioner::Embeddings;
use sd_conditioner::prompt::schedule::Pass;
use sd_conditioner::prompt::{Note, NoteKind};
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Conditioning, Family, Profile, Request, SizeHints};

use crate::support::close::bits;
use crate::support::embeddings;
use crate::support::entries::Stored;

fn conditioner(family: Family) -> Conditioner {
    let text = Conditioner::builder().random_weights(family, SyntheticSize::Tiny, 73);
    text.unwrap()
}

#[track_caller]
fn same(ours: &Conditioning, theirs: &Conditioning) {
    let all = |one: &Conditioning| {
        let tensors = [Some(one.context()), one.pooled(), one.time_ids()];
        tensors.map(|tensor: Option<&Tensor>| tensor.map(bits))
    };
    assert!(all(ours) == all(theirs), "they differ");
}

/// A bare text was read in diffusers' manner, at 1024×1024.
#[test]
fn a_bare_negative_is_read_as_its_prompt() {
    let folder = tempfile::tempdir().unwrap();
    embeddings::write(folder.path(), Stored::F32);
    let set = Embeddings::folder(folder.path()).unwrap();
    let text = conditioner(Family::Sdxl);
    let fog = "(fog:1.3), embedding:synth-xl-two";
    for (profile, skip) in [(Profile::ComfyUi, -3), (Profile::A1111, 3)] {
        let of = |prompt| {
            let request = Request::new(prompt).profile(profile).clip_skip(skip);
            request.size(SizeHints::new(1216, 832)).embeddings(&set)
        };
        let told = text.encode_pair(of("a cat"), of(fog)).unwrap();
        let bare = text.encode_pair(of("a cat"), fog).unwrap();
        same(told.negative(), bare.negative());
        same(told.positive(), bare.positive());
        let planned = text.plan_pair(of("a cat"), fog).unwrap();
        let planned = text.encode_planned([&planned]).unwrap().remove(0);
        same(told.negative(), planned.negative());
        let pass = Pass::First { steps: 20 };
        let bare = text.encode_schedule_pair(&of("a cat"), &fog.into(), pass);
        let told = text.encode_schedule_pair(&of("a cat"), &of(fog), pass);
        let negative = |made: sd_conditioner::Result<[sd_conditioner::Timeline; 2]>| {
            let [_, negative] = made.unwrap();
            negative.parts[0].entries[0].conditioning.clone()
        };
        same(&negative(bare), &negative(told));
    }
}

#[test]
fn what_a_negative_sets_is_its_own() {
    let text = conditioner(Family::Sdxl);
    let comfy = Request::new("a cat").profile(Profile::ComfyUi);
    let comfy = comfy.clip_skip(-3).size(SizeHints::new(1216, 832));
    let own = Request::new("(fog:1.3)").profile(Profile::A1111);
    let own = own.size(SizeHints::new(640, 1536));
    let alone = text.encode(own.clone().as_negative()).unwrap();
    same(
        text.encode_pair(comfy.clone(), own).unwrap().negative(),
        &alone,
    );
    // Its profile, and the prompt's sizes.
    let half = Request::new("(fog:1.3)").profile(Profile::A1111);
    let made = text.encode_pair(comfy, half).unwrap();
    let sizes = made
        .negative()
        .time_ids()
        .unwrap()
        .to_vec2::<f32>()
        .unwrap();
    assert_eq!(sizes[0][..2], [832.0, 1216.0]);
    assert_eq!(bits(made.negative().context()), bits(alone.context()));
}

#[test]
fn scores_are_of_one_side() {
    let text = conditioner(Family::Refiner);
    let size = SizeHints {
        aesthetic_score: Some(7.0),
        ..SizeHints::new(1216, 832)
    };
    let made = text
        .encode_pair(Request::new("a cat").size(size), "fog")
        .unwrap();
    let scores = made
        .stacked()
        .unwrap()
        .time_ids()
        .unwrap()
        .to_vec2::<f32>()
        .unwrap();
    assert_eq!(scores[0], [832.0, 1216.0, 0.0, 0.0, 2.5]);
    assert_eq!(scores[1], [832.0, 1216.0, 0.0, 0.0, 7.0]);
}

/// The refiner's only encoder is the one that reads the second text in SDXL.
#[test]
fn a_second_text_without_an_encoder_is_told() {
    for family in Family::ALL {
        let text = conditioner(family);
        let two = text.encode(Request::per_encoder("a cat", "a dog")).unwrap();
        let unused = |note: &&Note| note.kind == NoteKind::Unused;
        let told: Vec<&Note> = two.notes().iter().filter(unused).collect();
        if family == Family::Sdxl {
            assert!(told.is_empty());
            continue;
        }
        let [note] = told[..] else {
            panic!("{family}: {told:?}");
        };
        let encoder = family.encoders()[0].tag();
        assert!(note.message.contains(encoder), "{}", note.message);
        same(&two, &text.encode("a cat").unwrap());
    }
}
