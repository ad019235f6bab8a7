//! Weights that stay where the system has their file, against the same ones in memory of their own: not a bit
//! differs, whatever the file is.
#![expect(unsafe_code, reason = "files are mapped by the word of who wrote them")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sd_conditioner::candle_core::quantized::GgmlDType;
use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::conditioner::{CacheOptions, DiskCache};
use sd_conditioner::encoder::{ClipText, Pooled, Readout, Window};
use sd_conditioner::kernels::{Cpu, Kernels, Options, Reference};
use sd_conditioner::tokens::{Chunk, END_OF_TEXT};
use sd_conditioner::weights::{Checkpoint, EncoderId, Lora, Unchanging};
use sd_conditioner::{Builder, Conditioner, ErrorKind, Family, Result};

use crate::support::checkpoints::{Layout, Projection, huggingface, source, write};
use crate::support::entries::{Entry, Stored, save};
use crate::support::pickles::{repickle, save_legacy, save_zip};
use crate::support::{ggufs, loras};

const SEED: u64 = 73;

pub(super) fn mapping(builder: Builder) -> Builder {
    // SAFETY: the files are the tests' own, and nobody writes to them once they are there.
    builder.map_files(unsafe { Unchanging::promised() })
}

fn loaded(builder: Builder, family: Family, paths: &[PathBuf]) -> Result<Conditioner> {
    let opened = paths.iter().map(Checkpoint::open);
    let opened: Vec<Checkpoint> = opened.collect::<Result<_>>()?;
    // Every call is to read the weights.
    let builder = builder.cache(CacheOptions::OFF).family(family);
    builder.load(&opened)
}

fn in_one_file(folder: &Path, family: Family, stored: Stored) -> Vec<PathBuf> {
    write(folder, family, Layout::SingleFile, stored, SEED)
}

/// ViT-L as transformers saves it.
fn entries(prefix: &str, stored: Stored) -> Vec<Entry> {
    let source = source(EncoderId::ClipL, SEED);
    huggingface(&source, prefix, "text_model.", Projection::None, stored)
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    let wide = tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
    let values = wide.to_vec1::<f32>().unwrap().into_iter();
    values.map(f32::to_bits).collect()
}

/// Of a prompt of two windows: hidden states and pooled vector.
fn encoded(text: &Conditioner) -> Vec<u32> {
    let words = "a (lighthouse:1.3) on a cliff at dusk, ".repeat(9);
    let conditioning = text.encode(words.as_str()).unwrap();
    let pooled = conditioning.pooled().map(bits).unwrap_or_default();
    [bits(conditioning.context()), pooled].concat()
}

fn n_mapped(text: &Conditioner) -> usize {
    text.encoders().map(|clip| clip.n_mapped()).sum()
}

fn n_matrices(text: &Conditioner) -> usize {
    let each = text.encoders().map(|clip| clip.config().layers * 4 + 1);
    each.sum()
}

/// Loads both ways; all matrices are to be mapped, or none.
#[track_caller]
fn check(builder: &Builder, family: Family, paths: &[PathBuf], all: bool) {
    let plain = loaded(builder.clone(), family, paths).unwrap();
    let mapped = loaded(mapping(builder.clone()), family, paths).unwrap();
    assert_eq!(n_mapped(&plain), 0);
    let want = if all { n_matrices(&mapped) } else { 0 };
    assert_eq!(n_mapped(&mapped), want, "of {}", n_matrices(&mapped));
    assert!(encoded(&mapped) == encoded(&plain), "{paths:?}");
}

#[test]
fn in_every_layout() {
    let layouts = [
        (Family::Sd1, Layout::SingleFile),
        (Family::Sd2, Layout::SingleFile),
        (Family::Sdxl, Layout::SingleFile),
        (Family::Sdxl, Layout::Diffusers),
        (Family::Sdxl, Layout::SdCpp),
        (Family::Refiner, Layout::LinearProjection),
    ];
    for (family, layout) in layouts {
        let folder = tempfile::tempdir().unwrap();
        let paths = write(folder.path(), family, layout, Stored::F16, SEED);
        let builder = Conditioner::builder().output_dtype(DType::F32);
        check(&builder.dtype(DType::F16), family, &paths, true);
    }
}

/// Each unit of this machine, with each type that files have and each that is asked for.
#[test]
fn on_every_unit_in_every_type() {
    let types = [DType::F32, DType::F16, DType::BF16];
    for stored in [Stored::F32, Stored::F16, Stored::Bf16] {
        let folder = tempfile::tempdir().unwrap();
        let paths = in_one_file(folder.path(), Family::Sdxl, stored);
        for unit in Cpu::all().unwrap() {
            for kept in types {
                let options = Options {
                    unit: Some(unit.name().to_owned()),
                    ..Options::default()
                };
                let of_file = kept.as_str().eq_ignore_ascii_case(stored.tag());
                let widened = match (unit.name(), stored) {
                    ("amx", _) | (_, Stored::F32) | ("avx512bf16", Stored::Bf16) => false,
                    _ => kept == DType::F32,
                };
                let builder = Conditioner::builder().dtype(kept).kernel_options(options);
                let builder = builder.output_dtype(DType::F32);
                let plain = loaded(builder.clone(), Family::Sdxl, &paths).unwrap();
                let mapped = loaded(mapping(builder), Family::Sdxl, &paths).unwrap();
                let name = format!("{} {stored:?} -> {kept:?}", unit.name());
                let matrices = match (of_file || widened, kept) {
                    (true, _) => n_matrices(&mapped),
                    // The tables' rows are widened wherever they lie.
                    (false, DType::F32) => 2,
                    (false, _) => 0,
                };
                assert_eq!(n_mapped(&mapped), matrices, "{name}");
                assert!(encoded(&mapped) == encoded(&plain), "{name}");
            }
        }
    }
}

/// The state after the last layer but one, on other kernels than those it was loaded for.
fn state(clip: &ClipText, kernels: Arc<dyn Kernels>) -> Vec<u32> {
    let chunk = Chunk::empty(END_OF_TEXT);
    let readout = Readout {
        layer: clip.config().layers - 1,
        final_norm: true,
        pooled: Pooled::Skip,
        pooled_layer: 0,
    };
    let clip = clip.with_kernels(kernels);
    let encoded = clip.encode(&[Window::from(&chunk)], &[readout]).unwrap();
    bits(&encoded.hidden)
}

#[test]
fn on_other_kernels_than_they_were_loaded_for() {
    let folder = tempfile::tempdir().unwrap();
    for stored in [Stored::F16, Stored::Bf16] {
        let paths = in_one_file(folder.path(), Family::Sdxl, stored);
        let plain = loaded(Conditioner::builder(), Family::Sdxl, &paths).unwrap();
        let options = Cpu::all().unwrap().into_iter().next_back();
        let options = options.map(|last| Options {
            unit: Some(last.name().to_owned()),
            ..Options::default()
        });
        let builder = Conditioner::builder().kernel_options(options.unwrap_or_default());
        let mapped = loaded(mapping(builder), Family::Sdxl, &paths).unwrap();
        for (plain, mapped) in plain.encoders().zip(mapped.encoders()) {
            let all = Cpu::all().unwrap().into_iter();
            let all = all.map(|unit| Arc::new(unit) as Arc<dyn Kernels>);
            let reference = Arc::new(Reference::new(&Device::Cpu).unwrap());
            for kernels in all.chain([reference as Arc<dyn Kernels>]) {
                let name = kernels.name();
                let same = state(&plain, Arc::clone(&kernels)) == state(&mapped, kernels);
                assert!(same, "{stored:?} on {name}");
            }
        }
    }
}

#[test]
fn plain_operations_want_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let paths = in_one_file(folder.path(), Family::Sd2, Stored::F16);
    let builder = Conditioner::builder().reference_kernels();
    check(&builder, Family::Sd2, &paths, false);
}

#[test]
fn in_pickles_and_gguf() {
    let folder = tempfile::tempdir().unwrap();
    let family = Family::Sd1;
    let builder = Conditioner::builder().dtype(DType::F16);
    for (name, save) in [
        ("zip.ckpt", save_zip as fn(&Path, &_) -> _),
        ("old.ckpt", save_legacy),
    ] {
        let paths = in_one_file(folder.path(), family, Stored::F16);
        let path = repickle(&paths[0], &folder.path().join(name), save);
        let plain = loaded(builder.clone(), family, std::slice::from_ref(&path)).unwrap();
        let mapped = loaded(mapping(builder.clone()), family, &[path]).unwrap();
        // Whether values begin where one may is the file's; of this archive some do.
        assert!(n_mapped(&mapped) > 0 || name == "old.ckpt");
        assert!(encoded(&mapped) == encoded(&plain), "{name}");
    }
    let entries = entries("te.", Stored::F16);
    let lines: Vec<_> = entries.iter().map(ggufs::plain).collect();
    let path = ggufs::save(&folder.path().join("plain.gguf"), &lines);
    check(&builder, family, &[path], true);
    // What is quantized stays so, beside what stays in the file.
    let lines = ggufs::converted(&entries, GgmlDType::Q8_0);
    let path = [ggufs::save(&folder.path().join("quantized.gguf"), &lines)];
    let builder = Conditioner::builder().keep_quantized();
    let plain = loaded(builder.clone(), family, &path).unwrap();
    let mapped = loaded(mapping(builder), family, &path).unwrap();
    assert!(encoded(&mapped) == encoded(&plain));
}

/// A header whose length makes values begin between two places where one may.
#[test]
fn values_at_odd_places_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("even.safetensors");
    let builder = Conditioner::builder();
    for (stored, dtype, spaces) in [
        (Stored::F16, DType::F16, 1),
        (Stored::F32, DType::F32, 2),
        (Stored::F32, DType::F32, 3),
    ] {
        let entries = entries("", stored);
        save(&path, &entries);
        let whole = fs::read(&path).unwrap();
        let (length, rest) = whole.split_first_chunk::<8>().unwrap();
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
        let (header, values) = rest.split_at(length);
        let start = u64::try_from(length + spaces).unwrap().to_le_bytes();
        let odd = [&start, header, &b"   "[..spaces], values].concat();
        let path = folder.path().join("odd.safetensors");
        fs::write(&path, odd).unwrap();
        check(&builder.clone().dtype(dtype), Family::Sd1, &[path], false);
    }
}

/// What is wrong with a matrix is told as if it had been read.
#[test]
fn flaws_are_found_where_they_lie() {
    let folder = tempfile::tempdir().unwrap();
    let flawed = |name: &'static str, value: f32, stored| {
        let entries = entries("", stored);
        let entries = entries.into_iter().map(|entry| {
            if entry.name != name {
                return entry;
            }
            let (make, whole) = (entry.make.clone(), value.abs() < 1.0);
            let shape = entry.shape.clone();
            Entry::new(name, stored, &shape, move || {
                let mut values = make();
                let last = values.len() - 1;
                if whole {
                    values.fill(value);
                }
                values[last] = value;
                values
            })
        });
        let entries: Vec<Entry> = entries.collect();
        save(&folder.path().join("flawed.safetensors"), &entries)
    };
    let fc1 = "text_model.encoder.layers.1.mlp.fc1.weight";
    let table = "text_model.embeddings.token_embedding.weight";
    let key = "text_model.encoder.layers.0.self_attn.k_proj.weight";
    for (name, value, stored, dtype) in [
        (fc1, f32::NAN, Stored::F16, DType::F16),
        (fc1, 0.0, Stored::F16, DType::F32),
        (table, f32::INFINITY, Stored::F32, DType::F32),
        (key, f32::NEG_INFINITY, Stored::Bf16, DType::BF16),
        (key, 0.0, Stored::F32, DType::F32),
    ] {
        let path = [flawed(name, value, stored)];
        let builder = Conditioner::builder().dtype(dtype);
        let plain = loaded(builder.clone(), Family::Sd1, &path).unwrap_err();
        let mapped = loaded(mapping(builder), Family::Sd1, &path).unwrap_err();
        assert_eq!(mapped.kind(), ErrorKind::TensorValue);
        assert_eq!(mapped.to_string(), plain.to_string());
        assert!(mapped.to_string().contains(name), "{mapped}");
    }
}

/// What one gave is found by the other, in memory of one run and on the disk of the next.
#[test]
fn windows_that_are_kept_are_those_of_either() {
    let folder = tempfile::tempdir().unwrap();
    let paths = in_one_file(folder.path(), Family::Sdxl, Stored::F16);
    for dtype in [DType::F16, DType::F32] {
        let disk = DiskCache {
            folder: folder.path().join(dtype.as_str()),
            max_bytes: 1 << 24,
        };
        let cache = CacheOptions {
            disk: Some(disk),
            ..CacheOptions::OFF
        };
        let builder = Conditioner::builder().dtype(dtype).cache(cache);
        let mapped = mapping(builder.clone()).open(&paths[0]).unwrap();
        let before = encoded(&mapped);
        let stats = mapped.cache_stats();
        assert!(stats.disk_hits == 0 && stats.misses > 0, "{stats:?}");
        let plain = builder.open(&paths[0]).unwrap();
        assert!(encoded(&plain) == before, "{dtype:?}");
        let found = plain.cache_stats();
        assert!(
            found.disk_hits == stats.misses && found.misses == 0,
            "{found:?}"
        );
    }
}

/// What is changed leaves the file, and what is not stays there.
#[test]
fn loras_go_on_as_always() {
    let folder = tempfile::tempdir().unwrap();
    loras::write(folder.path(), SEED, Stored::F32);
    let paths = in_one_file(folder.path(), Family::Sd1, Stored::F16);
    let lora = Lora::open(folder.path().join("sd1.kohya.safetensors")).unwrap();
    let lora = [lora.at(0.8)];
    for dtype in [DType::F16, DType::F32] {
        let builder = Conditioner::builder().dtype(dtype);
        let plain = loaded(builder.clone(), Family::Sd1, &paths).unwrap();
        let mapped = loaded(mapping(builder), Family::Sd1, &paths).unwrap();
        let (before, in_file) = (encoded(&mapped), n_mapped(&mapped));
        let plain = plain.with_loras(&lora).unwrap();
        let worn = mapped.with_loras(&lora).unwrap();
        assert!(encoded(&worn) == encoded(&plain), "{dtype:?}");
        assert!(encoded(&worn) != before, "{dtype:?}: it changes something");
        assert!(n_mapped(&worn) < in_file);
        assert_eq!(n_mapped(&mapped), in_file);
        assert!(encoded(&mapped) == before, "{dtype:?}");
    }
}

/// The promise ends with what was loaded, and holds for what was read by then.
#[test]
fn nothing_is_kept_of_a_file_that_may_change_again() {
    let folder = tempfile::tempdir().unwrap();
    let paths = in_one_file(folder.path(), Family::Sd1, Stored::F16);
    let builder = || Conditioner::builder().dtype(DType::F16);
    let parts = [Checkpoint::open(&paths[0]).unwrap()];
    let text = mapping(builder()).load(&parts).unwrap();
    assert_eq!(n_mapped(&text), n_matrices(&text));
    drop(text);
    let file = fs::OpenOptions::new().write(true).open(&paths[0]).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length / 2).unwrap();
    let mapped = mapping(builder()).load(&parts).unwrap_err();
    let plain = builder().load(&parts).unwrap_err();
    assert_eq!(mapped.to_string(), plain.to_string());
    assert_eq!(mapped.kind(), plain.kind());
}

/// The file may be given another content under its name, as downloads do, and even be removed.
#[cfg(unix)]
#[test]
fn a_file_of_the_same_name_is_another() {
    let folder = tempfile::tempdir().unwrap();
    let paths = in_one_file(folder.path(), Family::Sd1, Stored::F16);
    let builder = mapping(Conditioner::builder().dtype(DType::F16));
    let text = loaded(builder, Family::Sd1, &paths).unwrap();
    let before = encoded(&text);
    let other = folder.path().join("other");
    fs::write(&other, b"not a checkpoint").unwrap();
    fs::rename(&other, &paths[0]).unwrap();
    assert!(encoded(&text) == before);
    fs::remove_file(&paths[0]).unwrap();
    text.load_to(&Device::Cpu).unwrap();
    assert!(encoded(&text) == before);
}
