//! The CPU's fast path: all layers of a tower over panels of tokens (`panel.rs`), with the best vector
//! unit that the machine has.
//!
//! Everything here is f32 but the matrices, which stay as they are stored and are widened a few rows
//! at a time, so that they cost their own size and no more.
#![expect(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    clippy::inline_always,
    reason = "vector instructions; what each body needs stands in its `# Safety`"
)]

mod activation;
mod ahead;
mod aligned;
#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod board;
#[cfg(target_arch = "x86_64")]
mod dots;
mod groups;
mod held;
mod isa;
mod linear;
mod matrix;
#[cfg(target_arch = "aarch64")]
mod neon;
mod norm;
mod panel;
mod panels;
mod rooms;
mod shared;
mod simd;
#[cfg(target_arch = "x86_64")]
mod split;
mod stack;
mod team;
mod tile;
mod unit;

use candle_core::{DType, Device, Tensor};

use self::rooms::Shelf;
use self::unit::Units;
use super::{Activation, Kernels, Reference, Tower};
use crate::error::{Error, ErrorKind, Result};

/// Fused layers on the CPU's best units; single operations as in [`Reference`].
#[derive(Debug)]
pub struct Cpu {
    unit: Units,
    plain: Reference,
    shelf: Shelf,
}

impl Cpu {
    /// The best kernels for this machine's CPU; `None` if it has no vector unit that they know.
    pub fn new() -> Result<Option<Cpu>> {
        Ok(Cpu::all()?.into_iter().next())
    }

    /// The kernels for one unit by its name.
    pub fn named(name: &str) -> Result<Cpu> {
        let mut all = Cpu::all()?;
        let names: Vec<&str> = all.iter().map(Kernels::name).collect();
        let Some(place) = names.iter().position(|other| *other == name) else {
            let message = format!("this CPU has no unit `{name}` that the kernels know");
            let hint = format!("it has: {}", names.join(", "));
            return Err(Error::new(ErrorKind::Unsupported, message).hint(hint));
        };
        Ok(all.swap_remove(place))
    }

    /// One for each unit of this machine, best first: the matrix unit where there is one (`amx`),
    /// then vector units (`avx512`, `avx2`, `neon`). AVX-512's products of bf16 (`avx512bf16`) come before
    /// `avx512` where they are faster than those of f32, else behind it.
    pub fn all() -> Result<Vec<Cpu>> {
        let units = Units::available().into_iter();
        let each = units.map(|unit| {
            let plain = Reference::new(&Device::Cpu)?;
            let shelf = Shelf::default();
            Ok(Cpu { unit, plain, shelf })
        });
        each.collect()
    }
}

impl Kernels for Cpu {
    fn name(&self) -> &'static str {
        self.unit.name()
    }

    fn linear(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        self.plain.linear(x, weight, bias)
    }

    fn layer_norm(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        self.plain.layer_norm(x, weight, bias)
    }

    fn activate(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        self.plain.activate(x, activation)
    }

    fn causal_attention(
        &self,
        qkv: &Tensor,
        heads: usize,
        hidden_keys: Option<&Tensor>,
    ) -> Result<Tensor> {
        self.plain.causal_attention(qkv, heads, hidden_keys)
    }

    fn run(
        &self,
        tower: &Tower<'_>,
        x: &Tensor,
        hidden_keys: Option<&Tensor>,
        keep: &[usize],
    ) -> Result<Option<Vec<Tensor>>> {
        held::run((self.unit, &self.shelf), tower, x, hidden_keys, keep)
    }

    fn takes_mapped(&self, stored: DType, kept: DType) -> bool {
        stored == kept || (kept == DType::F32 && self.unit.widens(stored))
    }
}
