//! GGUF files by hand, so that every byte of them can be wrong on purpose.

use std::path::{Path, PathBuf};

use sd_conditioner::candle_core::quantized::{GgmlDType, QTensor};
use sd_conditioner::candle_core::{Device, Tensor};

use super::entries::{Entry, Stored};

/// A tensor to write: its number in ggml's list of types, and its bytes.
#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// Rows first.
    pub(crate) shape: Vec<usize>,
    pub(crate) kind: u32,
    pub(crate) bytes: Vec<u8>,
}

/// ggml's numbers of the types that candle quantizes to.
pub(crate) const QUANTIZED: [(u32, GgmlDType); 12] = [
    (2, GgmlDType::Q4_0),
    (3, GgmlDType::Q4_1),
    (6, GgmlDType::Q5_0),
    (7, GgmlDType::Q5_1),
    (8, GgmlDType::Q8_0),
    (9, GgmlDType::Q8_1),
    (10, GgmlDType::Q2K),
    (11, GgmlDType::Q3K),
    (12, GgmlDType::Q4K),
    (13, GgmlDType::Q5K),
    (14, GgmlDType::Q6K),
    (15, GgmlDType::Q8K),
];

/// A tensor as it is.
pub(crate) fn plain(entry: &Entry) -> Line {
    let kind = match entry.stored {
        Stored::F32 => 0,
        Stored::F16 => 1,
        Stored::I32 => 26,
        Stored::I64 => 27,
        Stored::F64 => 28,
        Stored::Bf16 => 30,
        other => panic!("ggml has no {other:?}"),
    };
    Line {
        name: entry.name.clone(),
        shape: entry.shape.clone(),
        kind,
        bytes: entry.stored.bytes(&(entry.make)()),
    }
}

/// True for what stable-diffusion.cpp quantizes: matrices whose rows are whole blocks, but for
/// embeddings.
pub(crate) fn is_quantized(entry: &Entry, dtype: GgmlDType) -> bool {
    let rows = matches!(entry.shape[..], [_, width] if width % dtype.block_size() == 0);
    rows && !entry.name.contains("embedding")
}

/// A tensor in blocks.
pub(crate) fn quantize(entry: &Entry, dtype: GgmlDType) -> QTensor {
    let tensor = Tensor::from_vec((entry.make)(), entry.shape.as_slice(), &Device::Cpu);
    QTensor::quantize(&tensor.expect("a tensor"), dtype).expect("whole blocks")
}

/// Everything that stable-diffusion.cpp would quantize, quantized.
pub(crate) fn converted(entries: &[Entry], dtype: GgmlDType) -> Vec<Line> {
    let number = QUANTIZED.iter().find(|(_, other)| *other == dtype);
    let (kind, _) = *number.expect("a type with a number");
    let line = |entry: &Entry| {
        if !is_quantized(entry, dtype) {
            return plain(entry);
        }
        let bytes = quantize(entry, dtype).data().expect("bytes").into_owned();
        Line {
            kind,
            bytes,
            ..plain(&Entry::filled(&entry.name, Stored::F32, &entry.shape, 0.0))
        }
    };
    entries.iter().map(line).collect()
}

/// A text with its length.
pub(crate) fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A pair of metadata: key, type, bytes of the value.
pub(crate) fn pair(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&text(key), &kind.to_le_bytes()[..], value].concat()
}

/// Magic number, version and counts.
pub(crate) fn start(version: u32, n_tensors: u64, n_pairs: u64) -> Vec<u8> {
    let (tensors, pairs) = (n_tensors.to_le_bytes(), n_pairs.to_le_bytes());
    [b"GGUF", &version.to_le_bytes()[..], &tensors, &pairs].concat()
}

/// A tensor's line in the header.
pub(crate) fn line(name: &str, shape: &[usize], kind: u32, offset: u64) -> Vec<u8> {
    let mut bytes = text(name);
    bytes.extend(u32::try_from(shape.len()).expect("few").to_le_bytes());
    for side in shape.iter().rev() {
        bytes.extend((*side as u64).to_le_bytes());
    }
    bytes.extend(kind.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

/// A whole file of version 3, with some metadata of each kind.
pub(crate) fn file(lines: &[Line]) -> Vec<u8> {
    let pairs = [
        pair("general.name", 8, &text("a name")),
        pair(
            "some.list",
            9,
            &[&8_u32.to_le_bytes()[..], &1_u64.to_le_bytes(), &text("x")].concat(),
        ),
        pair("some.number", 6, &1.5_f32.to_le_bytes()),
    ];
    let mut bytes = start(3, lines.len() as u64, pairs.len() as u64);
    bytes.extend(pairs.concat());
    let mut offset = 0_usize;
    for one in lines {
        bytes.extend(line(&one.name, &one.shape, one.kind, offset as u64));
        offset = (offset + one.bytes.len()).next_multiple_of(32);
    }
    for one in lines {
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(&one.bytes);
    }
    bytes
}

/// Writes a file.
pub(crate) fn save(path: &Path, lines: &[Line]) -> PathBuf {
    std::fs::write(path, file(lines)).expect("a writable file");
    path.to_owned()
}
