//! What the checks find.

/// Kinds of mistakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An access outside of all memory, or outside of the block's or the thread's.
    OutOfBounds,
    /// An access to memory that was freed.
    UseAfterFree,
    /// An address that is no multiple of the access's size.
    Misaligned,
    /// A read of shared memory that nobody wrote.
    Uninitialized,
    /// Two threads access the same word without anything that orders them, and one of them writes.
    Race,
    /// A barrier that not all threads of the block reach, or that they reach at different places.
    DivergentBarrier,
    /// A collective of a warp whose mask names lanes that have exited, or not the lanes that execute it.
    WarpMask,
    /// A read of data that is still being copied.
    CopyNotAwaited,
    /// Nothing can go on.
    Deadlock,
    /// The kernel ran a trap.
    Trap,
    /// The kernel ran longer than it may.
    Timeout,
}

impl Kind {
    /// Name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Kind::OutOfBounds => "out of bounds",
            Kind::UseAfterFree => "use after free",
            Kind::Misaligned => "misaligned address",
            Kind::Uninitialized => "uninitialised shared memory",
            Kind::Race => "race",
            Kind::DivergentBarrier => "divergent barrier",
            Kind::WarpMask => "warp mask",
            Kind::CopyNotAwaited => "copy not awaited",
            Kind::Deadlock => "deadlock",
            Kind::Trap => "trap",
            Kind::Timeout => "timeout",
        }
    }
}

/// A mistake that was found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Its kind.
    pub kind: Kind,
    /// What, where and who.
    pub text: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.text)
    }
}

/// A result that is almost always good, with an error that is small to pass on.
pub type Checked<T> = Result<T, Box<Finding>>;
