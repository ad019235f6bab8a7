//! A least number of windows: what comes behind a short prompt, and what does not change.

use sd_conditioner::candle_core::Tensor;
use sd_conditioner::tokens::Split;
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Family, Profile, Request};

use crate::support::close::bits;

fn conditioner(family: Family) -> Conditioner {
    let text = Conditioner::builder().random_weights(family, SyntheticSize::Tiny, 73);
    text.unwrap()
}

/// So many windows' rows from this window on.
fn windows_of(context: &Tensor, first: usize, count: usize) -> Tensor {
    context.narrow(1, 77 * first, 77 * count).unwrap()
}

#[test]
fn empty_windows_follow_a_short_prompt() {
    let profiles = [
        Profile::Diffusers,
        Profile::ComfyUi,
        Profile::A1111,
        Profile::Forge,
        Profile::Compel,
        Profile::SdCpp,
        Profile::Plain,
    ];
    for family in [Family::Sd1, Family::Sd2, Family::Sdxl, Family::Refiner] {
        let text = conditioner(family);
        for profile in profiles {
            let of = |prompt| Request::new(prompt).profile(profile);
            let own = text.encode(of("a (cat:1.3)")).unwrap();
            let empty = text.encode(of("")).unwrap();
            let filled = text.encode(of("a (cat:1.3)").least_windows(3)).unwrap();
            let what = format!("{family} {profile:?}");
            assert_eq!(filled.context().dims()[1], 231, "{what}");
            let first = windows_of(filled.context(), 0, 1);
            assert!(bits(&first) == bits(own.context()), "{what}");
            for window in [1, 2] {
                let behind = windows_of(filled.context(), window, 1);
                assert!(bits(&behind) == bits(empty.context()), "{what} {window}");
            }
            assert_eq!(filled.pooled().map(bits), own.pooled().map(bits), "{what}");
        }
    }
}

#[test]
fn invokeai_fills_with_zeros_and_long_prompts_stay() {
    let text = conditioner(Family::Sdxl);
    let of = |prompt| Request::new(prompt).profile(Profile::InvokeAi);
    let filled = text.encode(of("a cat").least_windows(2)).unwrap();
    let behind = windows_of(filled.context(), 1, 1);
    assert!(
        behind
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
            .iter()
            .all(|one| *one == 0.0)
    );
    let long = "a very long tale of cats, ".repeat(30);
    let of = |least| {
        Request::new(&long)
            .profile(Profile::ComfyUi)
            .least_windows(least)
    };
    let [own, same, more] = [0, 2, 9].map(|least| text.encode(of(least)).unwrap());
    assert!(own.context().dims()[1] > 154);
    assert!(bits(own.context()) == bits(same.context()));
    assert_eq!(more.context().dims()[1], 693);
}

#[test]
fn both_sides_have_them_planned_or_not() {
    let text = conditioner(Family::Sd1);
    for profile in [Profile::Diffusers, Profile::A1111, Profile::Compel] {
        let of = |prompt| Request::new(prompt).profile(profile);
        let pair = text
            .encode_pair(of("a cat").least_windows(2), "fog")
            .unwrap();
        let [cat, fog] =
            ["a cat", "fog"].map(|prompt| text.encode(of(prompt).least_windows(2)).unwrap());
        assert!(
            bits(pair.positive().context()) == bits(cat.context()),
            "{profile:?}"
        );
        assert!(
            bits(pair.negative().context()) == bits(fog.context()),
            "{profile:?}"
        );
        let planned = text.plan_pair(of("a cat").least_windows(2), "fog").unwrap();
        let planned = text.encode_planned([&planned]).unwrap().remove(0);
        assert!(
            bits(planned.positive().context()) == bits(cat.context()),
            "{profile:?}"
        );
    }
}

/// As the tools repeat sides of two and three windows, nine would be too many of a least three.
#[test]
fn sides_are_filled_and_not_repeated() {
    let text = conditioner(Family::Sd1);
    let long = "a very long tale of cats, ".repeat(22);
    for profile in [Profile::A1111, Profile::Forge] {
        let request = Request::new(&long).profile(profile);
        let own = text.encode_pair(request.clone(), "fog").unwrap();
        let windows = own.positive().tokens() / 77;
        assert!(windows > 2, "{windows}");
        let filled = text.encode_pair(request.least_windows(2), "fog").unwrap();
        for side in [filled.positive(), filled.negative()] {
            assert_eq!(side.tokens(), 77 * windows);
        }
        let fog = Request::new("fog").profile(profile).least_windows(3);
        let fog = text.encode(fog).unwrap();
        let own = windows_of(filled.negative().context(), 0, 3);
        assert!(bits(&own) == bits(&windows_of(fog.context(), 0, 3)));
    }
}

#[test]
fn what_cannot_be_filled_is_told() {
    let text = conditioner(Family::Sdxl);
    let of = |least| {
        Request::new("a cat")
            .split(Split::LpwSdxl)
            .least_windows(least)
    };
    let [own, filled] = [0, 3].map(|least| text.encode(of(least)).unwrap());
    assert!(bits(own.context()) == bits(filled.context()));
    let told = filled
        .notes()
        .iter()
        .any(|note| note.message.contains("least number"));
    assert!(
        told && !own
            .notes()
            .iter()
            .any(|note| note.message.contains("least number"))
    );
}
