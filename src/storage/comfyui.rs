//! `ComfyUI`'s `CONDITIONING` in a file: the `.conditioning` layout of its custom nodes.
//!
//! A safetensors file. Its metadata hold `conditioning_format_version_0` = `1` and
//! `conditioning_schema`, the value as JSON: a list of `[hidden states, {attributes}]`, in which a
//! tensor is `{"__tensor__": i}` (the tensor `tensor_i` of the file, numbered as the value is walked
//! through) and a tuple is `{"__tuple__": […]}`. Our own files also name the `family`; `ComfyUI`
//! takes it from the model.

mod read;
mod write;

pub use read::{Loaded, load};
pub use write::{save, tensors};

/// The metadata key of the version. One version is written and read.
pub const VERSION_KEY: &str = "conditioning_format_version_0";
const VERSION: &str = "1";
/// The metadata key of the value as JSON.
pub const SCHEMA_KEY: &str = "conditioning_schema";
const FAMILY_KEY: &str = "family";

/// What stands for a tensor and for a tuple in the schema.
const TENSOR: &str = "__tensor__";
const TUPLE: &str = "__tuple__";
