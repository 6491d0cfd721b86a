//! Work on streams: what is queued, and how it is done.
//!
//! Eagerly, work is done as soon as it is queued. Lazily, it waits until something needs it: a synchronisation, or a
//! copy to memory that the caller may look at. Then only what must have happened by then is done: earlier work of the
//! stream, and of other streams what events and the legacy stream's rules put before it. A program that relies on more
//! than that sees old data.

use std::time::Instant;

use super::error::{INVALID_HANDLE, SUCCESS};
use super::{Called, Driver, call_in_context};
use crate::cublaslt::Product;
use crate::execute::{self, Launch};
use crate::finding::{Finding, Kind};

/// A piece of work. Addresses of the host are numbers, so that work can move between threads.
#[derive(Clone)]
pub enum Work {
    /// A kernel.
    Launch(Launch),
    /// A copy from the host: from an address, or of data that was taken already.
    ToDevice {
        /// Device address.
        to: u64,
        /// Host address.
        from: usize,
        /// The data, if it was taken at the call.
        staged: Option<Vec<u8>>,
        /// Length.
        bytes: usize,
    },
    /// A copy to the host.
    ToHost {
        /// Host address.
        to: usize,
        /// Device address.
        from: u64,
        /// Length.
        bytes: usize,
    },
    /// A copy on the device.
    OnDevice {
        /// Device address.
        to: u64,
        /// Device address.
        from: u64,
        /// Length.
        bytes: usize,
    },
    /// A fill with a pattern of 1, 2 or 4 bytes.
    Fill {
        /// Device address.
        to: u64,
        /// Pattern.
        pattern: u32,
        /// Bytes of the pattern.
        width: usize,
        /// Number of patterns.
        count: usize,
    },
    /// Frees memory.
    Free(u64),
    /// An event's recording, by its number.
    Record {
        /// Event.
        event: usize,
        /// Which of its recordings.
        number: u64,
    },
    /// Waits for an event's recording.
    Wait {
        /// Event.
        event: usize,
        /// Which of its recordings.
        number: u64,
    },
    /// A product of the model of cuBLASLt.
    Product(Box<Product>),
    /// A call of the host.
    Call {
        /// Function.
        function: extern "C" fn(usize),
        /// Its argument.
        argument: usize,
    },
}

/// Queues a product; whether the driver took it.
pub fn multiply(stream: usize, product: Product) -> bool {
    let work = Work::Product(Box::new(product));
    call_in_context(|driver| driver.enqueue(stream, work)) == SUCCESS
}

impl Driver {
    /// Queues work on a stream; adds it to the graph if the stream is being captured.
    pub fn enqueue(&mut self, stream: usize, work: Work) -> Called {
        self.stream(stream)?;
        if self.capture(stream, &work)? {
            return Ok(());
        }
        let sequence = self.sequence;
        self.sequence += 1;
        let queue = &mut self.streams.get_mut(&stream).ok_or(INVALID_HANDLE)?.queue;
        queue.push_back((sequence, work));
        if self.lazy { Ok(()) } else { self.run_stream(stream) }
    }

    /// Does all work of a stream.
    pub fn run_stream(&mut self, stream: usize) -> Called {
        self.run_until(stream, u64::MAX)
    }

    /// Does all work of all streams, in the order of the calls.
    pub fn run_everything(&mut self) -> Called {
        loop {
            let first = |(handle, stream): (&usize, &super::stream::Stream)| {
                stream.queue.front().map(|(sequence, _)| (*sequence, *handle))
            };
            let Some((sequence, stream)) = self.streams.iter().filter_map(first).min() else {
                return Ok(());
            };
            self.run_until(stream, sequence + 1)?;
        }
    }

    /// Does the work of a stream that was queued before `limit`, and what must come before it.
    pub fn run_until(&mut self, handle: usize, limit: u64) -> Called {
        loop {
            let stream = self.streams.get_mut(&handle).ok_or(INVALID_HANDLE)?;
            let blocking = stream.blocking;
            let sequence = match stream.queue.front() {
                Some((sequence, _)) if *sequence < limit => *sequence,
                _ => return Ok(()),
            };
            // The legacy stream waits for the blocking streams, and they for it.
            let before: Vec<usize> = match handle {
                0 => self
                    .streams
                    .iter()
                    .filter(|(_, other)| other.blocking)
                    .map(|(handle, _)| *handle)
                    .collect(),
                _ if blocking => vec![0],
                _ => Vec::new(),
            };
            for other in before.into_iter().filter(|other| *other != handle) {
                self.run_until(other, sequence)?;
            }
            let stream = self.streams.get_mut(&handle).ok_or(INVALID_HANDLE)?;
            if stream.queue.front().is_some_and(|(first, _)| *first == sequence)
                && let Some((_, work)) = stream.queue.pop_front()
            {
                self.perform(work)?;
            }
        }
    }

    /// Does a piece of work.
    fn perform(&mut self, work: Work) -> Called {
        match work {
            Work::Launch(launch) => self.run_kernel(&launch)?,
            Work::ToDevice {
                to,
                from,
                staged,
                bytes,
            } => {
                self.check_range(to, bytes, "a copy from the host to")?;
                let source = staged.as_ref().map_or(from as *const u8, |data| data.as_ptr());
                // SAFETY: the target is allocated; the source is the staged data or memory that the caller keeps.
                unsafe { std::ptr::copy(source, to as *mut u8, bytes) };
            }
            Work::ToHost { to, from, bytes } => {
                self.check_range(from, bytes, "a copy to the host from")?;
                // SAFETY: the source is allocated; the target is memory that the caller keeps.
                unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) };
            }
            Work::OnDevice { to, from, bytes } => {
                self.check_range(from, bytes, "a copy from")?;
                self.check_range(to, bytes, "a copy to")?;
                // SAFETY: both are allocated.
                unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) };
            }
            Work::Fill {
                to,
                pattern,
                width,
                count,
            } => {
                self.check_range(to, width * count, "a fill of")?;
                // SAFETY: allocated, and nobody else uses it while the driver is locked.
                let target = unsafe { std::slice::from_raw_parts_mut(to as *mut u8, width * count) };
                let pattern = pattern.to_le_bytes();
                match width {
                    1 => target.fill(pattern[0]),
                    _ => target
                        .chunks_exact_mut(width)
                        .for_each(|place| place.copy_from_slice(&pattern[..width])),
                }
            }
            Work::Free(address) => {
                if !self.memory.free(address) {
                    let text = format!("cuMemFreeAsync of {address:#x}, which is not allocated");
                    return Err(self.found(Finding {
                        kind: Kind::UseAfterFree,
                        text,
                    }));
                }
            }
            Work::Record { event, number } => {
                if let Some(event) = self.events.get_mut(&event) {
                    event.done = event.done.max(number);
                    event.time = Some(Instant::now());
                }
            }
            Work::Wait { event, number } => self.run_to_event(event, number)?,
            Work::Product(product) => {
                for (start, bytes, what) in product.ranges() {
                    self.check_range(start, bytes, &format!("a product's use of {what},"))?;
                }
                // SAFETY: all is allocated, and nobody else uses it while the driver is locked.
                unsafe { product.compute() };
            }
            Work::Call { function, argument } => function(argument),
        }
        Ok(())
    }

    /// Does what is queued up to an event's recording.
    pub fn run_to_event(&mut self, event: usize, number: u64) -> Called {
        let recorded = self.streams.iter().find_map(|(handle, stream)| {
            let is_it =
                |work: &Work| matches!(work, Work::Record { event: e, number: n } if *e == event && *n == number);
            let found = stream.queue.iter().find(|(_, work)| is_it(work));
            found.map(|(sequence, _)| (*handle, *sequence))
        });
        match recorded {
            Some((stream, sequence)) => self.run_until(stream, sequence + 1),
            None => Ok(()), // done, or its stream is gone
        }
    }

    fn check_range(&mut self, start: u64, bytes: usize, what: &str) -> Called {
        if self.memory.contains(start, bytes) {
            return Ok(());
        }
        let place = self.memory.view().describe(start);
        Err(self.found(Finding {
            kind: Kind::OutOfBounds,
            text: format!("{what} {bytes} bytes at {place}"),
        }))
    }

    fn run_kernel(&mut self, launch: &Launch) -> Called {
        let view = self.memory.view();
        let pool = self.pool()?;
        let (counts, finding) = execute::run(launch, &view, self.settings, &pool);
        let name = launch.kernel.name.clone();
        match self.counts.get_mut(&name) {
            // Another build of the kernel starts anew.
            Some((kernel, sum)) if kernel.code.len() == launch.kernel.code.len() => sum.add(&counts),
            _ => {
                self.counts.insert(name, (launch.kernel.clone(), counts));
            }
        }
        match finding {
            Some(finding) => Err(self.found(finding)),
            None => Ok(()),
        }
    }
}
