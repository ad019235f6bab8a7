//! Kernels in the middle of whose work something else happens, as on a thread of rayon's that is handed
//! another task while it waits; and a watch on what might hang.

use std::fmt;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::kernels::{Activation, Kernels, Reference};
use crate::transfers::Transfers;
use crate::weights::Lora;

/// What hangs for so long hangs forever.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is called with the number of times that it was.
type Meddle = Box<dyn FnMut(usize) + Send>;

/// Plain ones.
pub(super) struct Meddling {
    plain: Reference,
    times: Mutex<usize>,
    at_moves: Mutex<Option<Meddle>>,
    at_layers: Mutex<Option<Meddle>>,
}

impl Meddling {
    fn new(at_moves: Option<Meddle>, at_layers: Option<Meddle>) -> Meddling {
        Meddling {
            plain: Reference::new(&Device::Cpu).unwrap(),
            times: Mutex::default(),
            at_moves: Mutex::new(at_moves),
            at_layers: Mutex::new(at_layers),
        }
    }

    /// Calls this in front of each move of an encoder to them, and before the first.
    pub(super) fn at_moves(meddle: impl FnMut(usize) + Send + 'static) -> Meddling {
        Meddling::new(Some(Box::new(meddle)), None)
    }

    /// Calls this in each layer of a forward.
    pub(super) fn at_layers(meddle: impl FnMut(usize) + Send + 'static) -> Meddling {
        Meddling::new(None, Some(Box::new(meddle)))
    }

    /// Not from within itself.
    fn meddle(&self, at: &Mutex<Option<Meddle>>) {
        let Some(mut meddle) = at.lock().unwrap().take() else {
            return;
        };
        let time = {
            let mut times = self.times.lock().unwrap();
            *times += 1;
            *times
        };
        meddle(time);
        *at.lock().unwrap() = Some(meddle);
    }
}

impl fmt::Debug for Meddling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meddling").finish_non_exhaustive()
    }
}

impl Kernels for Meddling {
    fn name(&self) -> &'static str {
        "meddling"
    }

    fn linear(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        self.plain.linear(x, weight, bias)
    }

    fn layer_norm(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        self.plain.layer_norm(x, weight, bias)
    }

    fn activate(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        self.meddle(&self.at_layers);
        self.plain.activate(x, activation)
    }

    fn causal_attention(
        &self,
        qkv: &Tensor,
        heads: usize,
        hidden_keys: Option<&Tensor>,
    ) -> Result<Tensor> {
        self.plain.causal_attention(qkv, heads, hidden_keys)
    }

    fn transfers(&self) -> Option<Arc<dyn Transfers>> {
        self.meddle(&self.at_moves);
        None
    }
}

/// A thread of its own does it, and the test fails where that never ends.
pub(super) fn in_time(work: impl FnOnce() + Send + 'static) {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        work();
        tell.send(())
    });
    told.recv_timeout(PATIENCE)
        .expect("it hangs, or it panicked");
}

/// A LoRA that changes one matrix of a tiny ViT-L, and the folder that it is in, by the name `film`.
pub(super) fn lora() -> (tempfile::TempDir, Lora) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("film.safetensors");
    let change = Tensor::rand(-0.1f32, 0.1, (512, 128), &Device::Cpu).unwrap();
    let name = "lora_te1_text_model_encoder_layers_0_mlp_fc1.diff".to_owned();
    candle_core::safetensors::save(&[(name, change)].into(), &path).unwrap();
    let lora = Lora::open(&path).unwrap();
    (folder, lora)
}
