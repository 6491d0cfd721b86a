//! Work that only says how far it is: done on a thread of its own, while this one tells the observer.
//!
//! An [`Observer`] belongs to one thread; parallel work counts into an atomic number.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::observer::{Observer, Unit};

/// How often the observer is told.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs `job`, which counts into `position` what it has done, and shows it as `work` over `total` units.
pub(super) fn watched<T: Send>(
    work: &str,
    total: u64,
    unit: Unit,
    observer: &mut dyn Observer,
    position: &AtomicU64,
    job: impl FnOnce() -> T + Send,
) -> T {
    observer.begin(work, total, 0, unit);
    // The job drops one end when it is over, in whatever way: so nobody waits for a pause to pass.
    let (running, over) = mpsc::channel::<Infallible>();
    let result = std::thread::scope(|scope| {
        let job = scope.spawn(move || {
            let _running = running;
            job()
        });
        while over.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
            observer.advance(position.load(Ordering::Relaxed), "");
        }
        job.join()
    });
    observer.advance(position.load(Ordering::Relaxed), "");
    observer.end();
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
