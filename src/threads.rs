//! Says whether rayon has threads, before it ends the program because it has none.

use std::error::Error as _;
use std::{io, panic};

use rayon::ThreadPoolBuilder;

use crate::error::{Error, ErrorKind, Result};

/// Makes sure of the threads that what this thread asks rayon for will use: those of the pool that it is in, or
/// rayon's own, which start here if they have not yet, as they would a moment later.
pub(crate) fn expect() -> Result<()> {
    if rayon::current_thread_index().is_some() {
        return Ok(());
    }
    let Err(error) = ThreadPoolBuilder::new().build_global() else {
        return Ok(());
    };
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause.map(io::Error::kind) {
        // There are no threads on this system, and rayon does without.
        Some(io::ErrorKind::Unsupported) => Ok(()),
        Some(_) => Err(refused(&error.to_string())),
        // They were started before, or could not be.
        None => match panic::catch_unwind(rayon::current_num_threads) {
            Ok(_) => Ok(()),
            Err(_) => Err(refused("this was tried before, and rayon tries it once")),
        },
    }
}

fn refused(why: &str) -> Error {
    let message = format!("rayon's threads could not be started: {why}");
    Error::new(ErrorKind::Device, message).hint(
        "allow more threads (`ulimit -u`, a container's limit), set RAYON_NUM_THREADS to fewer, or call from \
         inside a `rayon::ThreadPool` of your own",
    )
}
