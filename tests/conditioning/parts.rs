//! Conditionings whose parts a caller has put together.

use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Conditioning, ErrorKind, Family, Guidance, Profile, Request};

use crate::support::close::bits;

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}

fn of(family: Family, has_pooled: bool, has_sizes: bool) -> Conditioning {
    let pooled = has_pooled.then(|| zeros(&[1, 4]));
    let sizes = has_sizes.then(|| zeros(&[1, 6]));
    Conditioning::new(family, zeros(&[1, 77, 8]), pooled, sizes).unwrap()
}

/// A batch would leave out what only one side has.
#[test]
fn what_only_one_side_has_is_refused() {
    let cases = [
        ((false, true), "positive side has no pooled vector"),
        ((true, false), "positive side has no size numbers"),
    ];
    for ((has_pooled, has_sizes), told) in cases {
        for family in [Family::Sd1, Family::Sdxl] {
            let (less, whole) = (of(family, has_pooled, has_sizes), of(family, true, true));
            let stacked = |positive: &Conditioning, negative: &Conditioning| {
                Guidance::new(positive.clone(), negative.clone()).and_then(|both| both.stacked())
            };
            let error = stacked(&less, &whole).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Mismatch);
            assert!(error.message().contains(told), "{error}");
            assert!(error.hint_text().is_some());
            let told = told.replace("positive", "negative");
            let error = stacked(&whole, &less).unwrap_err();
            assert!(error.message().contains(&told), "{error}");
            assert!(stacked(&less, &less).is_ok() && stacked(&whole, &whole).is_ok());
        }
    }
}

/// SD 1's U-Net takes no pooled vector, so apart both sides are whole; SDXL's takes it.
#[test]
fn sides_stay_apart_where_nobody_takes_the_rest() {
    let apart = |family| Guidance::new(of(family, true, false), of(family, false, false));
    assert!(apart(Family::Sd1).is_ok());
    assert_eq!(apart(Family::Sdxl).unwrap_err().kind(), ErrorKind::Mismatch);
}

/// It was blamed on the device, and the message had a backtrace where they are switched on.
#[test]
fn a_wrong_shape_is_no_failure_of_a_device() {
    let cases = [
        (zeros(&[77, 8]), None, "context"),
        (zeros(&[1, 77, 8]), Some(zeros(&[8])), "pooled"),
    ];
    for (context, pooled, name) in cases {
        let error = Conditioning::new(Family::Sdxl, context, pooled, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TensorShape);
        assert_eq!(error.tensor(), Some(name));
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
    }
}

#[test]
fn only_sdxl_and_its_refiner_have_a_vector() {
    for family in Family::ALL {
        let takes_one = matches!(family, Family::Sdxl | Family::Refiner);
        let vector = of(family, true, true).vector().unwrap();
        assert_eq!(vector.is_some(), takes_one, "{family}");
        assert!(of(family, true, false).vector().unwrap().is_none());
    }
}

/// In the numbering that the caller used.
#[test]
fn a_clip_skip_that_does_not_exist_is_told_in_the_callers_numbers() {
    use Family::{Sd1, Sdxl};
    let cases = [
        (
            Profile::Diffusers,
            Sd1,
            99,
            "diffusers' clip skip 99",
            "0 to",
        ),
        (
            Profile::Diffusers,
            Sdxl,
            99,
            "diffusers' clip skip 99",
            "0 to",
        ),
        (Profile::A1111, Sd1, 99, "A1111's clip skip 99", "1 to"),
        (Profile::Forge, Sdxl, 99, "Forge's clip skip 99", "1 to"),
        (
            Profile::Diffusers,
            Sd1,
            -3,
            "clip skip -3",
            "diffusers 0, 1",
        ),
    ];
    for (profile, family, number, told, hint) in cases {
        let text = Conditioner::builder().random_weights(family, SyntheticSize::Tiny, 73);
        let text = text.unwrap();
        let asked = |number| text.encode(Request::new("a").profile(profile).clip_skip(number));
        let error = asked(number).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request);
        assert!(error.message().contains(told), "{error}");
        let said = error.hint_text().unwrap();
        assert!(said.contains(hint), "{error}");
        // The numbers that are named are the first and the last that are taken.
        let Some(numbers) = said.strip_prefix("take one from ") else {
            continue;
        };
        let (first, last) = numbers.split_once(" to ").unwrap();
        let [first, last] = [first, last].map(|one| one.parse::<i32>().unwrap());
        let taken = [first - 1, first, last, last + 1].map(|number| asked(number).is_ok());
        assert_eq!(taken, [false, true, true, false], "{error}");
    }
}

/// Its loop over the layers then finds no end.
#[test]
fn stable_diffusion_cpp_skips_nothing_where_it_skips_too_much() {
    let text = Conditioner::builder().random_weights(Family::Sd1, SyntheticSize::Tiny, 73);
    let text = text.unwrap();
    let of = |number| {
        let request = Request::new("a barn").profile(Profile::SdCpp);
        let made = text.encode(request.clip_skip(number)).unwrap();
        bits(made.context())
    };
    assert!(of(5) == of(1));
    assert!(of(99) == of(1));
    assert!(of(4) != of(1));
    assert!(of(4) != of(3));
}
