//! A step that was begun: what is known of it, what comes back, and its result.

use super::feed::StepPlan;
use crate::bert::plans::Kind;
use crate::kernel::StepParams;

/// What came out of one optimiser step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepResult {
    /// 0-based step.
    pub step: u64,
    /// Which plan.
    pub kind: Kind,
    /// Mean loss of the masked tokens; none without any.
    pub mlm_loss: Option<f64>,
    /// Mean loss of the task.
    pub task_loss: Option<f64>,
    /// Global gradient norm before clipping.
    pub gradient_norm: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Tokens of the batch.
    pub tokens: u64,
    /// FLOPs of the launched kernels.
    pub executed: u64,
    /// FLOPs that the mathematics needs: [`needed_flops`](crate::cost::needed_flops).
    pub needed: u64,
    /// Tokens if every sequence were padded to the longest of its batch.
    pub padded: u64,
    /// Tokens that the plans hold.
    pub capacity: u64,
    /// Seconds that no device with the trainer's ceilings could do without; 0 without ceilings.
    pub floor: f64,
}

/// A step between its first submission and its result.
pub(super) struct InFlight {
    /// 0-based step.
    pub step: u64,
    /// What it does.
    pub plan: StepPlan,
    /// Its input blocks, kept where the device runs ahead of the results.
    pub blocks: Vec<Vec<u32>>,
    /// Submissions whose readback has been taken.
    pub collected: usize,
    /// Sums of losses over the rows so far.
    pub mlm: f64,
    /// The same of the task's losses.
    pub task: f64,
    /// Global norm of the gradients, from the last submission.
    pub gradient_norm: f32,
    /// FLOPs of the launched kernels.
    pub executed: u64,
    /// FLOPs that the mathematics needs.
    pub needed: u64,
    /// Tokens if every sequence were padded to the longest of its batch.
    pub padded: u64,
    /// Tokens that the plans hold.
    pub capacity: u64,
    /// Sum of the launches' floors, seconds.
    pub floor: f64,
    /// Of the loss scale.
    pub exponent: i32,
    micro_batches: usize,
    submitted: usize,
    tokens: u64,
    masked: u64,
    sequences: u64,
}

impl InFlight {
    /// A step of which nothing was submitted yet.
    pub fn new(step: u64, plan: StepPlan, micro_batches: usize, exponent: i32) -> InFlight {
        InFlight {
            step,
            plan,
            blocks: Vec::new(),
            collected: 0,
            mlm: 0.0,
            task: 0.0,
            gradient_norm: f32::NAN,
            executed: 0,
            needed: 0,
            padded: 0,
            capacity: 0,
            floor: 0.0,
            exponent,
            micro_batches,
            submitted: 0,
            tokens: 0,
            masked: 0,
            sequences: 0,
        }
    }

    /// Counts a micro-batch that was submitted.
    pub fn submitted(&mut self, params: &StepParams, block: Option<Vec<u32>>) {
        self.submitted += 1;
        self.tokens += u64::from(params.tokens);
        self.masked += u64::from(params.masked);
        self.sequences += u64::from(params.sequences);
        self.blocks.extend(block);
    }

    /// Submissions on their way.
    pub fn submissions(&self) -> usize {
        self.submitted - self.collected
    }

    /// Whether anything has not come back.
    pub fn waits(&self) -> bool {
        self.collected < self.micro_batches
    }

    /// The first loss that is no number. The norm is for the caller to judge, who knows whether it was scaled.
    pub fn not_finite(&self) -> Option<(&'static str, f32)> {
        let single = |loss: Option<f64>| loss.map(|loss| loss as f32);
        let values = [
            ("masked-token loss", single(self.mlm_loss())),
            ("task loss", single(self.task_loss())),
        ];
        let mut values = values.into_iter().filter_map(|(what, value)| Some((what, value?)));
        values.find(|(_, value)| !value.is_finite())
    }

    fn mlm_loss(&self) -> Option<f64> {
        (self.plan.kind != Kind::Finetune && self.masked > 0).then(|| self.mlm / self.masked as f64)
    }

    fn task_loss(&self) -> Option<f64> {
        (self.plan.kind != Kind::External && self.sequences > 0).then(|| self.task / self.sequences as f64)
    }

    /// What came out.
    pub fn result(&self) -> StepResult {
        StepResult {
            step: self.step,
            kind: self.plan.kind,
            mlm_loss: self.mlm_loss(),
            task_loss: self.task_loss(),
            gradient_norm: f64::from(self.gradient_norm),
            learning_rate: self.plan.learning_rate,
            tokens: self.tokens,
            executed: self.executed,
            needed: self.needed,
            padded: self.padded,
            capacity: self.capacity,
            floor: self.floor,
        }
    }
}
