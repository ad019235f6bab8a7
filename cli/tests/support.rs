//! Running the command, and reading what it wrote.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sd_conditioner::candle_core::{DType, Tensor};

/// What a run left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The command, offline and with an empty cache.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sd-conditioner"));
    command
        .args(arguments)
        .env_remove("HF_HUB_CACHE")
        .env_remove("HUGGINGFACE_HUB_CACHE")
        .env("HF_HOME", "/nonexistent/cache")
        .env("HF_HUB_OFFLINE", "1");
    command
}

pub(crate) fn run(arguments: &[&str]) -> Ran {
    Ran::of(command(arguments).output().unwrap())
}

pub(crate) fn run_with_input(arguments: &[&str], input: &str) -> Ran {
    let mut child = command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    Ran::of(child.wait_with_output().unwrap())
}

impl Ran {
    pub(crate) fn of(output: Output) -> Ran {
        Ran {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Panics with everything that was said unless the exit status is `code`.
    pub(crate) fn expect(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// The one line that begins with `error: `.
    pub(crate) fn error(&self) -> &str {
        let lines = self.stderr.lines();
        let errors: Vec<&str> = lines.filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{self:#?}");
        errors[0]
    }
}

/// `encode` with tiny random weights, plus `more`, into `out`.
pub(crate) fn encode(family: &str, more: &[&str], out: &Path) -> Ran {
    let mut arguments = vec!["encode", "--random-weights", "--tiny", "--family", family];
    arguments.extend_from_slice(more);
    arguments.extend_from_slice(&["--out", out.to_str().unwrap()]);
    run(&arguments)
}

/// A file that was written.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) metadata: HashMap<String, String>,
    /// Name → type, shape, raw bytes.
    pub(crate) tensors: HashMap<String, (String, Vec<usize>, Vec<u8>)>,
}

pub(crate) fn read(path: &Path) -> Written {
    let bytes = std::fs::read(path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = tensors.iter().map(|(name, view)| {
        let dtype = format!("{:?}", view.dtype());
        let entry = (dtype, view.shape().to_vec(), view.data().to_vec());
        (name.to_owned(), entry)
    });
    Written {
        tensors: tensors.collect(),
        metadata: header.metadata().clone().unwrap_or_default(),
    }
}

impl Written {
    pub(crate) fn shape(&self, name: &str) -> &[usize] {
        &self.tensors[name].1
    }

    pub(crate) fn bytes(&self, name: &str) -> &[u8] {
        &self.tensors[name].2
    }

    /// The numbers of an f32 tensor.
    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        let (dtype, _, bytes) = &self.tensors[name];
        assert_eq!(dtype, "F32");
        let words = bytes.as_chunks::<4>().0.iter();
        words.map(|word| f32::from_le_bytes(*word)).collect()
    }

    pub(crate) fn is_zero(&self, name: &str) -> bool {
        self.bytes(name).iter().all(|byte| *byte == 0)
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.tensors.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}

pub(crate) fn floats(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.to_dtype(DType::F32).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// A textual-inversion file with one vector of this width.
pub(crate) fn embedding(path: &Path, width: usize) {
    let values: Vec<f32> = (0_u8..=255)
        .cycle()
        .take(width)
        .map(|step| f32::from(step) / 64.0 - 2.0)
        .collect();
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let view = TensorView::new(Dtype::F32, vec![1, width], &bytes).unwrap();
    safetensors::serialize_to_file([("emb_params", view)], None, path).unwrap();
}
