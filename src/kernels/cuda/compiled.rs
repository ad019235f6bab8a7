//! Our kernels, compiled for the card that is there.

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute_enum as Attribute;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, CudaFunction, CudaModule};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;

use super::compiling::{Form, compile, version};
use super::failure::{Tried, device_error};
use crate::error::Result;
use crate::kernels::plan::{self, Kind, Text};

/// Compute capability, times ten, from which a kernel can await the one before (`common.cu`).
const AWAITS: i32 = 90;

/// What is compiled for, and where the results are kept.
#[derive(Clone, Debug)]
pub(super) struct Compiler {
    pub(super) context: Arc<CudaContext>,
    pub(super) kind: Kind,
    pub(super) folder: Option<PathBuf>,
}

/// Kernels that were compiled together.
#[derive(Debug)]
pub(super) struct Module {
    loaded: Arc<CudaModule>,
    kind: Kind,
    /// The compute capability that it was compiled for, times ten: 90 for 9.0.
    pub(super) target: i32,
}

impl Compiler {
    /// For the card itself, as its own instructions if the driver takes them; a compiler that is older than the
    /// card makes code for an older one, which the driver translates.
    pub(super) fn module(&self, text: Text) -> Result<Module> {
        let capability = self.context.compute_capability();
        let (major, minor) = capability.tried("tell the card's kind")?;
        let own = 10 * major + minor;
        let older = [90, 80, 75].into_iter().filter(|older| *older < own);
        let own = [(own, Form::Binary), (own, Form::Assembly)].into_iter();
        let mut failure = None;
        for (target, form) in own.chain(older.map(|older| (older, Form::Assembly))) {
            match self.made(text, target, form) {
                Ok(module) => return Ok(module),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let none = || device_error("there is nothing to compile the kernels for");
        Err(failure.unwrap_or_else(none))
    }

    fn made(&self, text: Text, target: i32, form: Form) -> Result<Module> {
        let compiled = self.compiled(text, target, form)?;
        // Both forms are given to the driver as they are; text ends in a zero.
        let module = self.context.load_module(Ptx::from_binary(compiled));
        Ok(Module {
            loaded: module.tried("load the compiled kernels")?,
            kind: self.kind,
            target,
        })
    }

    fn compiled(&self, text: Text, target: i32, form: Form) -> Result<Vec<u8>> {
        let source = plan::source(text, self.kind);
        let architecture = match form {
            Form::Binary => "sm",
            Form::Assembly => "compute",
        };
        let options = [
            format!("--gpu-architecture={architecture}_{target}"),
            "--std=c++17".to_owned(),
            "--device-as-default-execution-space".to_owned(), // of lambdas
        ];
        let by = format!("nvrtc {:?} {}", version(), options.join(" "));
        plan::compiled(self.folder.as_deref(), (&source, &by), || {
            compile(&source, form, &options)
        })
    }
}

impl Module {
    /// True if its kernels await the one before, so that they may start while that drains.
    pub(super) fn awaits(&self) -> bool {
        self.target >= AWAITS
    }

    pub(super) fn function(&self, name: &str) -> Result<CudaFunction> {
        let name = format!("{name}_{}", self.kind.suffix());
        let found = self.loaded.load_function(&name);
        let found = found.tried(&format!("find the kernel {name}"))?;
        // As much shared memory for each of them: where this changes, a kernel waits until the one before has
        // left, whatever else is said. It is a wish, which a driver may refuse.
        let all = Attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
        let _ = found.set_attribute(all, 100);
        Ok(found)
    }
}
