//! The steps of a stage, prepared ahead of the device on a thread of their own.
//!
//! ```text
//! step -> StepPlan -> `accumulate` batches of its stream -> one input block each: scalars, ids, masks, row weights
//! ```
//!
//! A batch that is split into micro-batches has the gradient of the whole batch: each part's losses are weighted by its
//! share of the masked rows and of the sequences. Everything follows from (seed, stage, step), so a feed that starts in the
//! middle gives the same blocks as one that got there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::TrainError;
use super::inputs::{InputBlock, counted};
use crate::bert::plans::Kind;
use crate::data::{Batch, BatchCapacity, BatchStream, DataError, Prefetch};
use crate::kernel::StepParams;
use crate::plan::Plan;

/// Steps that are prepared at a time: one under way on the device, one ready, one being filled.
const BUFFERS: usize = 3;

/// What one optimiser step does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepPlan {
    /// Which plan.
    pub kind: Kind,
    /// Which of the stage's streams the batch comes from.
    pub stream: usize,
    /// Number of the batch in its stream.
    pub batch: u64,
    /// Factor of the mean MLM loss.
    pub mlm_weight: f64,
    /// Factor of the mean task loss.
    pub task_weight: f64,
    /// Which of the trainer's optimisers.
    pub optimizer: usize,
    /// Learning rate.
    pub learning_rate: f64,
    /// AdamW's bias correction.
    pub bias_correction: f64,
    /// The same for the task head, which may have seen fewer updates.
    pub head_bias_correction: f64,
}

/// Everything about a stage that does not change from step to step.
pub struct Stage {
    /// 1 or 2, for messages and to keep the stages' random numbers apart.
    pub number: u8,
    /// Seed of the repeat.
    pub seed: u64,
    /// Steps in all.
    pub steps: u64,
    /// Micro-batches per step.
    pub accumulate: usize,
    /// Largest gradient norm; infinite: not clipped.
    pub clip_norm: f32,
    /// Sources of batches, each of `batch / accumulate` sequences.
    pub streams: Vec<BatchStream>,
    /// What step `s` does.
    pub schedule: Box<dyn Fn(u64) -> StepPlan + Send>,
}

/// One step, ready for the device.
#[derive(Debug)]
pub struct PreparedStep {
    /// What the step does; none before the first filling.
    pub plan: Option<StepPlan>,
    /// One block for each micro-batch.
    pub blocks: Vec<InputBlock>,
    /// The scalars of each block, with the counts of its batch.
    pub params: Vec<StepParams>,
    /// Tokens of the batches if every sequence were padded to the longest of its batch.
    pub padded: u64,
    /// When the filling began and how long it took.
    pub filled: (Instant, Duration),
    batches: Vec<Batch>,
}

/// The stage's steps, prepared ahead.
pub struct Feed {
    stage: u8,
    prefetch: Prefetch<PreparedStep, DataError>,
}

impl Feed {
    /// Starts to prepare the steps `from ..` of a stage for `plans` (by kind, and whether they add to the gradients
    /// before them); `largest` holds every batch of the stage.
    ///
    /// # Errors
    /// [`TrainError::Thread`].
    pub fn start(
        stage: Stage,
        from: u64,
        plans: HashMap<(Kind, bool), Arc<Plan>>,
        largest: BatchCapacity,
    ) -> Result<Feed, TrainError> {
        let words = plans.values().map(|plan| plan.input_words()).max().unwrap_or(0);
        let empty = || PreparedStep {
            plan: None,
            blocks: (0..stage.accumulate).map(|_| InputBlock::new(words)).collect(),
            params: vec![StepParams::default(); stage.accumulate],
            padded: 0,
            filled: (Instant::now(), Duration::ZERO),
            batches: (0..stage.accumulate).map(|_| Batch::new(largest)).collect(),
        };
        let buffers = (0..BUFFERS).map(|_| empty()).collect();
        let (number, steps) = (stage.number, from..stage.steps);
        let mut cursors: Vec<_> = stage.streams.iter().map(BatchStream::cursor).collect();
        let fill = move |step: u64, prepared: &mut PreparedStep| {
            let start = Instant::now();
            let plan = (stage.schedule)(step);
            let first = plan.batch * stage.accumulate as u64;
            for (batch, number) in prepared.batches.iter_mut().zip(first..) {
                cursors[plan.stream].fill(number, batch)?;
            }
            prepared.fill_blocks(&stage, step, &plan, &plans);
            prepared.plan = Some(plan);
            prepared.padded = prepared.batches.iter().map(padded_tokens).sum();
            prepared.filled = (start, start.elapsed());
            Ok(())
        };
        let prefetch = Prefetch::start(buffers, steps, fill).map_err(TrainError::Thread)?;
        Ok(Feed {
            stage: number,
            prefetch,
        })
    }

    /// The stage's number.
    pub fn stage(&self) -> u8 {
        self.stage
    }

    /// The next step with its 0-based number; none after the last.
    ///
    /// # Errors
    /// [`TrainError::Data`] for a batch that cannot be made.
    pub fn next_step(&mut self) -> Result<Option<(u64, &mut PreparedStep)>, TrainError> {
        Ok(self.prefetch.next()?)
    }

    /// How long the device waited for data.
    pub fn waited(&self) -> Duration {
        self.prefetch.waited()
    }
}

/// Tokens of a batch if every sequence were as long as the longest.
fn padded_tokens(batch: &Batch) -> u64 {
    let lengths = batch.cu_seqlens.windows(2).map(|ends| ends[1] - ends[0]);
    u64::from(lengths.max().unwrap_or(0)) * batch.sequences() as u64
}

impl PreparedStep {
    /// The input blocks of the batches that are there.
    fn fill_blocks(&mut self, stage: &Stage, step: u64, plan: &StepPlan, plans: &HashMap<(Kind, bool), Arc<Plan>>) {
        let masked: usize = self.batches.iter().map(Batch::masked).sum();
        let sequences: usize = self.batches.iter().map(Batch::sequences).sum();
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        let [low, high] = crate::rng::key(stage.seed);
        for (micro, batch) in self.batches.iter().enumerate() {
            let params = StepParams {
                // A counter of random numbers: beyond 2^32 forward passes it begins again.
                step: (step * stage.accumulate as u64 + micro as u64) as u32,
                // Dropout of the two stages is apart.
                seed: [low, high ^ (u32::from(stage.number) << 30)],
                learning_rate: plan.learning_rate as f32,
                bias_correction: plan.bias_correction as f32,
                head_bias_correction: plan.head_bias_correction as f32,
                clip_norm: stage.clip_norm,
                ..StepParams::default()
            };
            let mlm = plan.mlm_weight * share(batch.masked(), masked);
            let task = plan.task_weight * share(batch.sequences(), sequences);
            self.blocks[micro].fill(&plans[&(plan.kind, micro > 0)], batch, &params, mlm, task);
            self.params[micro] = counted(&params, batch);
        }
    }
}
