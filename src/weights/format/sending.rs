//! STORED BYTES → A DEVICE, part by part: what is read next does not wait for what is being copied, and
//! no room on this machine is as large as a tensor.

use candle_core::{DType, Device, Tensor};

use super::archive::Archive;
use super::converting::Place;
use super::decode::Flaw;
use super::pieces::Pieces;
use crate::error::Result;
use crate::transfers::{IN_PARTS, Transfers};

impl Pieces<'_> {
    /// Reads all of them on their way to a device, as values of the type wanted or of one that it then
    /// widens: `[n_values]`, and what is wrong with each piece, if anything. `None` for other types, and
    /// where parts make no difference.
    pub(crate) fn send(
        &self,
        archive: &Archive,
        want: DType,
        (device, transfers): (&Device, &dyn Transfers),
    ) -> Result<Option<(Tensor, Vec<Option<Flaw>>)>> {
        let dtype = self.sent_as(want, device);
        let known = matches!(dtype, DType::F32 | DType::F16 | DType::BF16);
        if !known || self.n_values() * dtype.size_in_bytes() < IN_PARTS {
            return Ok(None);
        }
        let mut job = self.job(archive, dtype);
        let tensor = transfers.upload(dtype, self.n_values(), &mut |first, room| {
            job.fill(
                first,
                match dtype {
                    DType::F16 => Place::F16(bytemuck::cast_slice_mut(room)),
                    DType::BF16 => Place::Bf16(bytemuck::cast_slice_mut(room)),
                    _ => Place::F32(bytemuck::cast_slice_mut(room)),
                },
            )
        })?;
        Ok(Some((tensor.to_dtype(want)?, job.flaws())))
    }
}
