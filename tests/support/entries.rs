//! Safetensors files written by hand, so that every byte of them can be wrong on purpose.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use half::{bf16, f16};

/// How values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    F64,
    F32,
    F16,
    Bf16,
    F8E4m3,
    F8E5m2,
    I64,
    I32,
    U8,
}

impl Stored {
    pub(crate) const fn tag(self) -> &'static str {
        match self {
            Stored::F64 => "F64",
            Stored::F32 => "F32",
            Stored::F16 => "F16",
            Stored::Bf16 => "BF16",
            Stored::F8E4m3 => "F8_E4M3",
            Stored::F8E5m2 => "F8_E5M2",
            Stored::I64 => "I64",
            Stored::I32 => "I32",
            Stored::U8 => "U8",
        }
    }

    pub(crate) const fn n_bytes(self) -> usize {
        match self {
            Stored::F64 | Stored::I64 => 8,
            Stored::F32 | Stored::I32 => 4,
            Stored::F16 | Stored::Bf16 => 2,
            Stored::F8E4m3 | Stored::F8E5m2 | Stored::U8 => 1,
        }
    }

    /// Little-endian bytes. Halves are rounded to nearest even, 8-bit types towards zero.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "integers in these files are small"
    )]
    pub(crate) fn bytes(self, values: &[f32]) -> Vec<u8> {
        fn each<const N: usize>(values: &[f32], bytes: impl Fn(f32) -> [u8; N]) -> Vec<u8> {
            let mut all = Vec::with_capacity(values.len() * N);
            for value in values {
                all.extend_from_slice(&bytes(*value));
            }
            all
        }
        match self {
            Stored::F64 => each(values, |value| f64::from(value).to_le_bytes()),
            Stored::F32 => each(values, f32::to_le_bytes),
            Stored::F16 => each(values, |value| f16::from_f32(value).to_le_bytes()),
            Stored::Bf16 => each(values, |value| bf16::from_f32(value).to_le_bytes()),
            Stored::F8E4m3 => each(values, |value| [e4m3(value)]),
            Stored::F8E5m2 => each(values, |value| [f16::from_f32(value).to_le_bytes()[1]]),
            Stored::I64 => each(values, |value| (value as i64).to_le_bytes()),
            Stored::I32 => each(values, |value| (value as i32).to_le_bytes()),
            Stored::U8 => each(values, |value| [value as u8]),
        }
    }

    /// What a reader must make of a value that was stored so.
    pub(crate) fn rounded(self, value: f32) -> f32 {
        match self {
            Stored::F64 | Stored::F32 | Stored::I64 | Stored::I32 | Stored::U8 => value,
            Stored::F16 => f16::from_f32(value).to_f32(),
            Stored::Bf16 => bf16::from_f32(value).to_f32(),
            Stored::F8E4m3 => from_e4m3(e4m3(value)),
            Stored::F8E5m2 => f16::from_bits(f16::from_f32(value).to_bits() & 0xff00).to_f32(),
        }
    }
}

/// Towards zero, at most 448.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bounded just before"
)]
fn e4m3(value: f32) -> u8 {
    let sign = if value.is_sign_negative() { 0x80 } else { 0 };
    let size = value.abs().min(448.0);
    let exponent = (size.to_bits() >> 23).saturating_sub(120);
    let mantissa = if exponent == 0 {
        (size * 512.0) as u32
    } else {
        (size.to_bits() >> 20) & 7
    };
    sign | ((exponent as u8) << 3) | mantissa as u8
}

fn from_e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let size = if exponent == 0 {
        mantissa * 2_f32.powi(-9)
    } else {
        (8.0 + mantissa) * 2_f32.powi(exponent - 10)
    };
    if byte < 0x80 { size } else { -size }
}

/// One tensor to write; its values are made when their turn comes.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) stored: Stored,
    pub(crate) shape: Vec<usize>,
    pub(crate) make: Rc<dyn Fn() -> Vec<f32>>,
}

impl Entry {
    pub(crate) fn new(
        name: &str,
        stored: Stored,
        shape: &[usize],
        make: impl Fn() -> Vec<f32> + 'static,
    ) -> Entry {
        Entry {
            name: name.to_owned(),
            stored,
            shape: shape.to_vec(),
            make: Rc::new(make),
        }
    }

    /// A tensor of one value throughout.
    pub(crate) fn filled(name: &str, stored: Stored, shape: &[usize], value: f32) -> Entry {
        let count = shape.iter().product();
        Entry::new(name, stored, shape, move || vec![value; count])
    }

    fn n_bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.stored.n_bytes()
    }
}

/// Length and text of the header: widest type first, then by name, padded to 8 bytes.
pub(crate) fn header(entries: &[Entry]) -> (Vec<Entry>, Vec<u8>) {
    header_with(entries, &[])
}

/// The same with strings beside the tensors.
pub(crate) fn header_with(entries: &[Entry], metadata: &[(&str, &str)]) -> (Vec<Entry>, Vec<u8>) {
    let mut order = entries.to_vec();
    order.sort_by(|one, two| {
        (two.stored.n_bytes(), &one.name).cmp(&(one.stored.n_bytes(), &two.name))
    });
    let mut fields = Vec::new();
    if !metadata.is_empty() {
        let pairs = metadata
            .iter()
            .copied()
            .collect::<std::collections::BTreeMap<_, _>>();
        let pairs = serde_json::to_string(&pairs).expect("strings");
        fields.push(format!(r#""__metadata__":{pairs}"#));
    }
    let mut end = 0;
    for entry in &order {
        let (start, stored, shape) = (end, entry.stored.tag(), &entry.shape);
        end += entry.n_bytes();
        fields.push(format!(
            r#""{}":{{"dtype":"{stored}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#,
            entry.name
        ));
    }
    let mut text = format!("{{{}}}", fields.join(","));
    while text.len() % 8 != 0 {
        text.push(' ');
    }
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    (order, bytes)
}

/// Writes a whole file.
pub(crate) fn save(path: &Path, entries: &[Entry]) -> PathBuf {
    save_with(path, entries, &[])
}

/// Writes a whole file with strings beside the tensors.
pub(crate) fn save_with(path: &Path, entries: &[Entry], metadata: &[(&str, &str)]) -> PathBuf {
    let (order, header) = header_with(entries, metadata);
    let folder = path.parent().expect("a file in a folder");
    std::fs::create_dir_all(folder).expect("a writable folder");
    let mut file = BufWriter::new(File::create(path).expect("a writable file"));
    file.write_all(&header).expect("space");
    for entry in order {
        file.write_all(&entry.stored.bytes(&(entry.make)()))
            .expect("space");
    }
    file.flush().expect("space");
    path.to_owned()
}

/// Writes the header only and makes the file as long as it should be: all values are zero and take
/// no space.
pub(crate) fn save_sparse(path: &Path, entries: &[Entry]) -> PathBuf {
    let (order, header) = header(entries);
    let n_bytes: usize = order.iter().map(Entry::n_bytes).sum();
    let mut file = File::create(path).expect("a writable file");
    file.write_all(&header).expect("space");
    file.set_len((header.len() + n_bytes) as u64)
        .expect("a sparse file");
    path.to_owned()
}
