//! Conditionings whose parts a caller has put together.

use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::{Conditioning, ErrorKind, Family, Guidance};

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
