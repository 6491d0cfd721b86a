//! The eight tasks of the TLM paper with the settings of its stage 1 (Yao et al. 2022, table B.1) and what they cost.

use serde::Serialize;

use super::Encoder;
use super::convention::{Head, Part, Phase};

/// Share of the tokens that TLM predicts.
const MASKED: f64 = 0.15;

/// A size at which the paper trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// BERT-Base's encoder, BERT's corpus.
    Small,
    /// The same for more steps.
    Medium,
    /// BERT-Large's encoder, RoBERTa's corpus.
    Large,
}

/// Stage 1 of a task at a scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage1 {
    /// Passages per query.
    pub top_k: u64,
    /// External batches per internal batch.
    pub rho1: u64,
    /// Weight of the masked-token loss.
    pub rho2: u64,
    /// Gigabytes of the selected data.
    pub data_gb: f64,
    /// Optimiser steps.
    pub steps: u64,
    /// Sequences of a step.
    pub batch: u64,
    /// Tokens of an external sequence.
    pub length: u64,
    /// Tokens of an internal sequence.
    pub internal_length: u64,
}

/// A task of the paper.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TaskSettings {
    /// Its name.
    pub name: &'static str,
    /// Its classes.
    pub classes: u64,
    /// Tokens of a sequence in stage 2.
    pub length: u64,
    /// Stage 1 at the three scales.
    pub stage1: [Stage1; 3],
}

const fn stage1(top_k: u64, rho1: u64, rho2: u64, data_gb: f64, steps: u64) -> Stage1 {
    Stage1 {
        top_k,
        rho1,
        rho2,
        data_gb,
        steps,
        batch: 256,
        length: 128,
        internal_length: 128,
    }
}

/// In batches of 512.
const fn large_batch(stage1: Stage1) -> Stage1 {
    Stage1 { batch: 512, ..stage1 }
}

const fn lengths(stage1: Stage1, length: u64, internal_length: u64) -> Stage1 {
    Stage1 {
        length,
        internal_length,
        ..stage1
    }
}

const fn task(name: &'static str, classes: u64, stage1: [Stage1; 3]) -> TaskSettings {
    TaskSettings {
        name,
        classes,
        length: 128,
        stage1,
    }
}

/// In the paper's order.
pub const TASKS: [TaskSettings; 8] = [
    task(
        "AGNews",
        4,
        [
            stage1(50, 1, 100, 1.1, 100_000),
            stage1(50, 3, 100, 1.1, 300_000),
            stage1(100, 3, 100, 3.1, 500_000),
        ],
    ),
    task(
        "Hyperpartisan",
        2,
        [
            stage1(5000, 99, 20, 0.2, 50_000),
            stage1(5000, 99, 100, 0.2, 100_000),
            large_batch(stage1(10_000, 499, 20, 0.9, 300_000)),
        ],
    ),
    task(
        "Helpfulness",
        2,
        [
            stage1(50, 1, 100, 0.5, 150_000),
            stage1(50, 1, 1000, 0.5, 300_000),
            large_batch(stage1(100, 7, 100, 1.7, 500_000)),
        ],
    ),
    TaskSettings {
        length: 512,
        ..task(
            "IMDB",
            2,
            [
                lengths(stage1(500, 19, 100, 0.9, 150_000), 128, 512),
                lengths(stage1(500, 99, 100, 3.3, 300_000), 512, 512),
                lengths(large_batch(stage1(1000, 99, 1000, 11.0, 500_000)), 512, 512),
            ],
        )
    },
    task(
        "ACL-ARC",
        6,
        [
            stage1(5000, 999, 100, 1.5, 150_000),
            stage1(5000, 999, 20, 1.5, 300_000),
            large_batch(stage1(10_000, 1999, 20, 3.5, 500_000)),
        ],
    ),
    task(
        "SciERC",
        7,
        [
            stage1(5000, 999, 20, 1.6, 150_000),
            stage1(5000, 999, 20, 1.6, 300_000),
            large_batch(stage1(10_000, 1999, 20, 4.2, 300_000)),
        ],
    ),
    task(
        "ChemProt",
        13,
        [
            stage1(5000, 999, 20, 0.7, 150_000),
            stage1(5000, 999, 100, 0.7, 300_000),
            stage1(10_000, 1999, 20, 2.5, 500_000),
        ],
    ),
    task(
        "RCT",
        5,
        [
            stage1(50, 3, 20, 0.8, 100_000),
            stage1(50, 3, 100, 0.8, 300_000),
            stage1(100, 7, 100, 2.2, 500_000),
        ],
    ),
];

/// All scales.
pub const SCALES: [Scale; 3] = [Scale::Small, Scale::Medium, Scale::Large];

impl Scale {
    /// Name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Scale::Small => "TLM small",
            Scale::Medium => "TLM medium",
            Scale::Large => "TLM large",
        }
    }

    /// The encoder; BERT's vocabulary at every scale.
    pub const fn encoder(self) -> Encoder {
        match self {
            Scale::Small | Scale::Medium => Encoder::BERT_BASE,
            Scale::Large => Encoder::BERT_LARGE,
        }
    }

    /// N as the paper prints it. 355M is RoBERTa-Large's; the encoder has 335M.
    pub const fn named_parameters(self) -> f64 {
        match self {
            Scale::Small | Scale::Medium => 109e6,
            Scale::Large => 355e6,
        }
    }

    /// The training of a task: external and internal steps of stage 1, then 30,000 steps of 32 texts.
    pub fn training(self, task: &TaskSettings) -> Vec<Part> {
        let stage1 = &task.stage1[self as usize];
        let internal = stage1.steps / (stage1.rho1 + 1);
        let part = |head, phase, stage2| Part {
            encoder: self.encoder(),
            named_parameters: self.named_parameters(),
            parameters: self.encoder().parameters(),
            head,
            phases: vec![phase],
            stage2,
        };
        let (masked, classes) = (MASKED, task.classes);
        vec![
            part(
                Head::Mlm(masked),
                Phase::new(stage1.steps - internal, stage1.batch, stage1.length),
                false,
            ),
            part(
                Head::Joint { masked, classes },
                Phase::new(internal, stage1.batch, stage1.internal_length),
                false,
            ),
            part(Head::Task { classes }, Phase::new(30_000, 32, task.length), true),
        ]
    }

    /// Mean over the tasks of the selected gigabytes.
    pub fn data_gb(self) -> f64 {
        TASKS.iter().map(|task| task.stage1[self as usize].data_gb).sum::<f64>() / TASKS.len() as f64
    }
}
