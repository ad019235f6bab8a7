//! Encoders in the tasks of a rayon pool, whose threads are handed other tasks while they wait for a part of
//! their own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rayon::prelude::*;

use sd_conditioner::weights::{Lora, LoraFolder};
use sd_conditioner::{Conditioner, Family, Profile, Request};

use super::{entry, tiny, write};
use crate::support::entries::save_with;

/// What hangs for so long hangs forever.
const PATIENCE: Duration = Duration::from_secs(120);

const MODULE: &str = "lora_te_text_model_encoder_layers_0_mlp_fc1";

/// Whether the thread that does this work ends.
fn in_time(work: impl FnOnce() + Send + 'static) {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        work();
        tell.send(())
    });
    let done = told.recv_timeout(PATIENCE);
    done.expect("it hangs, or it panicked");
}

/// Calls `task` so often, on eight threads.
fn in_a_pool(tasks: usize, task: impl Fn(usize) + Send + Sync) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(8).build();
    pool.unwrap()
        .install(|| (0..tasks).into_par_iter().for_each(task));
}

/// Any work of rayon's gives way like this.
fn gives_way() -> bool {
    rayon::yield_now();
    false
}

#[test]
fn loras_are_put_on_in_a_pool_while_encoders_move() {
    in_time(|| {
        let base = tiny(Family::Sd1);
        let file = write(&[entry(&format!("{MODULE}.diff"), &[512, 128], 0.1)]);
        let lora: Lora = file.open().unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    base.offload().unwrap();
                }
            });
            in_a_pool(64, |task| {
                let lora = lora.at(task as f64 / 10.0);
                base.with_loras_unless(&[lora], &gives_way).unwrap();
                if task % 4 == 0 {
                    base.offload().unwrap();
                }
            });
            done.store(true, Ordering::Relaxed);
        });
    });
}

/// A rank that makes a product which candle shares between threads.
#[test]
fn prompts_name_loras_in_a_pool() {
    in_time(|| {
        let base: Conditioner = tiny(Family::Sd1);
        let folder = tempfile::tempdir().unwrap();
        let entries = [
            entry(&format!("{MODULE}.lora_down.weight"), &[256, 128], 0.1),
            entry(&format!("{MODULE}.lora_up.weight"), &[512, 256], 0.1),
        ];
        save_with(&folder.path().join("film.safetensors"), &entries, &[]);
        let loras = LoraFolder::open(folder.path()).unwrap();
        in_a_pool(256, |task| {
            let text = format!("a cat <lora:film:0.{}>", 1 + task % 7);
            let request = Request::new(&text).profile(Profile::A1111).loras(&loras);
            base.encode(request).unwrap();
        });
    });
}
