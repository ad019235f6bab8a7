//! 16-bit weights against f32: no farther than `PyTorch`'s own half precision.

use sd_conditioner::candle_core::DType;
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, ErrorKind, Family, Profile, Request, SizeHints};

use crate::support::close::{Distance, distance};

/// Relative error and cosine that `PyTorch` 2.11 itself has against its f32, on full-size weights of
/// the same rule (hidden states of ViT-L, the best of its three towers; pooled likewise).
const BARS: [(DType, f64, f64); 2] = [
    (DType::F16, 1.6e-3, 0.999_997_5),
    (DType::BF16, 1.4e-2, 0.999_85),
];

fn load(family: Family, dtype: DType) -> Conditioner {
    Conditioner::builder()
        .dtype(dtype)
        .output_dtype(DType::F32)
        .random_weights(family, SyntheticSize::Tiny, 73)
        .unwrap()
}

fn check(what: &str, found: Distance, (_, relative, cosine): (DType, f64, f64)) {
    println!("{what}: {found:?}");
    assert!(found.relative <= relative, "{what}: {found:?}");
    assert!(found.cosine >= cosine, "{what}: {found:?}");
    assert!(found.max_abs > 0.0, "{what}: the type made no difference");
}

#[test]
fn sixteen_bits_are_close_to_f32() {
    let text = "A lighthouse on a cliff at dusk, long exposure, drifting fog";
    for family in Family::ALL {
        let exact = load(family, DType::F32).encode(text).unwrap();
        for bar in BARS {
            let rounded = load(family, bar.0).encode(text).unwrap();
            let what = format!("{family} {:?}", bar.0);
            check(&what, distance(rounded.context(), exact.context()), bar);
            if let Some((ours, exact)) = rounded.pooled().zip(exact.pooled()) {
                check(&format!("{what} pooled"), distance(ours, exact), bar);
            }
        }
    }
}

/// f16 ends at 65504; what is larger became infinite, and the vector NaN.
#[test]
fn a_size_that_the_type_cannot_hold_is_refused() {
    let request = |profile| {
        let request = Request::new("a cat").profile(profile);
        request.size(SizeHints::new(70_000, 1024))
    };
    let half = load(Family::Sdxl, DType::F16);
    for profile in [Profile::Diffusers, Profile::A1111] {
        let error = half.encode(request(profile)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request);
        assert!(error.message().contains("70000"), "{error}");
        assert!(error.message().contains("f16"), "{error}");
        let wide = load(Family::Sdxl, DType::BF16);
        assert!(wide.encode(request(profile)).is_ok());
    }
    let made = half.encode(request(Profile::ComfyUi)).unwrap();
    let vector = made.vector().unwrap().unwrap().flatten_all().unwrap();
    let vector = vector.to_vec1::<f32>().unwrap();
    assert!(vector.iter().all(|value| value.is_finite()));
}
