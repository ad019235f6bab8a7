//! What would be lost in a file, and what a file must not say.

use std::collections::{BTreeMap, HashMap};

use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::storage::diffusers::Saved;
use sd_conditioner::storage::{comfyui, diffusers, kohya};
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, ConditioningList, ErrorKind, Family, Request, SizeHints};

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
