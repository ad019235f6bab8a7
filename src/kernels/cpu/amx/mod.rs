//! Products on the matrix unit of recent server CPUs (AMX): bf16 factors, f32 sums. Matrices in bf16
//! take one product and are read where they lie; those in f16 and f32 are split into parts
//! (`../split.rs`), so that they lose nothing and are still faster than multiply-add.

#[cfg(all(test, target_os = "linux"))]
mod emulated;
mod finish;
#[cfg(test)]
mod layers_tests;
mod parts;
mod product;
mod rows;
mod unit;

#[cfg(test)]
pub(super) use layers_tests::unit;
pub(super) use parts::Parts;
pub(super) use product::{Amx, ROOM, linear, whole};
pub(super) use unit::{DEEP, SIDE, VALUES};

/// Software in the unit's place; false if there is none here.
#[cfg(test)]
fn stand_in() -> bool {
    #[cfg(target_os = "linux")]
    return emulated::begin();
    #[cfg(not(target_os = "linux"))]
    return false;
}
