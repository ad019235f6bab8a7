//! Our kernels, compiled for the card that is there.
#![expect(unsafe_code, reason = "the compiler is asked for its version")]

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{CudaContext, CudaFunction, CudaModule};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileOptions, Ptx, compile_ptx_with_opts, sys};

use super::failure::{Tried, device_error};
use crate::error::{Error, Result};
use crate::kernels::plan::{self, Kind, Text};

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
    /// For the card itself; a compiler that is older than the card makes code for an older one.
    pub(super) fn module(&self, text: Text) -> Result<Module> {
        let capability = self.context.compute_capability();
        let (major, minor) = capability.tried("tell the card's kind")?;
        let own = 10 * major + minor;
        let older = [90, 80, 75].into_iter().filter(|older| *older < own);
        let mut failure = None;
        for target in std::iter::once(own).chain(older) {
            match self.compiled(text, target) {
                Ok(assembly) => return self.loaded(assembly, target),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let none = || device_error("there is nothing to compile the kernels for");
        Err(failure.unwrap_or_else(none))
    }

    fn compiled(&self, text: Text, target: i32) -> Result<String> {
        let source = plan::source(text, self.kind);
        let options = vec![
            format!("--gpu-architecture=compute_{target}"),
            "--std=c++17".to_owned(),
            "--device-as-default-execution-space".to_owned(), // of lambdas
        ];
        let by = format!("nvrtc {:?} {}", version(), options.join(" "));
        plan::compiled(self.folder.as_deref(), (&source, &by), || {
            let options = CompileOptions {
                options,
                ..CompileOptions::default()
            };
            let compiled = compile_ptx_with_opts(&source, options);
            let compiled = compiled.tried("compile the kernels")?;
            Ok::<_, Error>(compiled.to_src())
        })
    }

    fn loaded(&self, assembly: String, target: i32) -> Result<Module> {
        let module = self.context.load_module(Ptx::from_src(assembly));
        Ok(Module {
            loaded: module.tried("load the compiled kernels")?,
            kind: self.kind,
            target,
        })
    }
}

impl Module {
    pub(super) fn function(&self, name: &str) -> Result<CudaFunction> {
        let name = format!("{name}_{}", self.kind.suffix());
        let found = self.loaded.load_function(&name);
        found.tried(&format!("find the kernel {name}"))
    }
}

/// The compiler's, zeros where it does not tell.
fn version() -> [i32; 2] {
    let [mut major, mut minor] = [0, 0];
    // SAFETY: the call writes two numbers.
    let _ = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    [major, minor]
}
