//! The CPU's calling convention: a launch's tensors as slices.
//!
//! The device resolves every argument to a range of one of its buffers and has checked, when the plan was loaded, that
//! written ranges overlap no other range of the same launch. [`Call`] hands each out at most once for writing, so a
//! kernel function is ordinary safe Rust.

use std::cell::Cell;

use super::{Access, Dims, Element, Extent, Kernel, StepParams};

/// A resolved argument: `words` 4-byte words at `start`.
#[derive(Clone, Copy, Debug)]
pub struct RawArg {
    start: *mut u32,
    words: usize,
}

// SAFETY: a RawArg is a plain address; who dereferences it (`Call`) argues for exclusivity.
unsafe impl Send for RawArg {}
// SAFETY: as above.
unsafe impl Sync for RawArg {}

impl RawArg {
    /// The range `start .. start + words`.
    ///
    /// # Safety
    /// It must stay allocated and word-aligned for as long as any [`Call`] made from it lives.
    pub unsafe fn new(start: *mut u32, words: usize) -> RawArg {
        RawArg { start, words }
    }
}

/// One launch on the CPU.
pub struct Call<'a> {
    kernel: &'a Kernel,
    dims: &'a Dims,
    step: &'a StepParams,
    args: &'a [RawArg],
    taken: Cell<u64>,
}

impl<'a> Call<'a> {
    /// Assembles a call.
    ///
    /// # Safety
    /// `args` are the kernel's arguments in order; no other thread touches them while the call lives, and a written
    /// range overlaps no other range of the call.
    pub unsafe fn new(kernel: &'a Kernel, dims: &'a Dims, step: &'a StepParams, args: &'a [RawArg]) -> Call<'a> {
        Call {
            kernel,
            dims,
            step,
            args,
            taken: Cell::new(0),
        }
    }

    /// Sizes and constants.
    pub fn dims(&self) -> &Dims {
        self.dims
    }

    /// The step's scalars.
    pub fn step(&self) -> &StepParams {
        self.step
    }

    /// Live rows of a symbol in this step.
    pub fn live(&self, symbol: &str) -> usize {
        let extent: Extent = self.dims.extent(symbol);
        extent.live(self.step)
    }

    /// Argument `index`, read only, at capacity.
    ///
    /// # Panics
    /// If the argument table says otherwise: a mistake in the kernel function.
    pub fn f32(&self, index: usize) -> &'a [f32] {
        bytemuck::cast_slice(self.shared(index, false))
    }

    /// Argument `index` as integers, read only, at capacity.
    ///
    /// # Panics
    /// As [`Call::f32`].
    pub fn u32(&self, index: usize) -> &'a [u32] {
        self.shared(index, true)
    }

    /// Argument `index` for writing, at capacity; each argument can be taken once.
    ///
    /// # Panics
    /// If the argument table calls it an input, or on a second call with the same index.
    pub fn f32_mut(&self, index: usize) -> &'a mut [f32] {
        bytemuck::cast_slice_mut(self.exclusive(index, false))
    }

    /// Argument `index` as integers, for writing, at capacity; each argument can be taken once.
    ///
    /// # Panics
    /// As [`Call::f32_mut`].
    pub fn u32_mut(&self, index: usize) -> &'a mut [u32] {
        self.exclusive(index, true)
    }

    fn exclusive(&self, index: usize, integers: bool) -> &'a mut [u32] {
        let arg = &self.kernel.args[index];
        assert!(
            arg.access != Access::In && (arg.element == Element::U32) == integers,
            "{} is not written, or not of this type",
            arg.name
        );
        let bit = 1u64 << index;
        assert!(self.taken.get() & bit == 0, "{} is taken twice", arg.name);
        self.taken.set(self.taken.get() | bit);
        let raw = self.args[index];
        // SAFETY: `Call::new`'s contract gives exclusivity against other ranges and threads, `taken` against this one.
        unsafe { std::slice::from_raw_parts_mut(raw.start, raw.words) }
    }

    fn shared(&self, index: usize, integers: bool) -> &'a [u32] {
        let arg = &self.kernel.args[index];
        assert!(
            arg.access == Access::In && (arg.element == Element::U32) == integers,
            "{} is not read only, or not of this type",
            arg.name
        );
        let raw = self.args[index];
        // SAFETY: `Call::new`'s contract: allocated, and written by nobody while the call lives.
        unsafe { std::slice::from_raw_parts(raw.start, raw.words) }
    }
}
