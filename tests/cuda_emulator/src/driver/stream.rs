//! Streams and events.

use std::collections::VecDeque;
use std::ffi::{c_int, c_uint};
use std::time::Instant;

use super::error::{
    CAPTURE_INVALIDATED, CAPTURE_ISOLATION, CAPTURE_UNSUPPORTED, CAPTURED_EVENT, Code, INVALID_HANDLE, INVALID_VALUE,
    NOT_READY, NOT_SUPPORTED,
};
use super::graph::Capture;
use super::work::Work;
use super::{Called, Driver, Error, call_in_context, give};

/// A stream.
pub struct Stream {
    /// Whether it is ordered with the legacy stream.
    pub blocking: bool,
    /// Work that is not done, with its number.
    pub queue: VecDeque<(u64, Work)>,
    /// The graph that its work goes to.
    pub capture: Option<Capture>,
    priority: i32,
}

impl Stream {
    /// Stream 0.
    pub fn legacy() -> Stream {
        Stream {
            blocking: false,
            queue: VecDeque::new(),
            capture: None,
            priority: 0,
        }
    }
}

/// An event.
#[derive(Default)]
pub struct Event {
    /// Recordings so far.
    recorded: u64,
    /// The last one that is done.
    pub done: u64,
    /// When.
    pub time: Option<Instant>,
    timing: bool,
    /// The captured stream that it was recorded in last.
    captured: Option<usize>,
}

impl Driver {
    /// A stream that exists; 0 is the legacy stream.
    pub fn stream(&self, handle: usize) -> Called<&Stream> {
        Ok(self.streams.get(&handle).ok_or(INVALID_HANDLE)?)
    }

    /// Whether a stream's work goes to a graph.
    pub fn is_capturing(&self, handle: usize) -> bool {
        self.streams.get(&handle).is_some_and(|stream| stream.capture.is_some())
    }

    /// Adds work to the graph of a captured stream; whether it is one.
    pub fn capture(&mut self, handle: usize, work: &Work) -> Called<bool> {
        let stream = self.streams.get_mut(&handle).ok_or(INVALID_HANDLE)?;
        match &mut stream.capture {
            None => Ok(false),
            Some(capture) if capture.invalid => Err(CAPTURE_INVALIDATED.into()),
            Some(capture) => {
                capture.nodes.push(work.clone());
                Ok(true)
            }
        }
    }

    /// Calls that wait for the device end a capture.
    pub fn refuse_while_capturing(&mut self, what: &str) -> Called {
        let mut captures = self.streams.values_mut().filter_map(|stream| stream.capture.as_mut());
        let Some(capture) = captures.find(|capture| !capture.relaxed) else {
            return Ok(());
        };
        capture.invalid = true;
        Err(Error::new(
            CAPTURE_UNSUPPORTED,
            format!("{what} while a stream is captured"),
        ))
    }

    fn refuse_on_captured(&mut self, handle: usize, what: &str) -> Called {
        let stream = self.streams.get_mut(&handle).ok_or(INVALID_HANDLE)?;
        let Some(capture) = &mut stream.capture else {
            return Ok(());
        };
        capture.invalid = true;
        Err(Error::new(CAPTURE_UNSUPPORTED, format!("{what} of a captured stream")))
    }

    fn event(&mut self, handle: usize) -> Called<&mut Event> {
        Ok(self.events.get_mut(&handle).ok_or(INVALID_HANDLE)?)
    }
}

/// `cuStreamCreate`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamCreate(stream: *mut usize, flags: c_uint) -> Code {
    // SAFETY: as the caller promises.
    unsafe { cuStreamCreateWithPriority(stream, flags, 0) }
}

/// `cuStreamCreateWithPriority`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamCreateWithPriority(stream: *mut usize, flags: c_uint, priority: c_int) -> Code {
    call_in_context(|driver| {
        if flags > 1 {
            return Err(INVALID_VALUE.into());
        }
        let handle = driver.handle();
        let created = Stream {
            blocking: flags == 0,
            priority: priority.clamp(-5, 0),
            ..Stream::legacy()
        };
        driver.streams.insert(handle, created);
        // SAFETY: the caller gives a place for a handle.
        unsafe { give(stream, handle) }
    })
}

/// `cuStreamDestroy`: what is queued is done first.
#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(stream: usize) -> Code {
    call_in_context(|driver| {
        if stream == 0 {
            return Err(INVALID_HANDLE.into());
        }
        driver.run_stream(stream)?;
        driver.streams.remove(&stream);
        Ok(())
    })
}

/// `cuStreamGetPriority`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamGetPriority(stream: usize, priority: *mut c_int) -> Code {
    call_in_context(|driver| {
        let found = driver.stream(stream)?.priority;
        // SAFETY: the caller gives a place for a number.
        unsafe { give(priority, found) }
    })
}

/// `cuStreamGetFlags`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamGetFlags(stream: usize, flags: *mut c_uint) -> Code {
    call_in_context(|driver| {
        let blocking = stream == 0 || driver.stream(stream)?.blocking;
        // SAFETY: the caller gives a place for a number.
        unsafe { give(flags, c_uint::from(!blocking)) }
    })
}

/// `cuStreamSynchronize`
#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(stream: usize) -> Code {
    call_in_context(|driver| {
        driver.refuse_on_captured(stream, "cuStreamSynchronize")?;
        driver.run_stream(stream)
    })
}

/// `cuStreamQuery`: work that a query finds is done by the next one.
#[unsafe(no_mangle)]
extern "C" fn cuStreamQuery(stream: usize) -> Code {
    call_in_context(|driver| {
        driver.refuse_on_captured(stream, "cuStreamQuery")?;
        if driver.stream(stream)?.queue.is_empty() {
            return Ok(());
        }
        driver.run_stream(stream)?;
        Err(NOT_READY.into())
    })
}

/// `cuStreamWaitEvent`
#[unsafe(no_mangle)]
extern "C" fn cuStreamWaitEvent(stream: usize, event: usize, _flags: c_uint) -> Code {
    call_in_context(|driver| {
        let (number, captured) = {
            let event = driver.event(event)?;
            (event.recorded, event.captured)
        };
        let capturing = driver.is_capturing(stream);
        match captured {
            Some(source) if source == stream => Ok(()), // the graph keeps the stream's order
            Some(_) => Err(Error::new(NOT_SUPPORTED, "a capture of more than one stream")),
            None if capturing && number > 0 => {
                driver.refuse_on_captured(stream, "a wait for an event outside").ok();
                Err(Error::new(
                    CAPTURE_ISOLATION,
                    "a captured stream waits for an event that was recorded outside",
                ))
            }
            None if number == 0 => Ok(()),
            None => driver.enqueue(stream, Work::Wait { event, number }),
        }
    })
}

/// `cuLaunchHostFunc`
#[unsafe(no_mangle)]
extern "C" fn cuLaunchHostFunc(stream: usize, function: Option<extern "C" fn(usize)>, argument: usize) -> Code {
    call_in_context(|driver| {
        let function = function.ok_or(INVALID_VALUE)?;
        driver.enqueue(stream, Work::Call { function, argument })
    })
}

/// `cuStreamAttachMemAsync`: there is no managed memory.
#[unsafe(no_mangle)]
extern "C" fn cuStreamAttachMemAsync() -> Code {
    super::code(Err(Error::new(NOT_SUPPORTED, "managed memory")))
}

/// `cuMemAllocManaged`
#[unsafe(no_mangle)]
extern "C" fn cuMemAllocManaged() -> Code {
    super::code(Err(Error::new(NOT_SUPPORTED, "managed memory")))
}

/// `cuEventCreate`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventCreate(event: *mut usize, flags: c_uint) -> Code {
    const DISABLE_TIMING: c_uint = 2;
    call_in_context(|driver| {
        let handle = driver.handle();
        let created = Event {
            timing: flags & DISABLE_TIMING == 0,
            ..Event::default()
        };
        driver.events.insert(handle, created);
        // SAFETY: the caller gives a place for a handle.
        unsafe { give(event, handle) }
    })
}

/// `cuEventDestroy`
#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(event: usize) -> Code {
    call_in_context(|driver| driver.events.remove(&event).map(|_| ()).ok_or(INVALID_HANDLE.into()))
}

/// `cuEventRecord`
#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: usize, stream: usize) -> Code {
    call_in_context(|driver| {
        driver.stream(stream)?;
        let capturing = driver.is_capturing(stream);
        let recorded = driver.event(event)?;
        recorded.captured = capturing.then_some(stream);
        if capturing {
            return Ok(());
        }
        recorded.recorded += 1;
        let number = recorded.recorded;
        driver.enqueue(stream, Work::Record { event, number })
    })
}

/// `cuEventRecordWithFlags`
#[unsafe(no_mangle)]
extern "C" fn cuEventRecordWithFlags(event: usize, stream: usize, _flags: c_uint) -> Code {
    cuEventRecord(event, stream)
}

/// `cuEventSynchronize`
#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(event: usize) -> Code {
    call_in_context(|driver| {
        let found = driver.event(event)?;
        if found.captured.is_some() {
            return Err(CAPTURED_EVENT.into());
        }
        let number = found.recorded;
        driver.run_to_event(event, number)
    })
}

/// `cuEventQuery`: work that a query finds is done by the next one.
#[unsafe(no_mangle)]
extern "C" fn cuEventQuery(event: usize) -> Code {
    call_in_context(|driver| {
        let found = driver.event(event)?;
        if found.captured.is_some() {
            return Err(CAPTURED_EVENT.into());
        }
        let (number, done) = (found.recorded, found.done);
        if done >= number {
            return Ok(());
        }
        driver.run_to_event(event, number)?;
        Err(NOT_READY.into())
    })
}

/// `cuEventElapsedTime`: time of the host, which says nothing about a device.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventElapsedTime_v2(milliseconds: *mut f32, start: usize, end: usize) -> Code {
    call_in_context(|driver| {
        let mut times = [start, end].map(|handle| {
            let event = driver.event(handle)?;
            if !event.timing || event.recorded == 0 {
                return Err(Error::from(INVALID_HANDLE));
            }
            match event.time {
                Some(time) if event.done >= event.recorded => Ok(time),
                _ => Err(NOT_READY.into()),
            }
        });
        let [start, end] = &mut times;
        let (start, end) = (start.clone()?, end.clone()?);
        let elapsed = end.saturating_duration_since(start).as_secs_f32() * 1000.0;
        // SAFETY: the caller gives a place for a number.
        unsafe { give(milliseconds, elapsed) }
    })
}

/// `cuEventElapsedTime` of older versions.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventElapsedTime(milliseconds: *mut f32, start: usize, end: usize) -> Code {
    // SAFETY: as the caller promises.
    unsafe { cuEventElapsedTime_v2(milliseconds, start, end) }
}
