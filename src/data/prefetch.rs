//! Preparing inputs ahead on a thread of its own.
//!
//! ```text
//!             +------ full (step, buffer) ------>+
//!   filler    |                                  |   consumer: `next` hands the buffer used before back
//!             +<------- empty buffer ------------+
//! ```
//!
//! A fixed set of buffers goes round two bounded channels, so nothing is allocated in the steady state and the filler
//! is ahead by at most the number of buffers. An error of the filler comes out of `next` in its turn, a panic goes on
//! in the consumer. Dropping the consumer ends the thread.

use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Buffers filled ahead for the steps of a range, in order.
pub struct Prefetch<T, E> {
    /// `None` once the filler has ended.
    running: Option<Running<T, E>>,
    current: Option<T>,
    waited: Duration,
}

struct Running<T, E> {
    full: Receiver<Result<(u64, T), E>>,
    empty: SyncSender<T>,
    thread: JoinHandle<()>,
}

impl<T: Send + 'static, E: Send + 'static> Prefetch<T, E> {
    /// Starts to call `fill(step, buffer)` for each step, as many ahead as there are buffers besides the one in use.
    /// Two buffers let it overlap with the consumer.
    ///
    /// # Errors
    /// If there is no buffer, or the system gives no thread.
    pub fn start(
        buffers: Vec<T>,
        steps: Range<u64>,
        mut fill: impl FnMut(u64, &mut T) -> Result<(), E> + Send + 'static,
    ) -> std::io::Result<Self> {
        if buffers.is_empty() {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                "prefetching needs at least one buffer",
            ));
        }
        let (full_sender, full) = sync_channel(buffers.len());
        let (empty, empty_receiver) = sync_channel(buffers.len());
        for buffer in buffers {
            empty.send(buffer).expect("the receiver lives in this function");
        }
        let thread = std::thread::Builder::new().name("prefetch".into()).spawn(move || {
            for step in steps {
                let Ok(mut buffer) = empty_receiver.recv() else {
                    return;
                };
                let filled = fill(step, &mut buffer).map(|()| (step, buffer));
                let failed = filled.is_err();
                if full_sender.send(filled).is_err() || failed {
                    return;
                }
            }
        })?;
        Ok(Prefetch {
            running: Some(Running { full, empty, thread }),
            current: None,
            waited: Duration::ZERO,
        })
    }

    /// The next step and its filled buffer, or `None` after the last. The buffer returned before goes back to be
    /// filled.
    ///
    /// # Errors
    /// What `fill` returned for this step; then the next call gives `None`.
    ///
    /// # Panics
    /// If `fill` panicked, with its panic.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<(u64, &mut T)>, E> {
        let Some(running) = &self.running else {
            return Ok(None);
        };
        if let Some(used) = self.current.take() {
            // After the last step nobody takes buffers back.
            drop(running.empty.send(used));
        }
        let start = Instant::now();
        let received = running.full.recv();
        self.waited += start.elapsed();
        match received {
            Ok(Ok((step, buffer))) => Ok(Some((step, self.current.insert(buffer)))),
            Ok(Err(error)) => {
                self.end();
                Err(error)
            }
            Err(_) => {
                if let Some(Err(panic)) = self.end() {
                    std::panic::resume_unwind(panic);
                }
                Ok(None)
            }
        }
    }

    /// How long the consumer has waited for full buffers so far.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }

    fn end(&mut self) -> Option<std::thread::Result<()>> {
        let Running { full, empty, thread } = self.running.take()?;
        // The filler wakes up from either channel once our end is gone.
        drop((full, empty));
        Some(thread.join())
    }
}

impl<T, E> Drop for Prefetch<T, E> {
    fn drop(&mut self) {
        if let Some(Running { full, empty, thread }) = self.running.take() {
            drop((full, empty));
            // A panic of a filler whose results nobody waits for any more has been printed and concerns nobody.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn buffers(count: usize) -> Vec<Vec<u64>> {
        (0..count).map(|_| Vec::with_capacity(8)).collect()
    }

    #[test]
    fn steps_come_in_order_and_buffers_go_round() {
        let mut prefetch = Prefetch::start(buffers(3), 5..205, |step, buffer: &mut Vec<u64>| {
            buffer.clear();
            buffer.extend([step, step * step]);
            Ok::<(), String>(())
        })
        .unwrap();
        let mut places = BTreeSet::new();
        for expected in 5..205 {
            let (step, buffer) = prefetch.next().unwrap().unwrap();
            assert_eq!(
                (step, buffer.as_slice()),
                (expected, [expected, expected * expected].as_slice())
            );
            places.insert(buffer.as_ptr());
        }
        assert!(prefetch.next().unwrap().is_none());
        assert!(prefetch.next().unwrap().is_none());
        assert_eq!(places.len(), 3);
    }

    #[test]
    fn one_buffer_is_enough_and_none_is_an_error() {
        let fill = |step, buffer: &mut u64| {
            *buffer = step;
            Ok::<(), String>(())
        };
        let mut prefetch = Prefetch::start(vec![0], 0..4, fill).unwrap();
        let mut seen = Vec::new();
        while let Some((_, buffer)) = prefetch.next().unwrap() {
            seen.push(*buffer);
        }
        assert_eq!(seen, [0, 1, 2, 3]);
        assert!(Prefetch::start(Vec::new(), 0..4, fill).is_err());
    }

    #[test]
    fn the_filler_is_ahead_by_the_buffers_and_no_more() {
        let filled = Arc::new(AtomicU64::new(0));
        let counter = filled.clone();
        let mut prefetch = Prefetch::start(buffers(3), 0..100, move |_, _: &mut Vec<u64>| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok::<(), String>(())
        })
        .unwrap();
        for used in 1..10 {
            prefetch.next().unwrap().unwrap();
            std::thread::sleep(Duration::from_millis(2));
            assert!(filled.load(Ordering::SeqCst) <= used + 2);
        }
    }

    #[test]
    fn an_error_comes_in_its_turn_and_ends_the_run() {
        let fill = |step, _: &mut Vec<u64>| {
            if step == 3 {
                Err(format!("step {step} failed"))
            } else {
                Ok(())
            }
        };
        let mut prefetch = Prefetch::start(buffers(2), 0..100, fill).unwrap();
        for expected in 0..3 {
            assert_eq!(prefetch.next().unwrap().unwrap().0, expected);
        }
        assert_eq!(prefetch.next().unwrap_err(), "step 3 failed");
        assert!(prefetch.next().unwrap().is_none());
    }

    #[test]
    fn a_panic_goes_on_in_the_consumer() {
        let fill = |step, _: &mut Vec<u64>| {
            assert!(step < 2, "step two is bad");
            Ok::<(), String>(())
        };
        let mut prefetch = Prefetch::start(buffers(2), 0..100, fill).unwrap();
        prefetch.next().unwrap().unwrap();
        prefetch.next().unwrap().unwrap();
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| prefetch.next().map(|_| ()))).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"step two is bad"));
    }

    #[test]
    fn dropping_the_consumer_ends_a_waiting_filler() {
        let alive = Arc::new(());
        for taken in 0..4 {
            let held = alive.clone();
            let mut prefetch = Prefetch::start(buffers(2), 0..u64::MAX, move |_, _: &mut Vec<u64>| {
                let _ = &held;
                Ok::<(), String>(())
            })
            .unwrap();
            for _ in 0..taken {
                prefetch.next().unwrap().unwrap();
            }
            drop(prefetch);
            assert_eq!(Arc::strong_count(&alive), 1, "the thread has ended");
        }
    }

    #[test]
    fn the_time_waited_for_slow_filling_is_measured() {
        let mut prefetch = Prefetch::start(buffers(2), 0..3, |_, _: &mut Vec<u64>| {
            std::thread::sleep(Duration::from_millis(20));
            Ok::<(), String>(())
        })
        .unwrap();
        while prefetch.next().unwrap().is_some() {}
        assert!(
            prefetch.waited() >= Duration::from_millis(50),
            "{:?}",
            prefetch.waited()
        );
    }
}
