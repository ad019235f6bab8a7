//! The kernels for many rows (`many_rows.cu`): compiled when a forward first has so many, since a pair's does without.

use std::sync::OnceLock;

use candle_core::cuda_backend::cudarc::driver::CudaFunction;

use super::compiled::Compiler;
use super::failure::device_error;
use crate::error::Result;
use crate::kernels::plan::Text;

#[derive(Debug)]
pub(super) struct ManyRows {
    compiler: Compiler,
    /// Or why there are none.
    loaded: OnceLock<std::result::Result<Loaded, String>>,
}

#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) residual_norm: CudaFunction,
    pub(super) norm: CudaFunction,
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
        Ok(Loaded {
            residual_norm: module.function("residual_norm_many")?,
            norm: module.function("norm_many")?,
            bias_activate: module.function("bias_activate_many")?,
        })
    }
}
