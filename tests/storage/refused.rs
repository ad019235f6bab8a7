//! What would be lost in a file, and what a file must not say.

use std::collections::{BTreeMap, HashMap};

use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::conditioning::{Area, Sizes};
use sd_conditioner::storage::diffusers::Saved;
use sd_conditioner::storage::{comfyui, diffusers, kohya};
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{
    Conditioner, Conditioning, ConditioningList, ErrorKind, Family, Request, Result, SizeHints,
};

use super::pair;

/// 16 bits hold neither 3001 nor 1217 (bf16) pixels.
#[test]
fn sizes_are_never_rounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sized.safetensors");
    let text = Conditioner::builder().random_weights(Family::Sdxl, SyntheticSize::Tiny, 73);
    let request = Request::new("a cat").size(SizeHints::new(3001, 1217));
    let positive = text.unwrap().encode(request).unwrap();
    let saved = Saved {
        positive,
        negative: None,
        metadata: BTreeMap::new(),
    };
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        diffusers::save(&path, &saved, dtype).unwrap();
        let read = diffusers::load(&path).unwrap().positive;
        let ids = read.time_ids().unwrap().flatten_all().unwrap();
        let want = [1217.0, 3001.0, 0.0, 0.0, 1217.0, 3001.0];
        assert_eq!(ids.to_vec1::<f32>().unwrap(), want, "{dtype:?}");
        assert_eq!(read.context().dtype(), dtype);
    }
}

/// Integers would hold nothing of it, and f64 is not read back.
#[test]
fn types_that_are_not_read_back_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let positive = pair(Family::Sdxl, "a", "").positive().clone();
    let saved = Saved {
        positive: positive.clone(),
        negative: None,
        metadata: BTreeMap::new(),
    };
    let list = ConditioningList::from(positive.clone());
    for dtype in [DType::U8, DType::U32, DType::I64, DType::F64] {
        let refused = [
            diffusers::save(&path, &saved, dtype),
            comfyui::save(&path, &list, dtype),
            kohya::save(&path, &positive, dtype),
        ];
        for error in refused.map(Result::unwrap_err) {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{dtype:?}");
            assert_eq!(error.path(), Some(&*path));
            assert!(error.message().contains(dtype.as_str()), "{error}");
            assert!(error.hint_text().unwrap().contains("f32"), "{error}");
        }
    }
    assert!(!path.exists());
}

/// The channels were blamed, which were right.
#[test]
fn a_family_that_nobody_knows_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("theirs.safetensors");
    let rows = Tensor::zeros((1, 77, 2048), DType::F32, &Device::Cpu).unwrap();
    let metadata = HashMap::from([("family".to_owned(), "SDXL".to_owned())]);
    safetensors::serialize_to_file([("prompt_embeds", rows)], Some(metadata), &path).unwrap();
    let error = diffusers::load(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FileFormat);
    let told = error.to_string();
    assert!(
        told.contains("\"SDXL\"") && told.contains("sd1, sd2, sdxl, refiner"),
        "{told}"
    );
    assert!(!told.contains("2048"), "{told}");
}

fn alone(positive: Conditioning) -> Saved {
    Saved {
        positive,
        negative: None,
        metadata: BTreeMap::new(),
    }
}

/// Of SDXL, each value the same.
fn filled(value: f32, batch: usize) -> Conditioning {
    let full = |shape: &[usize]| Tensor::full(value, shape, &Device::Cpu).unwrap();
    let (context, pooled) = (full(&[batch, 77, 24]), full(&[batch, 8]));
    Conditioning::new(Family::Sdxl, context, Some(pooled), None).unwrap()
}

/// What every way to write such a file says, and nothing is there afterwards.
fn refusals(made: &Conditioning, dtype: DType) -> [sd_conditioner::Error; 3] {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let list = ConditioningList::from(made.clone());
    let all: [Result<()>; 3] = [
        diffusers::save(&path, &alone(made.clone()), dtype),
        comfyui::save(&path, &list, dtype),
        kohya::save(&path, made, dtype),
    ];
    let errors = all.map(Result::unwrap_err);
    assert_eq!(errors.each_ref().map(|one| one.path()), [Some(&*path); 3]);
    assert!(!path.exists());
    errors
}

/// It was read back as the positive's.
#[test]
fn a_negative_of_another_family_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let saved = Saved {
        negative: Some(pair(Family::Sd1, "a", "").positive().clone()),
        ..alone(pair(Family::Sdxl, "a", "").positive().clone())
    };
    let error = diffusers::save(&path, &saved, DType::F32).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    let told = error.to_string();
    assert!(told.contains("sdxl") && told.contains("sd1"), "{told}");
    assert!(!path.exists());
}

/// `load` refuses it.
#[test]
fn a_batch_is_not_written() {
    for error in refusals(&filled(0.5, 2), DType::F32) {
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        assert!(error.message().contains("one prompt"), "{error}");
    }
}

#[test]
fn values_that_are_not_finite_in_the_type_are_not_written() {
    let large = filled(-1e6, 1);
    for error in refusals(&large, DType::F16) {
        assert_eq!(error.kind(), ErrorKind::TensorValue);
        assert!(error.tensor().is_some());
        let told = error.to_string();
        assert!(told.contains("-1000000") && told.contains("f16"), "{told}");
    }
    for value in [f32::NAN, f32::INFINITY] {
        for dtype in [DType::F32, DType::F16] {
            for error in refusals(&filled(value, 1), dtype) {
                assert_eq!(error.kind(), ErrorKind::TensorValue);
                assert!(error.tensor().is_some());
            }
        }
    }
    let error = large.to_dtype(DType::F16).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TensorValue);
    assert_eq!(error.tensor(), Some("context"));
    assert!(error.message().contains("-1000000"), "{error}");
    assert!(large.to_dtype(DType::BF16).is_ok());
    let folder = tempfile::tempdir().unwrap();
    let saved = Saved {
        negative: Some(large),
        ..alone(filled(0.5, 1))
    };
    let error = diffusers::save(folder.path().join("x"), &saved, DType::F16).unwrap_err();
    assert_eq!(error.tensor(), Some("negative_prompt_embeds"));
}

/// JSON writes them as null, which is read as never set.
#[test]
fn numbers_that_are_not_finite_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let list = ConditioningList::from(filled(0.5, 1));
    for value in [f64::NAN, f64::INFINITY] {
        let scored = list.clone().with_sizes(Sizes {
            aesthetic_score: Some(value),
            ..Sizes::default()
        });
        let share = Area::Share {
            height: value,
            width: 0.5,
            y: 0.0,
            x: 0.0,
        };
        let cases = [
            ("aesthetic_score", Ok(scored)),
            ("area", list.with_area(share, 1.0)),
            (
                "strength",
                list.with_area(Area::of_pixels(64, 64, 0, 0), value),
            ),
        ];
        for (name, list) in cases {
            // What no list can be made with cannot be lost.
            let Ok(list) = list else { continue };
            let error = comfyui::save(&path, &list, DType::F32).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Mismatch);
            assert!(error.message().contains(name), "{error}");
            assert!(!path.exists());
        }
    }
}
