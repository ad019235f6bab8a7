//! Results that are not finite: the tools give them, so they are given, and told.

use sd_conditioner::candle_core::DType;
use sd_conditioner::prompt::NoteKind;
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Conditioning, Family, Profile, Request};

fn text(family: Family) -> Conditioner {
    let text = Conditioner::builder().random_weights(family, SyntheticSize::Tiny, 73);
    text.unwrap()
}

/// Whether a note says so.
fn is_told(made: &Conditioning) -> bool {
    let mut notes = made.notes().iter();
    notes.any(|note| note.kind == NoteKind::Strength && note.message.contains("not finite"))
}

#[test]
fn results_that_are_not_finite_are_told() {
    // A1111 reads no exponents.
    let digits = format!("a (cat:1{})", "0".repeat(39));
    let cases = [
        (Profile::Compel, r#"("cat", "dog").blend(1, -1)"#),
        (Profile::Compel, r#"("cat", "dog").blend(0, 0)"#),
        (Profile::ComfyUi, "a (cat:1e39)"),
        (Profile::A1111, &digits),
    ];
    for family in [Family::Sd1, Family::Sdxl] {
        let text = text(family);
        for (profile, prompt) in cases {
            let request = Request::new(prompt).profile(profile);
            let all = [
                text.encode(request.clone()).unwrap(),
                text.encode_pair(request.clone(), "")
                    .unwrap()
                    .positive()
                    .clone(),
                text.encode_batch(&[request]).unwrap().remove(0),
            ];
            for made in all {
                assert!(!made.is_finite().unwrap(), "{profile} {prompt}");
                assert!(is_told(&made), "{profile} {prompt}: {:?}", made.notes());
            }
            let plain = text.encode(Request::new("a cat").profile(profile)).unwrap();
            assert!(plain.is_finite().unwrap() && !is_told(&plain));
        }
    }
}

/// f16 ends at 65504.
#[test]
fn what_only_the_output_type_makes_infinite_is_told() {
    let request = Request::new("a (cat:1e7)").profile(Profile::ComfyUi);
    for (dtype, is_finite) in [(DType::F32, true), (DType::F16, false)] {
        let text = Conditioner::builder().output_dtype(dtype);
        let text = text.random_weights(Family::Sd1, SyntheticSize::Tiny, 73);
        let made = text.unwrap().encode(request.clone()).unwrap();
        assert_eq!(made.is_finite().unwrap(), is_finite);
        assert_eq!(is_told(&made), !is_finite);
    }
}
