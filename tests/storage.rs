//! Conditionings written for other programs, and read back.

mod refused;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write as _;
use std::path::Path;

use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::conditioning::{Area, ConditioningList, Mask, MaskArea, Sizes};
use sd_conditioner::storage::diffusers::Saved;
use sd_conditioner::storage::{comfyui, diffusers, kohya};
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Conditioning, ErrorKind, Family, Guidance, Profile, Request};

use crate::support::close::assert_close;

fn pair(family: Family, positive: &str, negative: &str) -> Guidance {
    let text = Conditioner::builder().random_weights(family, SyntheticSize::Tiny, 73);
    let of = |text| Request::new(text).profile(Profile::ComfyUi);
    text.unwrap()
        .encode_pair(of(positive), of(negative))
        .unwrap()
}

#[track_caller]
fn check_equal(ours: &Conditioning, theirs: &Conditioning) {
    assert_eq!(ours.family(), theirs.family());
    let dtype = ours.context().dtype();
    let as_ours = |tensor: &Tensor| tensor.to_dtype(dtype).unwrap();
    assert_close("context", ours.context(), &as_ours(theirs.context()), 0.0);
    for (ours, theirs) in [
        (ours.pooled(), theirs.pooled()),
        (ours.time_ids(), theirs.time_ids()),
    ] {
        assert_eq!(ours.is_some(), theirs.is_some());
        if let Some((ours, theirs)) = ours.zip(theirs) {
            let theirs = theirs.to_dtype(ours.dtype()).unwrap();
            assert_close("beside", ours, &theirs, 0.0);
        }
    }
}

#[test]
fn diffusers_names_come_back_in_every_family_and_type() {
    let folder = tempfile::tempdir().unwrap();
    for family in Family::ALL {
        let guidance = pair(family, "a lighthouse at dusk", "blurry");
        let saved = Saved {
            positive: guidance.positive().clone(),
            negative: Some(guidance.negative().clone()),
            metadata: [("prompt".to_owned(), "a lighthouse at dusk".to_owned())].into(),
        };
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let path = folder.path().join("pair.safetensors");
            diffusers::save(&path, &saved, dtype).unwrap();
            let first = fs::read(&path).unwrap();
            diffusers::save(&path, &saved, dtype).unwrap();
            assert!(first == fs::read(&path).unwrap(), "other bytes");
            let read = diffusers::load(&path).unwrap();
            assert_eq!(read.metadata["prompt"], "a lighthouse at dusk");
            assert_eq!(read.positive.context().dtype(), dtype);
            // Without a pooled vector where the U-Net takes none.
            let bare = |side: &Conditioning| {
                let keeps = matches!(family, Family::Sdxl | Family::Refiner);
                let pooled = side.pooled().cloned().filter(|_| keeps);
                let (context, ids) = (side.context().clone(), side.time_ids().cloned());
                Conditioning::new(family, context, pooled, ids).unwrap()
            };
            check_equal(&read.positive, &bare(guidance.positive()));
            check_equal(&read.negative.unwrap(), &bare(guidance.negative()));
        }
    }
}

#[test]
fn files_of_others_are_known_by_their_channels() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("theirs.safetensors");
    for (channels, family) in [
        (768, Family::Sd1),
        (1024, Family::Sd2),
        (2048, Family::Sdxl),
    ] {
        let rows = Tensor::rand(-1_f32, 1.0, (77, channels), &Device::Cpu).unwrap();
        rows.save_safetensors("prompt_embeds", &path).unwrap();
        let read = diffusers::load(&path).unwrap();
        assert_eq!(read.positive.family(), family);
        assert_eq!(read.positive.context().dims(), [1, 77, channels]);
        assert!(read.negative.is_none());
    }
    let rows = Tensor::zeros((77, 640), DType::F32, &Device::Cpu).unwrap();
    rows.save_safetensors("prompt_embeds", &path).unwrap();
    let error = diffusers::load(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TensorShape);
    rows.save_safetensors("embeds", &path).unwrap();
    let error = diffusers::load(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MissingTensor);
    assert_eq!(error.tensor(), Some("prompt_embeds"));
}

#[test]
fn kohya_reads_one_window_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = kohya::file_for(folder.path().join("dog.png"));
    assert!(path.ends_with("dog_te_outputs.npz"));
    let guidance = pair(Family::Sdxl, "a dog", "");
    for dtype in [DType::F32, DType::F16] {
        kohya::save(&path, guidance.positive(), dtype).unwrap();
        let read = kohya::load(&path).unwrap();
        let (context, pooled) = (guidance.positive().context(), guidance.positive().pooled());
        let want = Conditioning::new(Family::Sdxl, context.clone(), pooled.cloned(), None);
        check_equal(&read, &want.unwrap());
        assert_eq!(read.context().dtype(), dtype);
    }
}

#[test]
fn kohya_keeps_the_rows_that_its_own_windows_have() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long_te_outputs.npz");
    let long = "a lighthouse at dusk, waves, gulls, ".repeat(20);
    let guidance = pair(Family::Sdxl, &long, "");
    let context = guidance.positive().context();
    let windows = context.dim(1).unwrap() / 77;
    assert!(windows > 2, "{windows}");
    kohya::save(&path, guidance.positive(), DType::F32).unwrap();
    let read = kohya::load(&path).unwrap();
    assert_eq!(read.tokens(), 75 * windows + 2);
    let row = |tensor: &Tensor, row: usize| tensor.narrow(1, row, 1).unwrap();
    for (theirs, ours) in [(0, 0), (1, 1), (75, 75), (76, 78), (150, 152), (151, 155)] {
        assert_close(
            "row",
            &row(read.context(), theirs),
            &row(context, ours),
            0.0,
        );
    }
    let last = context.dim(1).unwrap() - 1;
    assert_close(
        "last",
        &row(read.context(), 75 * windows + 1),
        &row(context, last),
        0.0,
    );
}

#[test]
fn kohya_has_no_place_for_other_families_and_types() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npz");
    for family in [Family::Sd1, Family::Sd2, Family::Refiner] {
        let error = kohya::save(&path, pair(family, "a", "").positive(), DType::F32).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch);
    }
    let guidance = pair(Family::Sdxl, "a", "");
    let error = kohya::save(&path, guidance.positive(), DType::BF16).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let error = kohya::save(&path, &guidance.stacked().unwrap(), DType::F32).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(!path.exists());
}

/// Everything an entry can have, on two entries.
fn entries() -> ConditioningList {
    let guidance = pair(Family::Sdxl, "a forest", "a lake, waves");
    let plane: Vec<f32> = (0..12_u8).map(|place| f32::from(place) / 12.0).collect();
    let mask = Mask::new(&Tensor::from_vec(plane, (1, 3, 4), &Device::Cpu).unwrap()).unwrap();
    let sizes = Sizes {
        width: Some(1216),
        height: Some(832),
        crop_w: Some(0),
        aesthetic_score: Some(6.5),
        ..Sizes::default()
    };
    let first = ConditioningList::from(guidance.positive().clone())
        .with_area(Area::of_pixels(256, 512, 64, 8), 0.75)
        .unwrap()
        .with_range(0.25, 1.0)
        .unwrap()
        .with_sizes(sizes);
    let share = Area::Share {
        height: 0.5,
        width: 1.0,
        y: 0.5,
        x: 0.0,
    };
    let second = ConditioningList::from(guidance.negative().clone())
        .with_area(share, 1.0)
        .unwrap()
        .with_mask(&mask, 0.5, MaskArea::Bounds)
        .unwrap();
    first.combine(&second)
}

#[test]
fn entries_come_back_with_all_they_had() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("both.conditioning");
    let list = entries();
    comfyui::save(&path, &list, DType::F32).unwrap();
    let read = comfyui::load(&path).unwrap();
    assert!(read.notes.is_empty(), "{:?}", read.notes);
    assert_eq!(read.entries.len(), 2);
    for (ours, theirs) in read.entries.entries().iter().zip(list.entries()) {
        check_equal(ours.conditioning(), theirs.conditioning());
        assert_eq!(ours.sizes(), theirs.sizes());
        assert_eq!(ours.area(), theirs.area());
        assert_eq!(ours.strength(), theirs.strength());
        assert_eq!(ours.mask_strength(), theirs.mask_strength());
        assert_eq!(ours.mask_area(), theirs.mask_area());
        assert_eq!(ours.range(), theirs.range());
        assert_eq!(ours.mask().is_some(), theirs.mask().is_some());
        if let Some((ours, theirs)) = ours.mask().zip(theirs.mask()) {
            assert_close("mask", ours.tensor(), theirs.tensor(), 0.0);
        }
    }
}

/// Metadata and tensors exactly as the layout is described, with an attribute that has no place here.
#[test]
fn files_of_custom_nodes_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("theirs.conditioning");
    let schema = r#"[[{"__tensor__": 0}, {"pooled_output": {"__tensor__": 1}, "area": {"__tuple__":
        ["percentage", 0.5, 1.0, 0.0, 0.25]}, "strength": 1, "guidance": 3.5, "mask": null}]]"#;
    let write = |schema: &str, version: &str| {
        let metadata = HashMap::from([
            (
                "conditioning_format_version_0".to_owned(),
                version.to_owned(),
            ),
            ("conditioning_schema".to_owned(), schema.to_owned()),
        ]);
        let tensor = |dims: &[usize]| Tensor::ones(dims, DType::F16, &Device::Cpu).unwrap();
        let tensors = [
            ("tensor_0", tensor(&[1, 77, 768])),
            ("tensor_1", tensor(&[1, 768])),
        ];
        safetensors::serialize_to_file(tensors, Some(metadata), &path).unwrap();
        comfyui::load(&path)
    };
    let read = write(schema, "1").unwrap();
    assert_eq!(read.notes, ["entry 0: `guidance` was left out"]);
    let entry = &read.entries.entries()[0];
    assert_eq!(entry.conditioning().family(), Family::Sd1);
    assert_eq!(entry.conditioning().context().dtype(), DType::F16);
    assert_eq!(entry.strength(), Some(1.0));
    assert!(matches!(entry.area(), Some(Area::Share { x, .. }) if x.total_cmp(&0.25).is_eq()));
    for (schema, version, kind) in [
        (schema, "2", ErrorKind::Unsupported),
        ("{}", "1", ErrorKind::FileFormat),
        ("[[1, {}]]", "1", ErrorKind::FileFormat),
        ("[[", "1", ErrorKind::FileFormat),
        (
            r#"[[{"__tensor__": 7}, {}]]"#,
            "1",
            ErrorKind::MissingTensor,
        ),
        (
            r#"[[{"__tensor__": 0}, {"width": -1}]]"#,
            "1",
            ErrorKind::FileFormat,
        ),
        (
            r#"[[{"__tensor__": 0}, {"area": [1, 2]}]]"#,
            "1",
            ErrorKind::FileFormat,
        ),
    ] {
        let error = write(schema, version).unwrap_err();
        assert_eq!(error.kind(), kind, "{schema}: {error}");
        assert!(error.path().is_some());
    }
    let deep = format!(
        "[[{{\"__tensor__\": 0}}, {{\"area\": {}}}]]",
        "[".repeat(100_000)
    );
    assert!(write(&deep, "1").is_err());
}

#[test]
fn what_the_layout_cannot_say_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.conditioning");
    let empty = ConditioningList::default();
    assert!(comfyui::save(&path, &empty, DType::F32).is_err());
    let mixed = entries().combine(&pair(Family::Sd1, "a", "").positive().clone().into());
    assert!(comfyui::save(&path, &mixed, DType::F32).is_err());
    assert!(!path.exists());
}

/// A file that numpy itself wrote (`tests/golden/storage/make_kohya.py`).
#[test]
fn what_numpy_wrote_is_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/storage/kohya.npz");
    let read = kohya::load(&path).unwrap();
    assert_eq!(read.context().dims(), [1, 4, 5]);
    let want: Vec<f32> = [0., 1., 100., 101., 102., 2., 3., 103., 104., 105.].into();
    let rows = read
        .context()
        .narrow(1, 0, 2)
        .unwrap()
        .flatten_all()
        .unwrap();
    assert_eq!(rows.to_vec1::<f32>().unwrap(), want);
    assert_eq!(read.pooled().unwrap().dims(), [1, 3]);
}

#[test]
fn broken_archives_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x_te_outputs.npz");
    let guidance = pair(Family::Sdxl, "a dog", "");
    kohya::save(&path, guidance.positive(), DType::F16).unwrap();
    let whole = fs::read(&path).unwrap();
    for length in (0..whole.len()).step_by(whole.len() / 97) {
        fs::write(&path, &whole[..length]).unwrap();
        let error = kohya::load(&path).unwrap_err();
        assert!(error.path().is_some(), "{error}");
    }
    for place in 0..300 {
        for at in [place, whole.len() - 1 - place] {
            let mut changed = whole.clone();
            changed[at] ^= 0xff;
            let mut file = fs::File::create(&path).unwrap();
            file.write_all(&changed).unwrap();
            drop(file);
            // Whether it is noticed depends on the byte; it must not panic or grow.
            let _ = kohya::load(&path).map(|read| assert!(read.tokens() < 1000));
        }
    }
}

/// What a cache says of itself stands where numpy does not look, and no cut goes unseen.
#[test]
fn a_cache_tells_what_it_is_made_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dog_te_outputs.npz");
    let long = "a wooden bridge, crowded with people, ".repeat(30);
    let pair = pair(Family::Sdxl, &long, "");
    let tensors = kohya::tensors(pair.positive(), DType::F16).unwrap();
    let said = BTreeMap::from([("request".to_owned(), "猫".to_owned())]);
    let bytes = kohya::to_bytes(&tensors, &said).unwrap();
    assert_eq!(bytes, kohya::to_bytes(&tensors, &said).unwrap());
    fs::write(&path, &bytes).unwrap();
    let summary = kohya::summary(&path).unwrap();
    let rows = pair.positive().tokens() / 77 * 75 + 2;
    assert!(rows > 77);
    assert_eq!((summary.dtype, summary.rows), (DType::F16, rows));
    assert_eq!(summary.metadata, said);
    assert_eq!(kohya::load(&path).unwrap().tokens(), rows);
    let n = bytes.len();
    for cut in [0, 1, 21, n / 3, n / 2, n - 200, n - 30, n - 2, n - 1] {
        fs::write(&path, &bytes[..cut]).unwrap();
        assert!(kohya::summary(&path).is_err(), "{cut} of {n}");
    }
    let middle = [&bytes[..n / 3], &bytes[n / 2..]].concat();
    for other in [
        [&bytes[..], b"more"].concat(),
        [b"more", &bytes[..]].concat(),
        middle,
    ] {
        fs::write(&path, other).unwrap();
        assert!(kohya::summary(&path).is_err());
    }
    // As sd-scripts write them: without a word.
    kohya::save(&path, pair.positive(), DType::F32).unwrap();
    assert!(kohya::summary(&path).unwrap().metadata.is_empty());
    let endless = BTreeMap::from([("x".to_owned(), "x".repeat(70_000))]);
    let error = kohya::to_bytes(&tensors, &endless).unwrap_err();
    assert!(error.message().contains("65535"), "{error}");
    let mut fewer = tensors;
    fewer.remove("pool2");
    fs::write(&path, kohya::to_bytes(&fewer, &said).unwrap()).unwrap();
    assert!(kohya::summary(&path).is_err());
}
