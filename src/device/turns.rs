//! Whose turn it is in a ring of submissions: a device is ahead of its host by up to [`SLOTS`] of them.

/// Submissions on their way at most.
pub(super) const SLOTS: usize = 3;

/// The slots that are on their way.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The oldest submission that was not collected.
    first: usize,
    /// Submissions that were not collected.
    waiting: usize,
}

impl Turns {
    /// The slot of the next submission.
    ///
    /// # Panics
    /// If all slots wait to be collected: a mistake of the caller.
    pub fn next(&self) -> usize {
        assert!(self.waiting < SLOTS, "{SLOTS} submissions wait to be collected");
        (self.first + self.waiting) % SLOTS
    }

    /// The next slot is on its way.
    pub fn submitted(&mut self) {
        self.waiting += 1;
    }

    /// The slot of the oldest submission.
    ///
    /// # Panics
    /// If nothing was submitted: a mistake of the caller.
    pub fn oldest(&self) -> usize {
        assert!(self.waiting > 0, "nothing was submitted");
        self.first
    }

    /// The oldest submission has been collected.
    pub fn collected(&mut self) {
        self.first = (self.first + 1) % SLOTS;
        self.waiting -= 1;
    }
}
