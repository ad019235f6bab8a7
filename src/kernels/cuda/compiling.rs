//! A text, compiled by nvrtc while the program runs.
#![expect(unsafe_code, reason = "nvrtc is called through its C interface")]

use std::ffi::{CString, c_char};

use candle_core::cuda_backend::cudarc::nvrtc::{result, sys};

use super::failure::{Tried, device_error};
use crate::error::Result;

/// What a text is compiled to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Instructions of one kind of card. Drivers of the compiler's CUDA version, newer ones and older ones of the same
    /// major version load them as they are.
    Binary,
    /// PTX, which the driver compiles once more; one that is older than the compiler refuses it.
    Assembly,
}

/// The compiler's version, zeros where it does not tell.
pub(super) fn version() -> [i32; 2] {
    let [mut major, mut minor] = [0, 0];
    // SAFETY: the call writes two numbers.
    let _ = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    [major, minor]
}

/// What the driver loads.
pub(super) fn compile(source: &str, form: Form, options: &[String]) -> Result<Vec<u8>> {
    let source = CString::new(source).map_err(|_| device_error("a zero byte in a kernel"))?;
    let program = Program(result::create_program(&source, None).tried("begin to compile")?);
    // SAFETY: the program is alive, and so is its text.
    let compiled = unsafe { result::compile_program(program.0, options) };
    if let Err(error) = compiled {
        let message = format!("CUDA could not compile the kernels: {}", program.log());
        return Err(device_error(message).because(error));
    }
    match form {
        Form::Binary => program.binary(),
        Form::Assembly => program.assembly(),
    }
}

struct Program(sys::nvrtcProgram);

impl Program {
    fn assembly(&self) -> Result<Vec<u8>> {
        // SAFETY: the program is alive, and was compiled.
        let text = unsafe { result::get_ptx(self.0) };
        Ok(bytes(text.tried("get what was compiled")?))
    }

    fn binary(&self) -> Result<Vec<u8>> {
        let mut size = 0;
        // SAFETY: the program is alive; one number is written.
        let status = unsafe { sys::nvrtcGetCUBINSize(self.0, &raw mut size) };
        status.result().tried("get what was compiled")?;
        let mut binary = vec![0; size];
        // SAFETY: the program is alive; so many bytes are written.
        let status = unsafe { sys::nvrtcGetCUBIN(self.0, binary.as_mut_ptr()) };
        status.result().tried("get what was compiled")?;
        if binary.is_empty() {
            return Err(device_error("CUDA compiled the kernels to nothing"));
        }
        Ok(bytes(binary))
    }

    /// What the compiler says, up to the zero at its end.
    fn log(&self) -> String {
        // SAFETY: the program is alive.
        let log = unsafe { result::get_program_log(self.0) };
        let log = bytes(log.unwrap_or_default());
        String::from_utf8_lossy(&log).trim_end_matches('\0').into()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by `create_program`, destroyed once. A failure could be told to nobody.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

fn bytes(letters: Vec<c_char>) -> Vec<u8> {
    let each = letters.into_iter();
    each.flat_map(c_char::to_ne_bytes).collect()
}
