//! A list of conditionings → a safetensors file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use sd_conditioner::candle_core::{DType, Device};
use sd_conditioner::conditioning::Mask;
use sd_conditioner::graph::{Socket, entries_json};
use sd_conditioner::{ConditioningList, storage};

use crate::output::Named;

/// Writes files into a folder.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    folder: &'a Path,
    dtype: DType,
    written: usize,
}

impl Writer<'_> {
    pub(super) fn new(folder: &Path, dtype: DType) -> Writer<'_> {
        Writer {
            folder,
            dtype,
            written: 0,
        }
    }

    /// How many files there are.
    pub(super) fn written(&self) -> usize {
        self.written
    }

    /// Refuses ids that no file can be named by.
    pub(super) fn check(socket: &Socket) -> anyhow::Result<()> {
        let name = socket.to_string();
        if name.contains(['/', '\\', '\0']) || name.starts_with('.') {
            bail!("no file can be named {name:?}");
        }
        Ok(())
    }

    /// `<i>.hidden_states`, `<i>.pooled` and `<i>.mask` of each entry; everything else in the
    /// metadata `entries`, under ComfyUI's names.
    pub(super) fn write(&mut self, socket: &Socket, list: &ConditioningList) -> anyhow::Result<()> {
        let tensors = self.tensors(list)?;
        storage::expect_finite(&tensors).with_context(|| format!("{socket} is not written"))?;
        let metadata = BTreeMap::from(
            [
                ("entries", entries_json(list)),
                ("crate_version", env!("CARGO_PKG_VERSION").to_owned()),
                ("generator", "sd-conditioner".to_owned()),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        storage::write_tensors(self.path(socket), &tensors, &metadata)?;
        self.written += 1;
        Ok(())
    }

    fn tensors(&self, list: &ConditioningList) -> anyhow::Result<Named> {
        let mut tensors = Named::new();
        for (place, entry) in list.entries().iter().enumerate() {
            let conditioning = entry.conditioning();
            let all = [
                ("hidden_states", Some(conditioning.context())),
                ("pooled", conditioning.pooled()),
                ("mask", entry.mask().map(Mask::tensor)),
            ];
            for (name, tensor) in all {
                if let Some(tensor) = tensor {
                    let tensor = tensor.to_device(&Device::Cpu)?.to_dtype(self.dtype)?;
                    tensors.insert(format!("{place}.{name}"), tensor.contiguous()?);
                }
            }
        }
        Ok(tensors)
    }

    fn path(&self, socket: &Socket) -> PathBuf {
        self.folder.join(format!("{socket}.safetensors"))
    }
}
