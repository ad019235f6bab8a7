//! Memory of the host that the card reads and writes by itself (page-locked), in parts that are used over
//! and over. What is in other memory the driver copies there first, on the thread that asks; so it goes where
//! the system has no such memory to give.
#![expect(
    unsafe_code,
    reason = "copies are asked for by address, and events say when they are done"
)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaEvent, CudaStream, PinnedHostSlice, result,
};

use super::failure::Tried;
use super::functions::Address;
use crate::error::Result;

/// Bytes of a part: many steps of reading, so that all threads have some.
pub(super) const PART: usize = 8 << 20;

/// Parts that one thread has at most, under way or its own.
pub(super) const PARTS: usize = 3;

/// Parts that nobody has now.
#[derive(Default)]
pub(super) struct Parts(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    /// The one that was given back first comes first: its copy is done the soonest.
    parts: VecDeque<Part>,
    made: usize,
}

impl Parts {
    /// A new one while there are few, else the one that waits longest; a further one if other threads have
    /// them all.
    pub(super) fn take(&self, context: &Arc<CudaContext>) -> Result<Part> {
        let waits = {
            let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let few = waiting.made < PARTS;
            waiting.made += usize::from(few);
            if few { None } else { waiting.parts.pop_front() }
        };
        waits.map_or_else(|| Part::new(context), Ok)
    }

    /// A copy may still be under way.
    pub(super) fn give_back(&self, part: Part) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.parts.push_back(part);
    }
}

/// [`PART`] bytes, aligned for every type of value.
enum Room {
    Locked(PinnedHostSlice<u8>),
    Ordinary(Vec<u64>),
}

impl Room {
    /// Not of the kind that is fast to write and slow to read: values are looked at after they are read.
    fn new(context: &Arc<CudaContext>) -> Result<Room> {
        // SAFETY: it is written right below.
        let locked = unsafe { context.alloc_pinned_with_flags::<u8>(PART, 0) };
        // Systems set limits to this kind of memory only. Any other trouble shows at the next call.
        let Ok(mut room) = locked else {
            return Ok(Room::Ordinary(vec![0; PART / size_of::<u64>()]));
        };
        let start = room.as_mut_ptr().tried("wait for a copy")?;
        // SAFETY: there are so many bytes, which nobody else has.
        unsafe { start.write_bytes(0, PART) };
        Ok(Room::Locked(room))
    }

    fn bytes(&mut self) -> Result<&mut [u8]> {
        match self {
            Room::Locked(room) => room.as_mut_slice().tried("wait for a copy"),
            Room::Ordinary(room) => Ok(bytemuck::cast_slice_mut(room)),
        }
    }
}

/// Room for some values, and the end of the copy that last read or wrote them.
pub(super) struct Part {
    room: Room,
    copied: CudaEvent,
}

impl Part {
    fn new(context: &Arc<CudaContext>) -> Result<Part> {
        let room = Room::new(context)?;
        let copied = context.new_event(None).tried("make an event")?;
        Ok(Part { room, copied })
    }

    /// Its bytes, once no copy is under way.
    pub(super) fn room(&mut self) -> Result<&mut [u8]> {
        self.copied.synchronize().tried("wait for a copy")?;
        self.room.bytes()
    }

    /// Copies the first bytes to the card when the stream gets there.
    pub(super) fn send(&mut self, n_bytes: usize, to: Address, stream: &CudaStream) -> Result<()> {
        let from = &self.room()?[..n_bytes];
        // SAFETY: there is room for as many at the address, and what is read stays as it is until the
        // event: `room` and `drop` wait for it.
        let copied = unsafe { result::memcpy_htod_async(to, from, stream.cu_stream()) };
        copied.tried("copy to the card")?;
        self.note(stream)
    }

    /// Copies as many from the card when the stream gets there.
    pub(super) fn receive(
        &mut self,
        n_bytes: usize,
        from: Address,
        stream: &CudaStream,
    ) -> Result<()> {
        let to = &mut self.room()?[..n_bytes];
        // SAFETY: there are as many at the address, and nobody looks at what is written before the event:
        // `room` and `drop` wait for it.
        let copied = unsafe { result::memcpy_dtoh_async(to, from, stream.cu_stream()) };
        copied.tried("copy from the card")?;
        self.note(stream)
    }

    /// The event comes behind the copy that was just asked for.
    fn note(&mut self, stream: &CudaStream) -> Result<()> {
        let recorded = self.copied.record(stream);
        if recorded.is_err() {
            let _ = stream.synchronize(); // no event will say when this copy is done
        }
        recorded.tried("record an event")
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // What fails here has failed before, where it was told.
        let _ = self.copied.synchronize();
    }
}
