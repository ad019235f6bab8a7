//! Products on the matrix unit of recent server CPUs (AMX): bf16 factors, f32 sums. Matrices in bf16
//! take one product; those in f16 and f32 are split into parts (`parts.rs`), so that they lose nothing
//! and are still faster than multiply-add.

mod parts;
mod product;
mod unit;

pub(super) use product::{Amx, ROOM, linear, parts_room};
