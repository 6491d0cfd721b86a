//! Graphs, made by capturing a stream: a list of work that is queued again at each launch.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

use super::error::{
    CAPTURE_INVALIDATED, CAPTURE_UNSUPPORTED, Code, ILLEGAL_STATE, INVALID_HANDLE, INVALID_VALUE, NOT_SUPPORTED,
};
use super::work::Work;
use super::{Called, Driver, Error, call_in_context, give};

/// A capture in progress.
pub struct Capture {
    /// Number of the capture.
    id: u64,
    /// Work so far.
    pub nodes: Vec<Work>,
    /// Whether a call that may not happen did.
    pub invalid: bool,
    /// Whether other calls of the program may wait for the device.
    pub relaxed: bool,
}

/// A graph or an executable graph.
#[derive(Clone)]
pub struct Graph {
    nodes: Arc<Vec<Work>>,
}

impl Driver {
    fn graph(&self, handle: usize) -> Called<&Graph> {
        Ok(self.graphs.get(&handle).ok_or(INVALID_HANDLE)?)
    }

    fn new_graph(&mut self, nodes: Arc<Vec<Work>>) -> usize {
        let handle = self.handle();
        self.graphs.insert(handle, Graph { nodes });
        handle
    }

    fn instantiate(&mut self, graph: usize, flags: u64) -> Called<usize> {
        const AUTO_FREE_ON_LAUNCH: u64 = 1;
        const DEVICE_LAUNCH: u64 = 4;
        const KNOWN: u64 = 15;
        let nodes = self.graph(graph)?.nodes.clone();
        if flags & !KNOWN != 0 || flags & (AUTO_FREE_ON_LAUNCH | DEVICE_LAUNCH) == AUTO_FREE_ON_LAUNCH | DEVICE_LAUNCH {
            return Err(INVALID_VALUE.into());
        }
        if flags & DEVICE_LAUNCH != 0 {
            return Err(Error::new(NOT_SUPPORTED, "graphs that kernels launch"));
        }
        Ok(self.new_graph(nodes))
    }
}

/// `cuStreamBeginCapture`
#[unsafe(no_mangle)]
extern "C" fn cuStreamBeginCapture_v2(stream: usize, mode: c_int) -> Code {
    const RELAXED: c_int = 2;
    call_in_context(|driver| {
        if stream == 0 {
            return Err(Error::new(CAPTURE_UNSUPPORTED, "the legacy stream cannot be captured"));
        }
        let id = driver.sequence;
        driver.sequence += 1;
        let stream = driver.streams.get_mut(&stream).ok_or(INVALID_HANDLE)?;
        if stream.capture.is_some() {
            return Err(ILLEGAL_STATE.into());
        }
        stream.capture = Some(Capture {
            id,
            nodes: Vec::new(),
            invalid: false,
            relaxed: mode == RELAXED,
        });
        Ok(())
    })
}

/// `cuStreamEndCapture`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamEndCapture(stream: usize, graph: *mut usize) -> Code {
    call_in_context(|driver| {
        let found = driver.streams.get_mut(&stream).ok_or(INVALID_HANDLE)?;
        let capture = found.capture.take().ok_or(ILLEGAL_STATE)?;
        if capture.invalid {
            // SAFETY: the caller gives a place for a handle.
            unsafe { give(graph, 0) }?;
            return Err(CAPTURE_INVALIDATED.into());
        }
        let handle = driver.new_graph(Arc::new(capture.nodes));
        // SAFETY: the caller gives a place for a handle.
        unsafe { give(graph, handle) }
    })
}

/// None, active or invalidated, as `CUstreamCaptureStatus` numbers them.
fn status(driver: &Driver, stream: usize) -> Called<c_int> {
    Ok(match &driver.stream(stream)?.capture {
        None => 0,
        Some(capture) if capture.invalid => 2,
        Some(_) => 1,
    })
}

/// `cuStreamIsCapturing`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamIsCapturing(stream: usize, found: *mut c_int) -> Code {
    call_in_context(|driver| {
        let status = status(driver, stream)?;
        // SAFETY: the caller gives a place for a number.
        unsafe { give(found, status) }
    })
}

/// `cuStreamGetCaptureInfo`: status and number.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamGetCaptureInfo_v3(
    stream: usize,
    found: *mut c_int,
    id: *mut u64,
    graph: *mut usize,
    dependencies: *mut *const c_void,
    edges: *mut *const c_void,
    count: *mut usize,
) -> Code {
    call_in_context(|driver| {
        let status = status(driver, stream)?;
        if !(graph.is_null() && dependencies.is_null() && edges.is_null() && count.is_null()) {
            return Err(Error::new(NOT_SUPPORTED, "the graph of a capture in progress"));
        }
        if let (Some(capture), false) = (&driver.stream(stream)?.capture, id.is_null()) {
            // SAFETY: not null, and so a place for a number.
            unsafe { id.write(capture.id) };
        }
        // SAFETY: the caller gives a place for a number.
        unsafe { give(found, status) }
    })
}

/// `cuStreamGetCaptureInfo`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamGetCaptureInfo_v2(
    stream: usize,
    found: *mut c_int,
    id: *mut u64,
    graph: *mut usize,
    dependencies: *mut *const c_void,
    count: *mut usize,
) -> Code {
    let none = std::ptr::null_mut();
    // SAFETY: as the caller promises.
    unsafe { cuStreamGetCaptureInfo_v3(stream, found, id, graph, dependencies, none, count) }
}

/// `cuGraphInstantiateWithFlags`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphInstantiateWithFlags(executable: *mut usize, graph: usize, flags: u64) -> Code {
    call_in_context(|driver| {
        let handle = driver.instantiate(graph, flags)?;
        // SAFETY: the caller gives a place for a handle.
        unsafe { give(executable, handle) }
    })
}

/// `cuGraphLaunch`: on a captured stream the nodes become part of the graph.
#[unsafe(no_mangle)]
extern "C" fn cuGraphLaunch(executable: usize, stream: usize) -> Code {
    call_in_context(|driver| {
        let nodes = driver.graph(executable)?.nodes.clone();
        nodes.iter().try_for_each(|node| driver.enqueue(stream, node.clone()))
    })
}

/// `cuGraphUpload`: nothing to do ahead.
#[unsafe(no_mangle)]
extern "C" fn cuGraphUpload(executable: usize, stream: usize) -> Code {
    call_in_context(|driver| {
        driver.graph(executable)?;
        driver.stream(stream).map(|_| ())
    })
}

/// `cuGraphDestroy`
#[unsafe(no_mangle)]
extern "C" fn cuGraphDestroy(graph: usize) -> Code {
    call_in_context(|driver| driver.graphs.remove(&graph).map(|_| ()).ok_or(INVALID_HANDLE.into()))
}

/// `cuGraphExecDestroy`
#[unsafe(no_mangle)]
extern "C" fn cuGraphExecDestroy(executable: usize) -> Code {
    cuGraphDestroy(executable)
}

/// `cuGraphGetNodes`: their number, and handles that only tell them apart.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphGetNodes(graph: usize, nodes: *mut usize, count: *mut usize) -> Code {
    call_in_context(|driver| {
        let length = driver.graph(graph)?.nodes.len();
        if !nodes.is_null() {
            // SAFETY: the caller says how many places there are.
            let room = unsafe { count.as_ref() }.copied().ok_or(INVALID_VALUE)?;
            for at in 0..room {
                let handle = if at < length { graph * 0x10000 + at + 1 } else { 0 };
                // SAFETY: `at` is within the room.
                unsafe { nodes.add(at).write(handle) };
            }
        }
        // SAFETY: the caller gives a place for a number.
        unsafe { give(count, length) }
    })
}

/// `cuGraphKernelNodeGetParams` and the other calls that build or change graphs are not there.
#[unsafe(no_mangle)]
extern "C" fn cuGraphCreate(_graph: *mut usize, _flags: c_uint) -> Code {
    super::code(Err(Error::new(NOT_SUPPORTED, "graphs that are not captured")))
}
