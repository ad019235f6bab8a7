//! Everything that was enqueued on a stream, to be enqueued again in one call.
#![expect(
    unsafe_code,
    reason = "a captured graph is used under its owner's lock"
)]

use std::fmt;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{CudaGraph, CudaStream, sys};

use super::failure::{Tried, device_error};
use crate::error::Result;

pub(super) struct Graph(CudaGraph);

// SAFETY: a graph may be used from any thread, one at a time; it is reached through the `Mutex` of
// its engine only.
unsafe impl Send for Graph {}

impl Graph {
    /// Captures what `enqueue` puts on the stream; nothing of it runs. Other threads may use the card
    /// meanwhile.
    pub(super) fn capture(
        stream: &Arc<CudaStream>,
        enqueue: impl FnOnce() -> Result<()>,
    ) -> Result<Graph> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.begin_capture(mode).tried("capture a forward")?;
        let enqueued = enqueue();
        // Also after a failure: the stream must leave the capture. An error that was noted before, on some other
        // stream, is told first, and leaves it there.
        let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0));
        let left = stream.capture_status()
            == Ok(sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE);
        let graph = if left {
            graph
        } else {
            stream.end_capture(sys::CUgraphInstantiate_flags(0))
        };
        enqueued?;
        let graph = graph.tried("capture a forward")?;
        let graph = graph.ok_or_else(|| device_error("CUDA captured nothing"))?;
        graph.upload().tried("upload a captured forward")?;
        Ok(Graph(graph))
    }

    pub(super) fn launch(&self) -> Result<()> {
        self.0.launch().tried("start a captured forward")
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Graph")
    }
}
