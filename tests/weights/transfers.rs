//! Tensors that go to a device part by part, against the same tensors read whole.

use std::sync::Mutex;

use candle_core::{DType, Device, Tensor};
use sd_conditioner::candle_core;
use sd_conditioner::weights::{Checkpoint, EncoderId, Fill, Take, TensorSource, Transfers};
use sd_conditioner::{Error, ErrorKind};

use super::check_refused;
use crate::support::checkpoints::{Projection, huggingface, source};
use crate::support::entries::{Entry, Stored, save};

/// To the CPU, in parts of so many values; remembers where each began.
#[derive(Debug)]
struct InParts {
    values: usize,
    begun: Mutex<Vec<usize>>,
}

impl InParts {
    fn of(values: usize) -> InParts {
        InParts {
            values,
            begun: Mutex::default(),
        }
    }
}

impl Transfers for InParts {
    fn upload(&self, dtype: DType, n_values: usize, fill: &mut Fill<'_>) -> Result<Tensor, Error> {
        let size = dtype.size_in_bytes();
        let mut bytes = Vec::new();
        for first in (0..n_values).step_by(self.values) {
            self.begun.lock().unwrap().push(first);
            let count = self.values.min(n_values - first);
            // What is not filled is no number.
            let mut room = vec![u32::MAX; (count * size).div_ceil(4)];
            let room = &mut bytemuck::cast_slice_mut(&mut room)[..count * size];
            fill(first, room)?;
            bytes.extend_from_slice(room);
        }
        Ok(Tensor::from_raw_buffer(
            &bytes,
            dtype,
            &[n_values],
            &Device::Cpu,
        )?)
    }

    fn download(&self, _: &Tensor, _: &mut Take<'_>) -> Result<(), Error> {
        unreachable!("a load fetches nothing")
    }
}

const NAME: &str = "token_embedding";

fn entries(stored: Stored) -> Vec<Entry> {
    let encoder = source(EncoderId::ClipL, 1).without_projection();
    huggingface(&encoder, "", "text_model.", Projection::None, stored)
}

fn with_encoder<T>(entries: &[Entry], work: impl FnOnce(&dyn TensorSource) -> T) -> T {
    let folder = tempfile::tempdir().unwrap();
    let path = save(&folder.path().join("file.safetensors"), entries);
    let checkpoint = Checkpoint::open(&path).unwrap();
    work(&*checkpoint.encoder(EncoderId::ClipL).unwrap())
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    let values = tensor.to_dtype(DType::F32).unwrap().flatten_all();
    let values = values.unwrap().to_vec1::<f32>().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// Two of the largest below each other, so that some part holds the end of one and the beginning of the
/// other; and a small one, which goes whole.
#[test]
fn parts_make_the_tensor_that_is_read_whole() {
    let layer = |part: &str| format!("layers.0.{part}.weight");
    let stacks = [
        vec![NAME.to_owned(); 2],
        ["q", "k", "v"].map(layer).to_vec(),
    ];
    for stored in [Stored::F32, Stored::F16, Stored::Bf16] {
        with_encoder(&entries(stored), |encoder| {
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                let whole = encoder.load_stacks(&stacks, dtype, &Device::Cpu).unwrap();
                let transfers = InParts::of(3_000_001);
                let sent = encoder.load_stacks_by(&transfers, &stacks, dtype, &Device::Cpu);
                let sent = sent.unwrap();
                assert_eq!(sent.len(), 2);
                for (sent, whole) in sent.iter().zip(&whole) {
                    assert_eq!((sent.dims(), sent.dtype()), (whole.dims(), dtype));
                    assert!(bits(sent) == bits(whole), "{stored:?} {dtype:?}");
                }
                let n_values = whole[0].elem_count();
                let parts: Vec<usize> = (0..n_values).step_by(3_000_001).collect();
                assert!(parts.len() > 2);
                assert_eq!(*transfers.begun.lock().unwrap(), parts);
            }
        });
    }
}

#[test]
fn what_cannot_be_weights_is_found_in_any_part() {
    let mut entries = entries(Stored::F16);
    let entry = entries.iter_mut().find(|entry| entry.name.contains(NAME));
    let entry = entry.unwrap();
    let mut values = (entry.make)();
    values[2_000_007] = f32::NAN;
    entry.make = std::rc::Rc::new(move || values.clone());
    let loaded = with_encoder(&entries, |encoder| {
        let transfers = InParts::of(1_000_003);
        encoder.load_stacks_by(
            &transfers,
            &[vec![NAME.to_owned()]],
            DType::F16,
            &Device::Cpu,
        )
    });
    check_refused(loaded, ErrorKind::TensorValue, &[NAME, "value 2000007"]);
}

/// What the device's way says ends the load.
#[test]
fn an_upload_that_fails_is_told() {
    #[derive(Debug)]
    struct Broken;
    impl Transfers for Broken {
        fn upload(&self, _: DType, _: usize, _: &mut Fill<'_>) -> Result<Tensor, Error> {
            Err(Error::new(ErrorKind::Device, "out of memory"))
        }

        fn download(&self, _: &Tensor, _: &mut Take<'_>) -> Result<(), Error> {
            unreachable!("a load fetches nothing")
        }
    }
    let loaded = with_encoder(&entries(Stored::F16), |encoder| {
        encoder.load_stacks_by(&Broken, &[vec![NAME.to_owned()]], DType::F16, &Device::Cpu)
    });
    let error = loaded.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Device);
    assert!(error.to_string().contains("out of memory"), "{error}");
}
