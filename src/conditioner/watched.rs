//! TENSORS → TENSORS, WATCHED: which encoder's they are, what they are cast from, and whether the caller
//! wants them still, which is asked in front of each group that is read.

use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Tensor};

use crate::error::Result;
use crate::stop::Stop;
use crate::transfers::Transfers;
use crate::weights::{EncoderId, LoadReport, Mapped, TensorInfo, TensorSource, Unchanging};

/// A source with its encoder, that gives no more once it is to stop.
#[derive(Debug)]
pub(super) struct Watched<'a> {
    pub(super) id: EncoderId,
    pub(super) source: &'a dyn TensorSource,
    pub(super) stop: &'a Stop,
}

impl Watched<'_> {
    /// Counts the conversions between storage and computation.
    pub(super) fn note_casts(&self, dtype: DType, report: &mut LoadReport) {
        for info in self
            .source
            .names()
            .iter()
            .filter_map(|name| self.source.info(name))
        {
            let target = if info.shape.len() == 2 {
                dtype
            } else {
                DType::F32
            };
            let target = target.as_str().to_uppercase();
            if info.stored != target {
                *report
                    .cast
                    .entry(format!("{} -> {target}", info.stored))
                    .or_default() += 1;
            }
        }
    }
}

impl TensorSource for Watched<'_> {
    fn names(&self) -> Vec<String> {
        self.source.names()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.source.info(name)
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        self.stop.check()?;
        self.source.load(name, dtype, device)
    }

    fn load_stacks(
        &self,
        stacks: &[Vec<String>],
        dtype: DType,
        device: &Device,
    ) -> Result<Vec<Tensor>> {
        self.stop.check()?;
        self.source.load_stacks(stacks, dtype, device)
    }

    fn load_stacks_by(
        &self,
        transfers: &dyn Transfers,
        stacks: &[Vec<String>],
        dtype: DType,
        device: &Device,
    ) -> Result<Vec<Tensor>> {
        self.stop.check()?;
        self.source.load_stacks_by(transfers, stacks, dtype, device)
    }

    fn map_stack(&self, names: &[String], word: Unchanging) -> Result<Option<Mapped>> {
        self.stop.check()?;
        self.source.map_stack(names, word)
    }

    fn load_quantized(&self, name: &str, device: &Device) -> Result<Option<QTensor>> {
        self.stop.check()?;
        self.source.load_quantized(name, device)
    }

    fn hidden_act(&self) -> Option<&str> {
        self.source.hidden_act()
    }
}
