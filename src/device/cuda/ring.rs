//! Steps on their way to the GPU and back, through pinned memory.
//!
//! ```text
//! submit    host writes the slot's upload    ->  Inputs    graphs    Readback  ->  the slot's readback    event
//! collect   waits for the event, reads the slot's readback
//! ```
//!
//! The host is ahead of the GPU by up to [`SLOTS`] submissions. Everything is allocated once.

use cudarc::driver::{CudaEvent, CudaStream, result};

use super::gpu::{Shared, failed};
use super::memory::{Memory, Pinned};
use crate::device::DeviceError;
use crate::device::turns::{SLOTS, Turns};

/// See the module.
pub(super) struct Ring {
    slots: Vec<Slot>,
    turns: Turns,
}

struct Slot {
    upload: Pinned,
    readback: Pinned,
    done: CudaEvent,
}

impl Ring {
    /// Memory for this many words up and down.
    pub fn new(shared: &Shared, inputs: usize, readback: usize) -> Result<Ring, DeviceError> {
        let slot = || -> Result<Slot, DeviceError> {
            let done = shared.context.new_event(None);
            Ok(Slot {
                upload: Pinned::zeros(shared, inputs)?,
                readback: Pinned::zeros(shared, readback)?,
                done: done.map_err(|error| failed("making an event", error))?,
            })
        };
        Ok(Ring {
            slots: (0..SLOTS).map(|_| slot()).collect::<Result<_, _>>()?,
            turns: Turns::default(),
        })
    }

    /// Puts the upload of the next submission on the stream.
    ///
    /// # Panics
    /// If all slots wait to be collected: a mistake of the caller.
    pub fn upload(&mut self, stream: &CudaStream, inputs: &Memory, words: &[u32]) -> Result<(), DeviceError> {
        let slot = &mut self.slots[self.turns.next()];
        let pinned = &mut slot.upload.words()[..words.len()];
        pinned.copy_from_slice(words);
        // SAFETY: the range was checked against Inputs; the slot is not touched before its event, which follows.
        unsafe { result::memcpy_htod_async(inputs.address, pinned, stream.cu_stream()) }
            .map_err(|error| failed("uploading a step", error))
    }

    /// Puts the way back of the submission's results on the stream.
    pub fn download(&mut self, stream: &CudaStream, readback: &Memory) -> Result<(), DeviceError> {
        let slot = &mut self.slots[self.turns.next()];
        // SAFETY: the slot is as long as Readback and is not touched before its event.
        unsafe { result::memcpy_dtoh_async(slot.readback.words(), readback.address, stream.cu_stream()) }
            .and_then(|()| slot.done.record(stream))
            .map_err(|error| failed("reading a step's results back", error))?;
        self.turns.submitted();
        Ok(())
    }

    /// Waits for the oldest submission and copies what came back.
    ///
    /// # Panics
    /// If nothing was submitted: a mistake of the caller.
    pub fn collect(&mut self, words: &mut [u32]) -> Result<(), DeviceError> {
        let slot = &mut self.slots[self.turns.oldest()];
        slot.done
            .synchronize()
            .map_err(|error| failed("waiting for a step", error))?;
        words.copy_from_slice(&slot.readback.words()[..words.len()]);
        self.turns.collected();
        Ok(())
    }
}
