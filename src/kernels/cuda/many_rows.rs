//! The kernels for many rows (`many_rows.cu`): compiled when a forward first has so many, since a pair's does without.

use std::sync::OnceLock;

use candle_core::cuda_backend::cudarc::driver::CudaFunction;

use super::compiled::Compiler;
use super::failure::device_error;
use crate::error::Result;
use crate::kernels::plan::{ROW_CHANNELS, Text};

#[derive(Debug)]
pub(super) struct ManyRows {
    compiler: Compiler,
    /// Or why there are none.
    loaded: OnceLock<std::result::Result<Loaded, String>>,
}

#[derive(Debug)]
pub(super) struct Loaded {
    /// One for each of [`ROW_CHANNELS`].
    pub(super) residual_norm: Vec<CudaFunction>,
    pub(super) norm: Vec<CudaFunction>,
    pub(super) bias_activate: CudaFunction,
}

impl ManyRows {
    pub(super) fn new(compiler: Compiler) -> ManyRows {
        let loaded = OnceLock::new();
        ManyRows { compiler, loaded }
    }

    /// The first time they are compiled and loaded, which no capture allows: a forward is run before it is captured.
    pub(super) fn loaded(&self) -> Result<&Loaded> {
        let load = || self.load().map_err(|error| error.to_string());
        match self.loaded.get_or_init(load) {
            Ok(loaded) => Ok(loaded),
            Err(why) => Err(device_error(why.clone())),
        }
    }

    fn load(&self) -> Result<Loaded> {
        let module = self.compiler.module(Text::Many)?;
        let each = |name: &str| {
            let names = ROW_CHANNELS
                .iter()
                .map(|channels| format!("{name}_{channels}"));
            names
                .map(|name| module.function(&name))
                .collect::<Result<_>>()
        };
        Ok(Loaded {
            residual_norm: each("residual_norm_many")?,
            norm: each("norm_many")?,
            bias_activate: module.function("bias_activate_many")?,
        })
    }
}
