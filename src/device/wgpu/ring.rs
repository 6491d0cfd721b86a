//! Steps on their way to the adapter and back.
//!
//! ```text
//! slot      upload, mapped for writing          readback, mapped for reading
//! submit    host writes, unmap, copied          copied from Readback behind the step's passes
//! after     mapped again when the step is done  mapped when the step is done
//! collect   -                                   host reads, unmap
//! ```
//!
//! The host is ahead of the adapter by up to [`SLOTS`] submissions: it waits for the oldest one while the later ones run.
//! Everything is made once; a step makes no buffer.

use super::adapter::{Shared, backend};
use crate::device::DeviceError;
use crate::device::turns::{SLOTS, Turns};

/// See the module.
pub(super) struct Ring {
    slots: Vec<Slot>,
    turns: Turns,
}

/// One submission's transfers.
pub(super) struct Slot {
    pub upload: wgpu::Buffer,
    pub readback: wgpu::Buffer,
    submission: Option<wgpu::SubmissionIndex>,
}

impl Ring {
    /// Buffers for this many words up and down.
    pub fn new(shared: &Shared, inputs: usize, readback: usize) -> Result<Ring, DeviceError> {
        use wgpu::BufferUsages as Usage;
        let buffer = |label: &'static str, words: usize, usage: Usage, mapped: bool| {
            shared.watched(label, || {
                shared.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some(label),
                    size: 4 * words as u64,
                    usage,
                    mapped_at_creation: mapped,
                })
            })
        };
        let mut slots = Vec::with_capacity(SLOTS);
        for _ in 0..SLOTS {
            slots.push(Slot {
                upload: buffer("upload", inputs, Usage::MAP_WRITE | Usage::COPY_SRC, true)?,
                readback: buffer("readback", readback, Usage::MAP_READ | Usage::COPY_DST, false)?,
                submission: None,
            });
        }
        Ok(Ring {
            slots,
            turns: Turns::default(),
        })
    }

    /// Takes a slot and writes what goes up; the slot's buffers can then be used in a submission.
    ///
    /// # Panics
    /// If all slots wait to be collected: a mistake of the caller.
    pub fn begin(&mut self, words: &[u32]) -> Result<&Slot, DeviceError> {
        let slot = &self.slots[self.turns.next()];
        if !words.is_empty() {
            let bytes: &[u8] = bytemuck::cast_slice(words);
            let mapped = slot.upload.get_mapped_range_mut(..bytes.len() as u64);
            let mut mapped = mapped.map_err(|error| backend(format!("the upload buffer: {error}")))?;
            mapped.slice(..).copy_from_slice(bytes);
        }
        slot.upload.unmap();
        Ok(slot)
    }

    /// The slot that [`begin`](Ring::begin) took has been submitted.
    pub fn submitted(&mut self, submission: wgpu::SubmissionIndex) {
        let slot = &mut self.slots[self.turns.next()];
        slot.submission = Some(submission);
        // A failure shows when the buffers are used next.
        slot.upload.map_async(wgpu::MapMode::Write, .., |_| ());
        slot.readback.map_async(wgpu::MapMode::Read, .., |_| ());
        self.turns.submitted();
    }

    /// Waits for the oldest submission and copies what came back.
    ///
    /// # Panics
    /// If nothing was submitted: a mistake of the caller.
    pub fn collect(&mut self, shared: &Shared, words: &mut [u32]) -> Result<(), DeviceError> {
        let slot = &mut self.slots[self.turns.oldest()];
        shared.wait(slot.submission.take())?;
        if !words.is_empty() {
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(words);
            let mapped = slot.readback.get_mapped_range(..bytes.len() as u64);
            bytes.copy_from_slice(&mapped.map_err(|error| backend(format!("the readback buffer: {error}")))?);
        }
        slot.readback.unmap();
        self.turns.collected();
        Ok(())
    }
}
