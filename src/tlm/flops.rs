//! What the training of a configuration costs, counted before it runs as if every text had its greatest length.
//!
//! ```text
//! paper      6 x parameters x tokens of stage 1, padding and all
//! needed     matrix products of both stages, logits of masked rows only (the convention `exact`)
//! executed   FLOPs of every launch of the plans at capacity, elementwise work, what is recomputed and the updates included
//! ```
//!
//! After a run `report.json` has the same three: `paper` with the same tokens, the others of the real, packed tokens.

use std::fmt::Write as _;

use serde::Serialize;

use super::TlmError;
use super::config::Config;
use super::objective::step_counts;
use super::outcome::FlopsReport;
use super::plan::plan;
use crate::cost::convention::{CONVENTIONS, Head, Part, Phase, flops, paper};
use crate::cost::published::Group;
use crate::cost::table::{ByConvention, by_convention, table};
use crate::cost::{Convention, Encoder};
use crate::device::choice::DeviceChoice;

/// The cost of a configuration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CostReport {
    /// What could not be known before the run, and was assumed.
    pub assumptions: Vec<String>,
    /// Parameters, all heads among them.
    pub parameters: u64,
    /// The three figures of a report, and all conventions.
    pub flops: FlopsReport,
    /// Where they go.
    pub parts: Vec<PartCost>,
    /// Published trainings against this one.
    pub against: Vec<Against>,
}

/// Steps of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartCost {
    /// Name of the plan.
    pub name: &'static str,
    /// Optimiser steps.
    pub steps: u64,
    /// Tokens at the greatest length.
    pub tokens: f64,
    /// FLOPs needed.
    pub needed: f64,
}

/// A published training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Against {
    /// Name.
    pub name: &'static str,
    /// Its FLOPs by those of the configuration.
    pub ratio: ByConvention,
}

/// Counts a configuration.
///
/// # Errors
/// As [`plan`].
pub fn cost(config: &Config) -> Result<CostReport, TlmError> {
    let plans = plan(config, DeviceChoice::Null)?;
    let parameters = plans.model.parameters as u64;
    let encoder = Encoder::of(&super::sizes::bert_config(config, plans.model.vocab_size, Vec::new()));
    let parts = training(config, encoder, parameters, plans.model.labels as u64);
    let counted = by_convention(std::slice::from_ref(&parts));
    let mut assumptions = plans.assumptions;
    assumptions.push("every text has its greatest length; packed texts are shorter and cost less".to_owned());
    let published = table();
    let against = published.rows.iter().filter(|row| row.group != Group::Other);
    let against = against.map(|row| Against {
        name: row.name,
        ratio: CONVENTIONS
            .map(|convention| (convention, row.flops[&convention] / counted[&convention]))
            .into(),
    });
    Ok(CostReport {
        assumptions,
        parameters,
        parts: parts.iter().map(part_cost).collect(),
        against: against.collect(),
        flops: FlopsReport {
            paper: counted[&Convention::Paper],
            needed: counted[&Convention::Exact],
            executed: plans.flops as f64,
            conventions: counted,
        },
    })
}

/// The trainings of a configuration as the conventions take them.
pub fn training(config: &Config, encoder: Encoder, parameters: u64, classes: u64) -> Vec<Part> {
    let (stage1, stage2) = (&config.stage1, &config.stage2);
    let (external, internal) = step_counts(stage1.steps, config.rho1());
    let masked = stage1.mask_rate;
    let part = |head, steps: u64, batch: usize, length: usize, stage2| Part {
        encoder,
        named_parameters: parameters as f64,
        parameters,
        head,
        phases: vec![Phase::new(steps, batch as u64, length as u64)],
        stage2,
    };
    let length = config.model.max_length;
    let parts = [
        part(
            Head::Mlm(masked),
            external,
            stage1.batch,
            config.external_length(),
            false,
        ),
        part(Head::Joint { masked, classes }, internal, stage1.batch, length, false),
        part(Head::Task { classes }, stage2.steps, stage2.batch, length, true),
    ];
    parts.into_iter().filter(|part| part.phases[0].steps > 0).collect()
}

/// The paper's count of stage 1; nothing where a run has none.
pub fn paper_of_stage1(parts: &[Part]) -> f64 {
    let stage1 = parts.iter().filter(|part| !part.stage2);
    stage1.map(|part| paper(part.named_parameters, part.tokens())).sum()
}

fn part_cost(part: &Part) -> PartCost {
    PartCost {
        name: match part.head {
            Head::Joint { .. } => "joint",
            Head::Task { .. } => "finetune",
            Head::Mlm(_) | Head::Replaced => "external",
        },
        steps: part.phases.iter().map(|phase| phase.steps).sum(),
        tokens: part.tokens(),
        needed: flops(Convention::Exact, std::slice::from_ref(part)),
    }
}

impl CostReport {
    /// The report for a terminal.
    pub fn to_text(&self, convention: Option<Convention>) -> String {
        // Writing into a String cannot fail.
        let mut out = String::new();
        let _ = writeln!(out, "parameters  {}", self.parameters);
        for assumption in &self.assumptions {
            let _ = writeln!(out, "assumed     {assumption}");
        }
        let _ = writeln!(
            out,
            "\n{:<12} {:>10} {:>10} {:>10}",
            "steps", "number", "tokens", "needed"
        );
        for part in &self.parts {
            let (tokens, needed) = (format!("{:.3e}", part.tokens), format!("{:.3E}", part.needed));
            let _ = writeln!(out, "{:<12} {:>10} {tokens:>10} {needed:>10}", part.name, part.steps);
        }
        let FlopsReport {
            paper,
            needed,
            executed,
            conventions,
        } = &self.flops;
        let _ = writeln!(
            out,
            "\npaper       {paper:.3E} FLOPs: 6 x parameters x tokens of stage 1"
        );
        let _ = writeln!(
            out,
            "needed      {needed:.3E} FLOPs: the matrix products of both stages"
        );
        let _ = writeln!(
            out,
            "executed    {executed:.3E} FLOPs: everything that is launched, at the plans' capacity ({:.2} of needed)",
            executed / needed
        );
        let shown: Vec<Convention> = convention.map_or(CONVENTIONS.to_vec(), |one| vec![one]);
        let _ = write!(out, "\n{:<16}", "times cheaper");
        for convention in &shown {
            let _ = write!(out, " {:>11}", convention.name());
        }
        let _ = write!(out, "\n{:<16}", "this run, FLOPs");
        for convention in &shown {
            let _ = write!(out, " {:>11}", format!("{:.2E}", conventions[convention]));
        }
        let _ = writeln!(out);
        for against in &self.against {
            let _ = write!(out, "{:<16}", against.name);
            for convention in &shown {
                let _ = write!(out, " {:>11}", times(against.ratio[convention]));
            }
            let _ = writeln!(out);
        }
        out
    }
}

/// A ratio with three digits.
fn times(ratio: f64) -> String {
    match ratio {
        ratio if ratio >= 1e5 => format!("{ratio:.1e}"),
        ratio if ratio >= 100.0 => format!("{ratio:.0}"),
        ratio => format!("{ratio:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const TEXT: &str = "[task]\ntrain = \"a.jsonl\"\ndev = \"a.jsonl\"\ntest = \"a.jsonl\"\n[corpus]\ninputs = \
                        \"c.jsonl\"\n[tokenizer]\nvocab_size = 30522\n[model]\npreset = \"base\"\n";

    fn found(overrides: &[&str]) -> CostReport {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        cost(&Config::parse(TEXT, Path::new("/nowhere/run.toml"), &overrides).unwrap()).unwrap()
    }

    // SciERC at the small scale: 150,000 steps of 256 x 128, of which 150 are internal; 30,000 steps of 32 x 128. Parameters:
    // 109,514,298 and the task head 768^2 + 768 + 768 x 2 + 2 (two classes are assumed).
    #[test]
    fn a_published_setting_costs_what_the_closed_formulas_say() {
        let report = found(&[
            "stage1.steps=150000",
            "stage1.batch=256",
            "stage1.accumulate=64",
            "stage1.rho1=999",
            "stage2.steps=30000",
            "stage2.batch=32",
        ]);
        let (h, l, v, m) = (768.0f64, 12.0, 30_522.0, 0.15);
        assert_eq!(report.parameters, 109_514_298 + 768 * 768 + 768 + 768 * 2 + 2);
        let tokens = 150_000.0 * 256.0 * 128.0;
        assert_eq!(report.flops.paper, 6.0 * report.parameters as f64 * tokens);
        let layers = 72.0 * l * h * h * (1.0 + 128.0 / (6.0 * h));
        let head = 6.0 * m * h * (h + v);
        let task = 6.0 * h * (h + 2.0) / 128.0;
        let internal = 150.0 * 256.0 * 128.0;
        let needed = tokens * (layers + head) + internal * task + 30_000.0 * 32.0 * 128.0 * (layers + task);
        assert!((report.flops.needed / needed - 1.0).abs() < 1e-12);
        // More rows are reserved for masked tokens than are masked, scores are made once more, and there is elementwise work.
        let executed = report.flops.executed / report.flops.needed;
        assert!((1.02..1.25).contains(&executed), "{executed}");
        let bert = report
            .against
            .iter()
            .find(|against| against.name == "BERT-Base")
            .unwrap();
        let ratio = bert.ratio[&Convention::Paper];
        assert!((ratio / (2.7859e19 / report.flops.paper) - 1.0).abs() < 1e-4, "{ratio}");
    }

    #[test]
    fn stages_that_are_left_out_cost_nothing() {
        let whole = found(&[]);
        let names = |report: &CostReport| report.parts.iter().map(|part| part.name).collect::<Vec<_>>();
        assert_eq!(names(&whole), ["external", "joint", "finetune"]);
        assert_eq!(names(&found(&["stage1.rho1=0", "stage2.steps=0"])), ["joint"]);
        let second = found(&["stage1.steps=0"]);
        assert_eq!((names(&second), second.flops.paper), (vec!["finetune"], 0.0));
        assert!(whole.to_text(None).contains("chinchilla") && !whole.to_text(Some(Convention::Exact)).contains("palm"));
    }
}
