//! A WINDOW → ITS DIGEST: everything beside the encoder's tensors that its states depend on.

use candle_core::Device;
use sha2::{Digest as _, Sha256};

use crate::encoder::{ClipText, Pooled, Readout, Window};
use crate::error::Result;
use crate::kernels::Activation;

use super::{Identity, place};

/// SHA-256.
pub(in crate::conditioner) type Digest = [u8; 32];

/// Changes when equal digests would mean other states.
const VERSION: &str = concat!("states 1, sd-conditioner ", env!("CARGO_PKG_VERSION"));

/// Whose windows are meant.
#[derive(Clone, Copy, Debug)]
pub(in crate::conditioner) struct Of<'a> {
    pub(in crate::conditioner) identity: &'a Identity,
    pub(in crate::conditioner) clip: &'a ClipText,
    pub(in crate::conditioner) device: &'a Device,
}

/// The digest of a window: ids, end, vectors, hidden keys, readout, non-linearity, kernels, device.
pub(in crate::conditioner) fn digest(
    of: &Of<'_>,
    window: &Window<'_>,
    (readout, activation): (Readout, Activation),
) -> Result<Digest> {
    let mut hash = Sha256::new();
    let machine = format!("{VERSION}\n{}\n{}\n", of.clip.kernels(), place(of.device));
    hash.update(machine);
    hash.update(abilities());
    let chunk = window.chunk();
    for id in chunk.ids() {
        hash.update(id.to_le_bytes());
    }
    hash.update((chunk.end() as u64).to_le_bytes());
    hash.update(window.hidden_keys().map(u8::from));
    hash.update(readout_bytes(readout));
    hash.update([activation_byte(activation)]);
    add_vectors(&mut hash, window)?;
    Ok(hash.finalize().into())
}

fn add_vectors(hash: &mut Sha256, window: &Window<'_>) -> Result<()> {
    hash.update((window.vectors().len() as u64).to_le_bytes());
    for (row, vector) in window.vectors() {
        hash.update((*row as u64).to_le_bytes());
        let values = vector.to_dtype(candle_core::DType::F32)?.to_vec1::<f32>()?;
        hash.update((values.len() as u64).to_le_bytes());
        for value in values {
            hash.update(value.to_le_bytes());
        }
    }
    Ok(())
}

fn readout_bytes(readout: Readout) -> Vec<u8> {
    let Readout {
        layer,
        final_norm,
        pooled,
        pooled_layer,
    } = readout;
    let pooled = match pooled {
        Pooled::Skip => 0,
        Pooled::Normed => 1,
        Pooled::Projected => 2,
    };
    let [layer, pooled_layer] = [layer, pooled_layer].map(|layer| (layer as u64).to_le_bytes());
    [&layer[..], &pooled_layer, &[u8::from(final_norm), pooled]].concat()
}

const fn activation_byte(activation: Activation) -> u8 {
    match activation {
        Activation::QuickGelu => 0,
        Activation::GeluErf => 1,
        Activation::GeluTanh => 2,
    }
}

/// Matrix products choose their instructions at run time, and round by them.
#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
fn abilities() -> [u8; 4] {
    let has = [
        std::arch::is_x86_feature_detected!("avx2"),
        std::arch::is_x86_feature_detected!("fma"),
        std::arch::is_x86_feature_detected!("avx512f"),
        std::arch::is_x86_feature_detected!("avx512bf16"),
    ];
    has.map(u8::from)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "x86")))]
fn abilities() -> [u8; 1] {
    [2 + u8::from(cfg!(target_arch = "aarch64"))]
}

/// The digest of a window of an encoder that is known by its content.
pub(super) fn on_disk(content: &Digest, window: &Digest) -> Digest {
    let mut hash = Sha256::new();
    hash.update(content);
    hash.update(window);
    hash.finalize().into()
}
