//! Encoders written in one layout and read back, or written back, are the same bits.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::DType;
use safetensors::SafeTensors;
use sd_conditioner::Family::{self, Refiner, Sd1, Sd2, Sdxl};
use sd_conditioner::candle_core;
use sd_conditioner::weights::{
    Arrangement, Checkpoint, Conversion, ConversionReport, EncoderId, TensorSource,
};
use sd_conditioner::{Error, ErrorKind};
use tempfile::TempDir;

use super::layouts::check_equal;
use crate::support::checkpoints::{Layout, Projection, huggingface, source, write};
use crate::support::entries::{Entry, Stored, save};

const SEED: u64 = 91;

fn convert(
    from: &Path,
    out: &Path,
    arrangement: Arrangement,
    dtype: Option<DType>,
) -> Result<ConversionReport, Error> {
    let checkpoint = Checkpoint::open(from)?;
    let conversion = Conversion::to(arrangement);
    let conversion = match dtype {
        Some(dtype) => conversion.dtype(dtype),
        None => conversion,
    };
    conversion.write(&checkpoint, out, &mut |_, _, _| ())
}

/// A family's usual single file, and a folder to write to.
fn single(family: Family, stored: Stored) -> (TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), family, Layout::SingleFile, stored, SEED).remove(0);
    (folder, path)
}

/// Every tensor of `copy` is in `original` under the same name with the same bytes; returns how
/// many there are.
#[track_caller]
fn check_same_bytes(copy: &Path, original: &Path) -> usize {
    let (copy, original) = (fs::read(copy).unwrap(), fs::read(original).unwrap());
    let copy = SafeTensors::deserialize(&copy).unwrap();
    let original = SafeTensors::deserialize(&original).unwrap();
    for (name, tensor) in copy.tensors() {
        let other = original.tensor(&name).expect(&name);
        assert_eq!(tensor.dtype(), other.dtype(), "{name}");
        assert_eq!(tensor.shape(), other.shape(), "{name}");
        assert!(tensor.data() == other.data(), "{name}");
    }
    copy.len()
}

#[test]
fn encoders_may_come_from_elsewhere() {
    let (folder, original) = single(Sdxl, Stored::F16);
    let made = |encoder| {
        let tensors = source(encoder, SEED);
        let tensors = match encoder {
            EncoderId::ClipL => tensors.without_projection(),
            _ => tensors,
        };
        let tensors: Box<dyn TensorSource> = Box::new(tensors);
        (encoder, tensors)
    };
    let encoders = || Sdxl.encoders().iter().copied().map(made).collect();
    let conversion = Conversion::to(Arrangement::SingleFile).dtype(DType::F16);
    let out = folder.path().join("made.safetensors");
    let report = conversion.write_encoders(encoders(), &out, &mut |_, _, _| ());
    assert_eq!(check_same_bytes(&out, &original), report.unwrap().n_tensors);
    assert_eq!(Checkpoint::open(&out).unwrap().family(), Some(Sdxl));
    let other = folder.path().join("none");
    let none = Conversion::to(Arrangement::Standalone).only(EncoderId::OpenClipH);
    let none = none.write_encoders(encoders(), &other, &mut |_, _, _| ());
    assert_eq!(none.unwrap_err().kind(), ErrorKind::MissingTensor);
    assert!(!other.exists());
    let again = conversion.write_encoders(encoders(), &out, &mut |_, _, _| ());
    assert_eq!(again.unwrap_err().kind(), ErrorKind::Io);
}

/// Whatever had been written by then is gone, files that were whole included.
#[test]
fn a_conversion_that_is_stopped_leaves_nothing() {
    let (folder, original) = single(Sdxl, Stored::F16);
    let checkpoint = Checkpoint::open(&original).unwrap();
    for arrangement in Arrangement::ALL {
        let out = folder.path().join("out");
        let all = Conversion::to(arrangement).write(&checkpoint, &out, &mut |_, _, _| ());
        let n_tensors = all.unwrap().n_tensors;
        if out.is_dir() {
            fs::remove_dir_all(&out).unwrap();
        } else {
            fs::remove_file(&out).unwrap();
        }
        for begun in [0, 1, n_tensors - 1] {
            let asked = AtomicUsize::new(0);
            let stop = move || asked.fetch_add(1, Ordering::SeqCst) == begun;
            let conversion = Conversion::to(arrangement).stop_when(stop);
            let mut n_told = 0;
            let stopped = conversion.write(&checkpoint, &out, &mut |_, _, _| n_told += 1);
            assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Stopped);
            assert_eq!(n_told, begun);
            let there = fs::read_dir(folder.path()).unwrap().flatten();
            assert!(there.map(|entry| entry.path()).eq([original.clone()]));
        }
    }
}

/// What comes to the place meanwhile is somebody else's: it is neither removed nor replaced.
#[test]
fn what_others_put_there_meanwhile_stays() {
    let (folder, original) = single(Sdxl, Stored::F16);
    let checkpoint = Checkpoint::open(&original).unwrap();
    for arrangement in Arrangement::ALL {
        for stopped in [true, false] {
            let out = folder.path().join("out");
            fs::create_dir(folder.path().join("other")).unwrap();
            fs::write(folder.path().join("other/file"), "theirs").unwrap();
            let asked = AtomicUsize::new(0);
            let stop = move || stopped && asked.fetch_add(1, Ordering::SeqCst) == 5;
            let conversion = Conversion::to(arrangement).stop_when(stop);
            let written = conversion.write(&checkpoint, &out, &mut |path, done, _| {
                assert!(path.starts_with(&out), "{}", path.display());
                if done == 1 && !out.exists() {
                    fs::rename(folder.path().join("other"), &out).unwrap();
                }
            });
            let kind = if stopped {
                ErrorKind::Stopped
            } else {
                ErrorKind::Io
            };
            assert_eq!(written.unwrap_err().kind(), kind, "{arrangement:?}");
            assert_eq!(fs::read(out.join("file")).unwrap(), b"theirs");
            assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
            fs::remove_dir_all(&out).unwrap();
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }
}

/// A folder that is there is whole.
#[test]
fn a_folder_appears_with_all_of_its_files() {
    let (folder, original) = single(Sdxl, Stored::F16);
    let checkpoint = Checkpoint::open(&original).unwrap();
    let out = folder.path().join("out");
    let conversion = Conversion::to(Arrangement::Diffusers);
    let report = conversion.write(&checkpoint, &out, &mut |_, _, _| assert!(!out.exists()));
    assert!(report.unwrap().files.iter().all(|file| file.is_file()));
    fs::remove_dir_all(&out).unwrap();
    // As a run that was killed would leave it.
    fs::create_dir_all(folder.path().join(".out.0.parts/text_encoder")).unwrap();
    fs::write(folder.path().join(".out.0.part"), "").unwrap();
    let _ = conversion
        .write(&checkpoint, &out, &mut |_, _, _| ())
        .unwrap();
    let left = fs::read_dir(folder.path()).unwrap().flatten();
    let mut left: Vec<_> = left.map(|entry| entry.path()).collect();
    left.sort();
    assert_eq!(left, [out, original]);
}

/// The encoder of one file or folder equals that of another in every canonical tensor.
#[track_caller]
fn check_same_encoders(copy: &Path, original: &Path, stored: Stored) {
    let (copy, original) = (
        Checkpoint::open(copy).unwrap(),
        Checkpoint::open(original).unwrap(),
    );
    assert_eq!(copy.encoders(), original.encoders());
    for encoder in copy.encoders() {
        let (ours, theirs) = (copy.encoder(encoder), original.encoder(encoder));
        check_equal(&*ours.unwrap(), &*theirs.unwrap(), stored);
    }
}

#[test]
fn a_single_file_comes_back_from_files_of_one_encoder() {
    for family in [Sd1, Sd2, Refiner] {
        for stored in [Stored::F32, Stored::F16, Stored::Bf16] {
            let (folder, original) = single(family, stored);
            let middle = folder.path().join("one.safetensors");
            let back = folder.path().join("back.safetensors");
            let report = convert(&original, &middle, Arrangement::Standalone, None).unwrap();
            assert!(report.notes.is_empty(), "{:?}", report.notes);
            assert_eq!(report.files, [middle.as_path()]);
            check_same_encoders(&middle, &original, stored);
            let _ = convert(&middle, &back, Arrangement::SingleFile, None).unwrap();
            assert_eq!(Checkpoint::open(&back).unwrap().family(), Some(family));
            let written = check_same_bytes(&back, &original);
            let used = Checkpoint::open(&original).unwrap().report().used.len();
            assert_eq!(written, used, "{family}: not all came back");
        }
    }
}

#[test]
fn two_encoders_make_a_folder_and_each_serves_alone() {
    let (folder, original) = single(Sdxl, Stored::F16);
    let out = folder.path().join("text_encoders");
    let report = convert(&original, &out, Arrangement::Standalone, None).unwrap();
    let names = report.files.iter().filter_map(|path| path.file_name());
    let names: Vec<_> = names.collect();
    assert_eq!(names, ["clip_l.safetensors", "clip_g.safetensors"]);
    let whole = Checkpoint::open(&original).unwrap();
    for (path, encoder) in report.files.iter().zip(Sdxl.encoders()) {
        let alone = Checkpoint::open(path).unwrap();
        let (ours, theirs) = (alone.encoder(*encoder), whole.encoder(*encoder));
        check_equal(&*ours.unwrap(), &*theirs.unwrap(), Stored::F16);
    }
}

#[test]
fn diffusers_folders_come_back() {
    for (family, stored) in [
        (Sd1, Stored::F32),
        (Sdxl, Stored::F16),
        (Refiner, Stored::Bf16),
    ] {
        let (folder, original) = single(family, stored);
        let middle = folder.path().join("diffusers");
        let back = folder.path().join("back.safetensors");
        let _ = convert(&original, &middle, Arrangement::Diffusers, None).unwrap();
        check_same_encoders(&middle, &original, stored);
        let _ = convert(&middle, &back, Arrangement::SingleFile, None).unwrap();
        let used = Checkpoint::open(&original).unwrap().report().used.len();
        assert_eq!(check_same_bytes(&back, &original), used);
        let again = folder.path().join("again");
        let _ = convert(&back, &again, Arrangement::Diffusers, None).unwrap();
        for encoder in ["text_encoder", "text_encoder_2"] {
            let file = Path::new(encoder).join("model.safetensors");
            if middle.join(&file).exists() {
                let bytes = |folder: &Path| fs::read(folder.join(&file)).unwrap();
                assert!(bytes(&middle) == bytes(&again), "{family}: {encoder}");
            }
        }
    }
}

#[test]
fn diffusers_gets_what_its_sd2_pipeline_reads() {
    let (folder, original) = single(Sd2, Stored::F32);
    let out = folder.path().join("diffusers");
    let report = convert(&original, &out, Arrangement::Diffusers, None).unwrap();
    assert_eq!(report.notes.len(), 2, "{:?}", report.notes);
    let config = fs::read_to_string(out.join("text_encoder/config.json")).unwrap();
    assert!(config.contains("\"num_hidden_layers\": 3"), "{config}");
    let written = Checkpoint::open(&out).unwrap();
    let read = written.encoder(EncoderId::OpenClipH).unwrap();
    let whole = Checkpoint::open(&original).unwrap();
    let whole = whole.encoder(EncoderId::OpenClipH).unwrap();
    assert_eq!(whole.names().len() - read.names().len(), 17);
    for name in read.names() {
        let load = |source: &dyn TensorSource| {
            let tensor = source.load(&name, DType::F32, &candle_core::Device::Cpu);
            let tensor = tensor.unwrap().flatten_all().unwrap();
            tensor.to_vec1::<f32>().unwrap()
        };
        assert!(load(&*read) == load(&*whole), "{name}");
    }
}

#[test]
fn one_type_for_all_rounds_once() {
    let (folder, original) = single(Sdxl, Stored::F32);
    let direct = folder.path().join("direct.safetensors");
    let by_way = folder.path().join("diffusers");
    let around = folder.path().join("around.safetensors");
    let f16 = Some(DType::F16);
    let _ = convert(&original, &direct, Arrangement::SingleFile, f16).unwrap();
    let _ = convert(&original, &by_way, Arrangement::Diffusers, f16).unwrap();
    let _ = convert(&by_way, &around, Arrangement::SingleFile, None).unwrap();
    assert!(fs::read(&direct).unwrap() == fs::read(&around).unwrap());
    check_same_encoders(&direct, &around, Stored::F16);
    let config = fs::read_to_string(by_way.join("text_encoder_2/config.json")).unwrap();
    for word in [
        "float16",
        "CLIPTextModelWithProjection",
        "\"gelu\"",
        "49407",
    ] {
        assert!(config.contains(word), "{word} in {config}");
    }
}

#[test]
fn eight_bits_are_written_as_full_numbers() {
    let (folder, original) = single(Sd1, Stored::F8E4m3);
    let out = folder.path().join("out.safetensors");
    let _ = convert(&original, &out, Arrangement::Standalone, None).unwrap();
    check_same_encoders(&out, &original, Stored::F32);
}

#[test]
fn one_encoder_alone() {
    let (folder, original) = single(Sdxl, Stored::F16);
    let out = folder.path().join("alone.safetensors");
    let conversion = Conversion::to(Arrangement::Standalone).only(EncoderId::OpenClipG);
    let checkpoint = Checkpoint::open(&original).unwrap();
    let report = conversion.write(&checkpoint, &out, &mut |_, _, _| ());
    assert_eq!(report.unwrap().n_tensors, 4 * 16 + 5);
    assert_eq!(
        Checkpoint::open(&out).unwrap().encoders(),
        [EncoderId::OpenClipG]
    );
}

#[test]
fn what_exists_is_never_overwritten_and_nothing_half_written_stays() {
    let (folder, original) = single(Sd1, Stored::F16);
    let error = convert(&original, &original, Arrangement::SingleFile, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("exists"), "{error}");

    let root = "cond_stage_model.transformer.text_model.";
    let mut entries = huggingface(
        &source(EncoderId::ClipL, SEED),
        "cond_stage_model.transformer.",
        "text_model.",
        Projection::None,
        Stored::F32,
    );
    let big = format!("{root}encoder.layers.2.mlp.fc1.weight");
    let place = entries.iter().position(|entry| entry.name == big).unwrap();
    entries[place] = Entry::filled(&big, Stored::F32, &[512, 128], 1e6);
    let path = save(&folder.path().join("big.safetensors"), &entries);
    for (arrangement, name) in [
        (Arrangement::Diffusers, "half"),
        (Arrangement::SingleFile, "half.safetensors"),
    ] {
        let out = folder.path().join(name);
        let error = convert(&path, &out, arrangement, Some(DType::F16)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TensorValue, "{error}");
        assert!(
            error.to_string().contains("layers.2.mlp.fc1.weight"),
            "{error}"
        );
        assert!(!out.exists());
        let _ = convert(&path, &out, arrangement, Some(DType::BF16)).unwrap();
    }
    let left = fs::read_dir(folder.path()).unwrap().flatten();
    let parts = left.filter(|file| file.file_name().to_string_lossy().ends_with(".part"));
    assert_eq!(parts.count(), 0);
}

#[test]
fn other_types_are_refused_before_anything_is_read() {
    let (folder, original) = single(Sd1, Stored::F16);
    let out = folder.path().join("out");
    let error = convert(&original, &out, Arrangement::Diffusers, Some(DType::F64)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(!out.exists());
}
