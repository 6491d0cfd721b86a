//! Six ways to count the FLOPs of a training, as papers do. Published figures for one model differ by a factor of six
//! between them, so that a figure without its convention says nothing.
//!
//! L layers, h width, f feed-forward, A heads, V vocabulary, e embedding, S length with padding, D tokens with padding, N
//! parameters, m share of positions that are predicted. Per token, forward and backward:
//!
//! ```text
//! paper       6 N                                             Brown et al. 2020, as the TLM paper takes it: N as it prints it
//! exact       3 L (8 h^2 + 4 h f + 4 h S) + 3 m (2 h e + 2 e V) + the task head + stage 2
//! palm        6 N + 12 L h S                                  Chowdhery et al. 2022, appendix B
//! megatron    96 L h^2 (1 + S / 6h + V / 16 L h)              Narayanan et al. 2021, equation 3: recomputes all activations
//! chinchilla  3 (4 V h + L (8 h^2 + 4 h S + 3 A S + 4 h f))   Hoffmann et al. 2022, appendix F
//! electra     2 x the forward's operators                     Clark et al. 2020, flops_computation.py
//! ```
//!
//! All but `exact` count stage 1 only. Embeddings are a fifth of N at base size, so that 6 N flatters small models.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Counts, Encoder, products};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Convention {
    /// 6 N D.
    Paper,
    /// Products of real shapes: logits of predicted positions only, attention's quadratic term, both stages.
    Exact,
    /// 6 N and attention.
    Palm,
    /// With full recomputation of activations.
    Megatron,
    /// Embeddings as products, logits everywhere.
    Chinchilla,
    /// Every operator of the forward, twice.
    Electra,
}

/// All conventions.
pub const CONVENTIONS: [Convention; 6] = [
    Convention::Paper,
    Convention::Exact,
    Convention::Palm,
    Convention::Megatron,
    Convention::Chinchilla,
    Convention::Electra,
];

/// Steps of one shape.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Phase {
    /// Optimiser steps.
    pub steps: u64,
    /// Sequences of a step.
    pub batch: u64,
    /// Tokens of a sequence, padding and all.
    pub length: u64,
}

impl Phase {
    /// Steps, sequences, tokens.
    pub const fn new(steps: u64, batch: u64, length: u64) -> Phase {
        Phase { steps, batch, length }
    }

    /// Tokens.
    pub fn tokens(&self) -> f64 {
        self.steps as f64 * self.batch as f64 * self.length as f64
    }
}

/// What stands on top of the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Head {
    /// Masked language modelling on this share of the positions.
    Mlm(f64),
    /// The same and a classification of each sequence.
    Joint {
        /// Share of the positions.
        masked: f64,
        /// Classes.
        classes: u64,
    },
    /// Replaced or not, of every token (ELECTRA's discriminator).
    Replaced,
    /// A classification of each sequence.
    Task {
        /// Classes.
        classes: u64,
    },
}

/// A part of a training: one encoder with one head.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// The encoder.
    pub encoder: Encoder,
    /// N of the paper's convention: as the source prints it.
    pub named_parameters: f64,
    /// N as it is.
    pub parameters: u64,
    /// What the encoder is trained for.
    pub head: Head,
    /// All steps.
    pub phases: Vec<Phase>,
    /// Whether it is fine-tuning, which only `exact` counts.
    pub stage2: bool,
}

impl Part {
    /// Tokens, padding and all.
    pub fn tokens(&self) -> f64 {
        self.phases.iter().map(Phase::tokens).sum()
    }
}

/// FLOPs of a training under a convention.
pub fn flops(convention: Convention, parts: &[Part]) -> f64 {
    let counted = parts
        .iter()
        .filter(|part| convention == Convention::Exact || !part.stage2);
    let of = |part: &Part| -> f64 {
        let phases = part.phases.iter();
        phases
            .map(|phase| phase.tokens() * per_token(convention, part, phase.length as f64))
            .sum()
    };
    counted.map(of).sum()
}

/// The paper's count: 6 x parameters x tokens of stage 1, padding and all.
pub fn paper(parameters: f64, tokens: f64) -> f64 {
    6.0 * parameters * tokens
}

/// FLOPs of one token in a sequence of `s` tokens.
pub fn per_token(convention: Convention, part: &Part, s: f64) -> f64 {
    let encoder = &part.encoder;
    let number = |x: u64| x as f64;
    let (l, h, f, a, v) = (
        number(encoder.layers),
        number(encoder.hidden),
        number(encoder.intermediate),
        number(encoder.heads),
        number(encoder.vocabulary),
    );
    match convention {
        Convention::Paper => paper(part.named_parameters, 1.0),
        Convention::Exact => 3.0 * exact_forward(part, s),
        Convention::Palm => 6.0 * number(part.parameters) + 12.0 * l * h * s,
        Convention::Megatron => 96.0 * l * h * h * (1.0 + s / (6.0 * h) + v / (16.0 * l * h)),
        Convention::Chinchilla => {
            let layer = 8.0 * h * h + 4.0 * h * s + 3.0 * a * s + 4.0 * h * f;
            3.0 * (4.0 * v * h + l * layer)
        }
        Convention::Electra => 2.0 * electra_forward(part, s),
    }
}

/// Products of one token, its share of those of its sequence among them.
fn exact_forward(part: &Part, s: f64) -> f64 {
    let mut counts = Counts {
        tokens: 1.0,
        squared_lengths: s,
        ..Counts::default()
    };
    let (mut classes, mut every_token) = (0, 0.0);
    match part.head {
        Head::Mlm(masked) => counts.masked = masked,
        Head::Joint { masked, classes: of } => {
            (counts.masked, counts.classified, classes) = (masked, 1.0 / s, of);
        }
        Head::Task { classes: of } => (counts.classified, classes) = (1.0 / s, of),
        Head::Replaced => {
            let h = part.encoder.hidden as f64;
            every_token = 2.0 * h * h + 2.0 * h;
        }
    }
    products(&part.encoder, classes, &counts) + every_token
}

/// The operators that ELECTRA's script counts: LayerNorm 5, GELU 8, softmax 5, dropout 4 an element. Its LayerNorm behind
/// the attention counts 5 for a whole row, a slip that its figures contain. Predicted positions are 0.15625 of all.
fn electra_forward(part: &Part, s: f64) -> f64 {
    const PREDICTED: f64 = 0.15625;
    let encoder = &part.encoder;
    let number = |x: u64| x as f64;
    let (l, h, f, a, v, e) = (
        number(encoder.layers),
        number(encoder.hidden),
        number(encoder.intermediate),
        number(encoder.heads),
        number(encoder.vocabulary),
        number(encoder.embedding),
    );
    let attention = 6.0 * h * h + 3.0 * h + 2.0 * h * s + (5.0 + 4.0 + 1.0) * s * a + 2.0 * h * s;
    let output = 2.0 * h * h + h + 4.0 * h + h + 5.0;
    let feed_forward = 2.0 * h * f + 8.0 * f + f + 2.0 * h * f + h + 4.0 * h + h + 5.0 * h;
    let projection = if encoder.embedding == encoder.hidden {
        0.0
    } else {
        2.0 * h * e + h
    };
    let embedding = 2.0 * e * v + 2.0 * e * (s + 2.0) + 2.0 * e + 5.0 * e + 4.0 * e + projection;
    let head = match part.head {
        Head::Replaced => 2.0 * h * h + h + 8.0 * h + 2.0 * h,
        _ => PREDICTED * (2.0 * e * v + 2.0 * h * e + e + 8.0 * e + 5.0 * e + 5.0 * v + 2.0 * v),
    };
    l * (attention + output + feed_forward) + embedding + head
}

impl Convention {
    /// Name on the command line and in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Convention::Paper => "paper",
            Convention::Exact => "exact",
            Convention::Palm => "palm",
            Convention::Megatron => "megatron",
            Convention::Chinchilla => "chinchilla",
            Convention::Electra => "electra",
        }
    }

    /// What it counts, in a line.
    pub const fn meaning(self) -> &'static str {
        match self {
            Convention::Paper => "6 x parameters x tokens, padding and all, stage 1 only (Brown et al. 2020)",
            Convention::Exact => {
                "matrix products at 3 x the forward: logits of masked rows only, attention, both stages"
            }
            Convention::Palm => "6 x parameters + attention, per token (Chowdhery et al. 2022)",
            Convention::Megatron => {
                "4 x the forward, logits everywhere: activations recomputed (Narayanan et al. 2021)"
            }
            Convention::Chinchilla => "3 x the forward, embeddings and logits as full products (Hoffmann et al. 2022)",
            Convention::Electra => "2 x the forward, every operator (Clark et al. 2020)",
        }
    }
}

impl fmt::Display for Convention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Convention {
    type Err = String;

    fn from_str(text: &str) -> Result<Convention, String> {
        let found = CONVENTIONS.into_iter().find(|convention| convention.name() == text);
        found.ok_or_else(|| {
            let names = CONVENTIONS.map(Convention::name).join(", ");
            format!("unknown convention \"{text}\": use one of {names}")
        })
    }
}

#[cfg(test)]
mod tests;
