//! Sizes of a run, said once: the encoder's configuration, the capacity of every plan, the plans that a configuration
//! needs. The run records its plans from here, and `tlm plan` shows the same.
//!
//! ```text
//! sequences  = batch / accumulate                    of one forward pass
//! tokens     = sequences * max_length                packed, so this is reached only if every text is that long
//! evaluation = the tokens of the largest of these    whole sequences
//! masked     = mean + 6 standard deviations          of tokens Bernoulli draws at mask_rate
//! ```

use super::TlmError;
use super::config::{Config, OptimizerConfig};
use super::objective::{HeadOnExternal, step_counts};
use crate::bert::Capacity;
use crate::bert::plans::{Form, HeadUpdate, Kind, Optimizer};
use crate::data::{Masking, SpecialIds};
use crate::hub::BertConfig;
use crate::ops::adamw;

/// A plan over batches that a run records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedBatch {
    /// What it computes.
    pub kind: Kind,
    /// The most it holds.
    pub capacity: Capacity,
    /// How it computes its gradients.
    pub form: Form,
}

/// The encoder and heads of a configuration for a vocabulary of `vocab_size` and these classes.
pub fn bert_config(config: &Config, vocab_size: usize, labels: Vec<String>) -> BertConfig {
    let shape = config.shape();
    BertConfig {
        vocab_size,
        hidden_size: shape.hidden,
        num_hidden_layers: shape.layers,
        num_attention_heads: shape.heads,
        intermediate_size: shape.intermediate,
        max_position_embeddings: shape.max_positions,
        type_vocab_size: 2,
        pad_token_id: 0,
        hidden_dropout_prob: config.model.dropout,
        attention_probs_dropout_prob: config.model.attention_dropout,
        layer_norm_eps: 1e-12,
        labels,
        max_length: config.model.max_length,
    }
}

/// The capacity of a plan over `batch` sequences of up to `max_length` tokens, masked with probability `mask_rate`
/// or not at all.
///
/// # Errors
/// [`TlmError::Refused`] for more than 2^32 - 1 tokens, [`TlmError::Data`] for a rate outside 0..1.
pub fn capacity(batch: usize, max_length: usize, mask_rate: Option<f64>) -> Result<Capacity, TlmError> {
    let tokens = batch
        .checked_mul(max_length)
        .filter(|&tokens| tokens < u32::MAX as usize);
    let tokens = tokens.ok_or_else(|| {
        TlmError::Refused(format!(
            "{batch} sequences of {max_length} tokens are more than a plan can hold (2^32 - 2 tokens): use smaller \
             batches, or a larger accumulate"
        ))
    })?;
    let masked = mask_rate.map_or(Ok(0), |rate| masked_rows(tokens, rate))?;
    Ok(Capacity {
        tokens: tokens as u32,
        sequences: batch as u32,
        masked: masked as u32,
        max_length: max_length as u32,
    })
}

fn masked_rows(tokens: usize, rate: f64) -> Result<usize, TlmError> {
    // The number of rows follows from the rate alone; which ids are never masked does not matter here.
    let special = SpecialIds {
        pad: 0,
        unk: 1,
        cls: 2,
        sep: 3,
        mask: 4,
    };
    Ok(Masking::new(rate, special, 5)?.capacity(tokens))
}

/// The plans over batches that a configuration needs, in the order in which a run first uses them.
///
/// # Errors
/// As [`capacity`].
pub fn batches(config: &Config) -> Result<Vec<PlannedBatch>, TlmError> {
    batches_of(config, config.stage1.steps)
}

/// The plans over batches of stage 2 alone.
///
/// # Errors
/// As [`capacity`].
pub fn finetune_batches(config: &Config) -> Result<Vec<PlannedBatch>, TlmError> {
    batches_of(config, 0)
}

/// The plans for so many steps of stage 1, and for stage 2.
fn batches_of(config: &Config, stage1_steps: u64) -> Result<Vec<PlannedBatch>, TlmError> {
    let (stage1, stage2) = (&config.stage1, &config.stage2);
    let (external, internal) = step_counts(stage1_steps, config.rho1());
    let (batch1, batch2) = (stage1.batch / stage1.accumulate, stage2.batch / stage2.accumulate);
    let (length, rate) = (config.model.max_length, Some(stage1.mask_rate));
    let mut plans: Vec<PlannedBatch> = Vec::new();
    let mut add = |kind, capacity, accumulate: usize| {
        let passes: &[bool] = if accumulate > 1 { &[false, true] } else { &[false] };
        for &accumulate in passes {
            let form = Form {
                accumulate,
                recompute: config.model.recompute,
                ..Form::default()
            };
            plans.push(PlannedBatch { kind, capacity, form });
        }
    };
    if external > 0 {
        add(
            Kind::External,
            capacity(batch1, config.external_length(), rate)?,
            stage1.accumulate,
        );
    }
    if internal > 0 {
        add(Kind::Joint, capacity(batch1, length, rate)?, stage1.accumulate);
    }
    if stage2.steps > 0 {
        add(Kind::Finetune, capacity(batch2, length, None)?, stage2.accumulate);
    }
    // As many tokens at a time as the largest training batch has: evaluation then needs no memory of its own, and what
    // comes out does not depend on it.
    let most = plans.iter().map(|plan| plan.capacity.tokens as usize).max();
    let sequences = (most.unwrap_or(0) / length).max(1);
    plans.push(PlannedBatch {
        kind: Kind::Evaluate,
        capacity: capacity(sequences, length, None)?,
        form: Form::default(),
    });
    Ok(plans)
}

/// Places of a run's optimisers in the list of [`optimizers`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OptimizerSet {
    /// Stage 1: everything with one bias correction.
    pub joined: usize,
    /// Stage 1, internal steps of `head_on_external = "skip"`: the task head with its own bias correction.
    pub apart: usize,
    /// Stage 1, external steps of `head_on_external = "skip"`: the task head is left alone.
    pub frozen: usize,
    /// Stage 2.
    pub stage2: usize,
}

/// The optimisers that a configuration needs, and which is which.
pub fn optimizers(config: &Config) -> (Vec<Optimizer>, OptimizerSet) {
    let (stage1, stage2) = (&config.stage1, &config.stage2);
    let mut list = Vec::new();
    let mut set = OptimizerSet::default();
    let mut add = |optimizer: &OptimizerConfig, head| {
        list.push(optimizer_of(optimizer, head));
        list.len() - 1
    };
    if stage1.steps > 0 {
        match stage1.head_on_external {
            HeadOnExternal::Zero => set.joined = add(&stage1.optimizer, HeadUpdate::Joined),
            HeadOnExternal::Skip => {
                set.apart = add(&stage1.optimizer, HeadUpdate::Apart);
                set.frozen = add(&stage1.optimizer, HeadUpdate::Frozen);
            }
        }
    }
    if stage2.steps > 0 {
        set.stage2 = add(&stage2.optimizer, HeadUpdate::Joined);
    }
    (list, set)
}

/// AdamW as a stage configures it.
fn optimizer_of(config: &OptimizerConfig, head: HeadUpdate) -> Optimizer {
    Optimizer {
        adamw: adamw::Settings {
            beta1: config.beta1 as f32,
            beta2: config.beta2 as f32,
            epsilon: config.epsilon as f32,
            weight_decay: config.weight_decay as f32,
            head: false,
        },
        head,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn config(overrides: &[&str]) -> Config {
        let text =
            "[task]\ntrain = \"a.jsonl\"\ndev = \"a.jsonl\"\ntest = \"a.jsonl\"\n[corpus]\ninputs = \"c.jsonl\"\n";
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        Config::parse(text, Path::new("/nowhere/run.toml"), &overrides).unwrap()
    }

    fn kinds(overrides: &[&str]) -> Vec<(Kind, u32, u32, bool)> {
        let plans = batches(&config(overrides)).unwrap();
        let row = |plan: &PlannedBatch| {
            (
                plan.kind,
                plan.capacity.sequences,
                plan.capacity.max_length,
                plan.form.accumulate,
            )
        };
        plans.iter().map(row).collect()
    }

    #[test]
    fn capacities_follow_batch_length_and_mask_rate() {
        let found = capacity(64, 128, Some(0.15)).unwrap();
        // 8192 * 0.15 = 1228.8, sigma = sqrt(1228.8 * 0.85) = 32.318; 1228.8 + 6 * 32.318 = 1422.7
        assert_eq!(
            found,
            Capacity {
                tokens: 8192,
                sequences: 64,
                masked: 1423,
                max_length: 128
            }
        );
        assert_eq!(capacity(64, 128, None).unwrap().masked, 0);
        assert!(
            capacity(1 << 20, 1 << 12, None)
                .unwrap_err()
                .to_string()
                .contains("larger accumulate")
        );
        assert!(capacity(1, 8, Some(0.0)).unwrap_err().to_string().contains("mask_rate"));
    }

    #[test]
    fn a_configuration_gets_the_plans_that_its_steps_use() {
        let whole = kinds(&["stage1.external_length=64"]);
        assert_eq!(
            whole,
            [
                (Kind::External, 64, 64, false),
                (Kind::Joint, 64, 128, false),
                (Kind::Finetune, 32, 128, false),
                (Kind::Evaluate, 64, 128, false),
            ]
        );
        let internal = kinds(&["stage1.rho1=0", "stage2.steps=0"]);
        assert_eq!(
            internal,
            [(Kind::Joint, 64, 128, false), (Kind::Evaluate, 64, 128, false)]
        );
        let accumulated = kinds(&["stage1.steps=0", "stage2.accumulate=4"]);
        assert_eq!(
            accumulated,
            [
                (Kind::Finetune, 8, 128, false),
                (Kind::Finetune, 8, 128, true),
                (Kind::Evaluate, 8, 128, false)
            ]
        );
    }

    #[test]
    fn a_head_that_external_steps_skip_needs_two_optimizers() {
        let heads = |overrides: &[&str]| -> Vec<HeadUpdate> {
            optimizers(&config(overrides))
                .0
                .iter()
                .map(|optimizer| optimizer.head)
                .collect()
        };
        assert_eq!(heads(&[]), [HeadUpdate::Joined, HeadUpdate::Joined]);
        let skip = "stage1.head_on_external=skip";
        assert_eq!(
            heads(&[skip]),
            [HeadUpdate::Apart, HeadUpdate::Frozen, HeadUpdate::Joined]
        );
        assert_eq!(
            heads(&[skip, "stage2.steps=0"]),
            [HeadUpdate::Apart, HeadUpdate::Frozen]
        );
        assert_eq!(heads(&["stage1.steps=0"]), [HeadUpdate::Joined]);
    }
}
