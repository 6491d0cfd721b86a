//! The memory allocator of the commands that keep to a bound.

/// Makes the C library give large blocks back to the system as soon as they are freed.
///
/// Glibc raises the size from which it does so whenever such a block is freed, up to 32 MB. The blocks of a build, which are
/// made by one thread and freed by another, then leave holes: the peak of a build of 128 MB was 209 MB.
pub(super) fn return_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const BYTES: i32 = 1 << 20;
        // SAFETY: mallopt sets a number inside the C library under its lock; any value is allowed, and a refusal changes
        // nothing but the memory in use.
        let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, BYTES) };
    }
}
