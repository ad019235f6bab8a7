//! The entry points of each vector unit, and the choice among them at run time.

use super::activation::activate;
use super::attention::{Head, attend};
use super::matrix::{Values, widen};
use super::norm::{Norm, norm};
use super::simd::Simd;
use super::tile::{Factors, Float, tile};
use crate::kernels::Activation;

/// What a vector unit does. Each function is as unsafe as the one whose name it has, and needs the
/// unit.
#[derive(Debug)]
pub(super) struct Isa {
    /// For reports.
    pub(super) name: &'static str,
    /// Products of one row, of two, … of as many as the registers hold.
    pub(super) tiles: &'static [unsafe fn(Factors, *mut f32)],
    /// Values of the depth that are one for the tiles.
    pub(super) terms: usize,
    /// The order in which a product goes through its factors.
    pub(super) order: Order,
    pub(super) widen: unsafe fn(Values<'_>, &mut [f32]),
    pub(super) norm: unsafe fn(Norm, usize),
    pub(super) attend: unsafe fn(Head),
    pub(super) activate: unsafe fn(*mut f32, usize, Activation),
}

/// How much passes before what comes next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    /// Columns of the matrix that pass the windows before the next ones do.
    pub(super) deep: usize,
    /// Windows that a tile's rows pass before the next rows do.
    pub(super) together: usize,
}

impl Order {
    /// The deepest of all.
    pub(super) const DEEPEST: usize = 768;

    /// Rows stay in the nearest cache and pass two windows; the panels come in one long stream each from
    /// the core's own. For units that are faster than the nearest cache's refill by one window alone.
    #[cfg(target_arch = "x86_64")]
    const ROWS_STAY: Order = Order {
        deep: Order::DEEPEST,
        together: 2,
    };

    /// A part of a panel stays in the nearest cache while all rows of a task pass by.
    const PANELS_STAY: Order = Order {
        deep: 96,
        together: 1,
    };
}

/// Entry points with a unit's instructions on: `$rows` rows and `$across` vectors fill its registers.
macro_rules! entry_points {
    ($name:ident, $unit:path, $features:literal, $across:literal, $rows:literal: $($n:literal)+; $order:ident; $by:path, $terms:literal) => {
        pub(super) mod $name {
            use super::*;

            #[target_feature(enable = $features)]
            unsafe fn tile_of<const N: usize>(factors: Factors, c: *mut f32) {
                tile::<$unit, $by, N, $across>(factors, c);
            }

            #[target_feature(enable = $features)]
            unsafe fn widen_of(values: Values<'_>, out: &mut [f32]) {
                widen::<$unit>(values, out);
            }

            #[target_feature(enable = $features)]
            unsafe fn norm_of(which: Norm, first: usize) {
                norm::<$unit>(which, first);
            }

            #[target_feature(enable = $features)]
            unsafe fn attend_of(head: Head) {
                attend::<$unit, $rows, $across>(head);
            }

            #[target_feature(enable = $features)]
            unsafe fn activate_of(values: *mut f32, n: usize, activation: Activation) {
                activate::<$unit>(values, n, activation);
            }

            pub(in super::super) static ISA: Isa = Isa {
                name: stringify!($name),
                tiles: &[$(tile_of::<$n>),+],
                terms: $terms,
                order: Order::$order,
                widen: widen_of,
                norm: norm_of,
                attend: attend_of,
                activate: activate_of,
            };

            const _: () = assert!(super::super::panel::COLUMNS % ($across * <$unit as Simd>::LANES) == 0);
        }
    };
}

#[cfg(target_arch = "x86_64")]
entry_points!(avx512, crate::kernels::cpu::avx512::Avx512, "avx512f,avx2,fma", 5, 5: 1 2 3 4 5; ROWS_STAY; Float, 1);
#[cfg(target_arch = "x86_64")]
entry_points!(avx512bf16, crate::kernels::cpu::avx512::Avx512, "avx512f,avx512bf16,avx512bw,avx2,fma", 5, 5: 1 2 3 4 5; ROWS_STAY; crate::kernels::cpu::dots::Word, 2);
#[cfg(target_arch = "x86_64")]
entry_points!(avx2, crate::kernels::cpu::avx2::Avx2, "avx2,fma,f16c", 2, 6: 1 2 3 4 5 6; PANELS_STAY; Float, 1);
#[cfg(target_arch = "aarch64")]
entry_points!(neon, crate::kernels::cpu::neon::Neon, "neon", 4, 6: 1 2 3 4 5 6; PANELS_STAY; Float, 1);

/// The products of words, where the machine has them.
#[cfg(target_arch = "x86_64")]
pub(super) fn dots() -> Option<&'static Isa> {
    let there = is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512bw");
    let vectors = available()
        .first()
        .is_some_and(|isa| isa.name == avx512::ISA.name);
    (there && vectors).then_some(&avx512bf16::ISA)
}

/// True if they are faster than those of f32: twice as fast on AMD's cores (Zen 4 and 5). Intel's (Cooper
/// Lake, Sapphire Rapids) do as many multiply-adds a cycle with either (uops.info, `VDPBF16PS` and
/// `VFMADD231PS`), so that f32's digits would be lost for nothing.
#[cfg(target_arch = "x86_64")]
pub(super) fn dots_are_faster() -> bool {
    // SAFETY: every processor with AVX-512 has leaf 0.
    unsafe { maker() == *b"AuthenticAMD" }
}

/// Who made the processor.
///
/// # Safety
///
/// It has leaf 0.
#[cfg(target_arch = "x86_64")]
unsafe fn maker() -> [u8; 12] {
    let leaf = std::arch::x86_64::__cpuid(0);
    let mut name = [0; 12];
    let parts = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes);
    name.copy_from_slice(parts.as_flattened());
    name
}

/// All vector units that this machine has, best first.
pub(super) fn available() -> Vec<&'static Isa> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        if avx2 && is_x86_feature_detected!("avx512f") {
            found.push(&avx512::ISA);
        }
        if avx2 {
            found.push(&avx2::ISA);
        }
    }
    #[cfg(target_arch = "aarch64")]
    found.push(&neon::ISA);
    found
}
