//! The threads of a build.
//!
//! One lock guards what is in order: which piece is read next, which blocks have been joined, which tiles appended.
//! Reading, analysis and assembly run outside of it. A thread that finds nothing to do waits until another one has
//! handed something in. Nobody reads on while a complete tile waits for a thread, or while as many pieces are on their
//! way as memory allows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::RetrievalError;
use super::analyzer::Analyzer;
use super::build::{Analyzed, Assembly, Worker};
use super::limits::Limits;
use super::tile::{BlockPart, TileDraft};

/// What all threads share.
struct State<'a, E> {
    assembly: &'a mut Assembly,
    /// Whether a thread is reading, and whether there is nothing more to read.
    reading: bool,
    read_all: bool,
    pieces_read: u64,
    pieces_joined: u64,
    /// Analysed before those in front of them.
    analyzed: BTreeMap<u64, Analyzed>,
    /// Complete tiles that no thread has taken.
    waiting: VecDeque<(u64, Vec<BlockPart>)>,
    tiles_made: u64,
    tiles_appended: u64,
    assembling: usize,
    /// Assembled before those in front of them.
    assembled: BTreeMap<u64, TileDraft>,
    failure: Option<E>,
    /// A thread has panicked; nobody waits for what it had in hand.
    broken: bool,
}

/// What a thread does next.
enum Task {
    Read,
    Assemble(u64, Vec<BlockPart>),
    Stop,
}

impl<E: From<RetrievalError>> State<'_, E> {
    /// The next task, if there is one now.
    fn task(&mut self, limits: &Limits) -> Option<Task> {
        if self.failure.is_some() || self.broken {
            return Some(Task::Stop);
        }
        if !self.waiting.is_empty() {
            if self.assembling == limits.assemblies {
                return None;
            }
            let (number, parts) = self.waiting.pop_front()?;
            self.assembling += 1;
            return Some(Task::Assemble(number, parts));
        }
        let on_their_way = (self.pieces_read - self.pieces_joined) as usize;
        if !self.read_all && !self.reading && on_their_way < limits.pieces {
            self.reading = true;
            return Some(Task::Read);
        }
        let done = self.read_all && !self.reading && on_their_way == 0;
        // The last tiles are in other threads' hands.
        done.then_some(Task::Stop)
    }

    fn hand_in_piece(&mut self, number: u64, piece: Analyzed) -> Result<(), E> {
        self.analyzed.insert(number, piece);
        while let Some(piece) = self.analyzed.remove(&self.pieces_joined) {
            self.pieces_joined += 1;
            for parts in self.assembly.join(piece)? {
                self.waiting.push_back((self.tiles_made, parts));
                self.tiles_made += 1;
            }
        }
        Ok(())
    }

    fn hand_in_tile(&mut self, number: u64, tile: TileDraft) -> Result<(), E> {
        self.assembling -= 1;
        self.assembled.insert(number, tile);
        while let Some(tile) = self.assembled.remove(&self.tiles_appended) {
            self.tiles_appended += 1;
            self.assembly.append(&tile)?;
        }
        Ok(())
    }
}

/// Takes pieces from `source` until there are none, analyses them on all threads and puts them into `assembly` in order.
pub(super) fn run<P: Send, E: From<RetrievalError> + Send>(
    assembly: &mut Assembly,
    analyzer: Analyzer,
    source: impl FnMut() -> Result<Option<P>, E> + Send,
    analyze: impl Fn(&mut Worker, P) -> Result<Analyzed, RetrievalError> + Sync,
) -> Result<(), E> {
    let limits = *assembly.limits();
    let source = Mutex::new(source);
    let state = Mutex::new(State {
        assembly,
        reading: false,
        read_all: false,
        pieces_read: 0,
        pieces_joined: 0,
        analyzed: BTreeMap::new(),
        waiting: VecDeque::new(),
        tiles_made: 0,
        tiles_appended: 0,
        assembling: 0,
        assembled: BTreeMap::new(),
        failure: None,
        broken: false,
    });
    let changed = Condvar::new();

    let work = || {
        let _alarm = Alarm(|| {
            lock(&state).broken = true;
            changed.notify_all();
        });
        let mut worker = Worker::new(analyzer, limits.cached_words);
        loop {
            let mut guard = lock(&state);
            let task = loop {
                match guard.task(&limits) {
                    Some(task) => break task,
                    None => guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(guard);
            let result = match task {
                Task::Stop => return,
                Task::Assemble(number, parts) => {
                    let tile = TileDraft::assemble(&parts);
                    drop(parts);
                    lock(&state).hand_in_tile(number, tile)
                }
                Task::Read => {
                    let piece = lock(&source)();
                    let mut guard = lock(&state);
                    guard.reading = false;
                    match piece {
                        Err(error) => Err(error),
                        Ok(None) => {
                            guard.read_all = true;
                            Ok(())
                        }
                        Ok(Some(piece)) => {
                            let number = guard.pieces_read;
                            guard.pieces_read += 1;
                            drop(guard);
                            changed.notify_all();
                            match analyze(&mut worker, piece) {
                                Ok(piece) => lock(&state).hand_in_piece(number, piece),
                                Err(error) => Err(error.into()),
                            }
                        }
                    }
                }
            };
            if let Err(error) = result {
                lock(&state).failure.get_or_insert(error);
            }
            changed.notify_all();
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..rayon::current_num_threads() {
            scope.spawn(work);
        }
        work();
    });
    match lock(&state).failure.take() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Calls its function if the thread panics.
struct Alarm<F: Fn()>(F);

impl<F: Fn()> Drop for Alarm<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0();
        }
    }
}

/// A thread that panicked ends the build by its panic, which the scope passes on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
