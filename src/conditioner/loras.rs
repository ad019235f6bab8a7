//! CONDITIONER + LORAS → CONDITIONER. Always from the encoders as they were loaded, so that taking
//! a LoRA away or giving it another strength leaves nothing behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Result;
use crate::stop;
use crate::weights::{EncoderId, FittedLora, LoraBase, LoraReport, WeightedLora, changed_by_loras};

use super::{Conditioner, Inner, Part};

impl Conditioner {
    /// The same encoders with these `LoRA`s, in this order; the ones that this handle already has
    /// are dropped. Tensors that no LoRA touches are shared, and this handle stays as it is.
    ///
    /// Every changed tensor is computed in f32 from the loaded one and rounded once to
    /// [`Builder::dtype`](super::Builder::dtype): `with_loras(&[])` gives back the loaded encoders,
    /// and any other list what a fresh load with that list would give, bit for bit. Kinds that
    /// multiply (`DoRA`, OFT, (IA)³, `GLoRA`) see the weights as the ones before have left them, as
    /// in `ComfyUI` (`calculate_weight` in `comfy/lora.py`). A strength of 0 leaves an encoder alone.
    ///
    /// An error names the file and the module: half a pair of matrices, a shape that does not fit,
    /// values that are not finite, an unsupported kind; or a LoRA of another family
    /// ([`WeightedLora::for_any_family`]). Modules without a place are no error: see
    /// [`lora_reports`](Self::lora_reports).
    pub fn with_loras(&self, loras: &[WeightedLora]) -> Result<Conditioner> {
        self.with_loras_unless(loras, &|| false)
    }

    /// The same, given up ([`ErrorKind::Stopped`]) as soon as `asked` says so. It is asked before each tensor,
    /// on this thread; this handle stays as it is.
    ///
    /// [`ErrorKind::Stopped`]: crate::ErrorKind::Stopped
    pub fn with_loras_unless(
        &self,
        loras: &[WeightedLora],
        asked: &dyn Fn() -> bool,
    ) -> Result<Conditioner> {
        let base = self.base();
        if loras.is_empty() {
            return Ok(self.beside(base));
        }
        let towers = base.description()?;
        let fitted = loras.iter().map(|lora| FittedLora::new(lora, &towers));
        let fitted = fitted.collect::<Result<Vec<FittedLora>>>()?;
        let placed = base.seat.placed();
        let identities = base.home.cache.identities(loras, placed.parts.len());
        let parts = placed.parts.iter().zip(identities).map(|(part, identity)| {
            let id = part.id;
            let clip = part.clip.with_glances(&mut |name, shown| {
                self.stop.check()?;
                stop::check(asked)?;
                changed_by_loras(&fitted, id, name, &|| shown.tensor())
            })?;
            Ok(Part::new(id, identity, clip))
        });
        let parts = parts.collect::<Result<_>>()?;
        let seat = base.home.seat_beside(&base.seat, &placed, parts)?;
        let reports = fitted.iter().map(|one| one.report().clone()).collect();
        let inner = base.with(loras.to_vec(), seat, reports);
        Ok(self.beside(Arc::new(inner)))
    }

    /// What became of each LoRA of this handle, in the order in which they were given.
    pub fn lora_reports(&self) -> &[LoraReport] {
        &self.inner.loras
    }

    /// What would become of these `LoRA`s on these encoders, without making any: the same reports,
    /// and the same errors except for those of the values.
    pub fn report_loras(&self, loras: &[WeightedLora]) -> Result<Vec<LoraReport>> {
        let towers = self.base().description()?;
        let fitted = loras.iter().map(|lora| FittedLora::new(lora, &towers));
        fitted.map(|one| Ok(one?.report().clone())).collect()
    }

    /// The encoders as they were loaded.
    fn base(&self) -> Arc<Inner> {
        let base = self.inner.base.as_ref().unwrap_or(&self.inner);
        Arc::clone(base)
    }
}

impl Inner {
    /// Names and shapes of all tensors.
    fn description(&self) -> Result<LoraBase> {
        let mut encoders: Vec<(EncoderId, BTreeMap<String, Vec<usize>>)> = Vec::new();
        for part in &self.seat.placed().parts {
            let mut shapes = BTreeMap::new();
            let _same = part.clip.with_glances(&mut |name, shown| {
                shapes.insert(name.to_owned(), shown.dims().to_vec());
                Ok(None)
            })?;
            encoders.push((part.id, shapes));
        }
        Ok(LoraBase::new(self.family, encoders.into_iter()))
    }
}
