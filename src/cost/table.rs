//! Published trainings under every convention, and what TLM saves against pretrained models.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::convention::{CONVENTIONS, Convention, Part, flops};
use super::published::{Group, Known, Printed, Published, published};
use super::tasks::{SCALES, TASKS};

/// FLOPs by convention.
pub type ByConvention = BTreeMap<Convention, f64>;

/// The whole table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Table {
    /// The trainings.
    pub rows: Vec<Row>,
    /// TLM's trainings one by one.
    pub tasks: Vec<TaskRow>,
    /// TLM against the pretrained models.
    pub ratios: Vec<Ratio>,
}

/// One training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Name.
    pub name: &'static str,
    /// Kind.
    pub group: Group,
    /// Parameters as the source prints them.
    pub named_parameters: Option<f64>,
    /// Parameters as they are: embeddings, layers, the heads that are trained.
    pub parameters: Option<u64>,
    /// Tokens of stage 1, padding and all.
    pub tokens: Option<f64>,
    /// Gigabytes of text.
    pub data_gb: Option<f64>,
    /// Mean score over the eight tasks, per cent.
    pub score: Option<f64>,
    /// What sources print.
    pub printed: Vec<Printed>,
    /// FLOPs as counted here.
    pub flops: ByConvention,
    /// What else is known.
    pub remark: &'static str,
}

/// One training of TLM.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskRow {
    /// Scale.
    pub scale: &'static str,
    /// Task.
    pub task: &'static str,
    /// Tokens of stage 1, padding and all.
    pub tokens: f64,
    /// FLOPs.
    pub flops: ByConvention,
}

/// FLOPs of a pretrained model for one of TLM.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// TLM's scale.
    pub tlm: &'static str,
    /// The pretrained model.
    pub plm: &'static str,
    /// Its FLOPs by TLM's.
    pub ratio: ByConvention,
}

/// Counts everything that is published.
pub fn table() -> Table {
    let rows: Vec<Row> = published().iter().map(row).collect();
    let of_group = |group| rows.iter().filter(move |row| row.group == group);
    let mut ratios = Vec::new();
    for tlm in of_group(Group::Tlm) {
        for plm in of_group(Group::Plm) {
            let ratio = CONVENTIONS.map(|convention| (convention, plm.flops[&convention] / tlm.flops[&convention]));
            ratios.push(Ratio {
                tlm: tlm.name,
                plm: plm.name,
                ratio: ratio.into(),
            });
        }
    }
    let tasks = SCALES.iter().flat_map(|scale| {
        TASKS.iter().map(|task| {
            let parts = scale.training(task);
            TaskRow {
                scale: scale.name(),
                task: task.name,
                tokens: tokens(&parts),
                flops: by_convention(&[parts]),
            }
        })
    });
    Table {
        tasks: tasks.collect(),
        ratios,
        rows,
    }
}

/// FLOPs under all conventions, the mean over trainings.
pub fn by_convention(trainings: &[Vec<Part>]) -> ByConvention {
    let mean =
        |convention| trainings.iter().map(|parts| flops(convention, parts)).sum::<f64>() / trainings.len() as f64;
    CONVENTIONS.map(|convention| (convention, mean(convention))).into()
}

/// Tokens that go through stage 1, once, however many encoders read them.
fn tokens(parts: &[Part]) -> f64 {
    let stage1 = parts.iter().filter(|part| !part.stage2);
    match parts {
        // Generator and discriminator read the same.
        [discriminator, generator] if discriminator.phases == generator.phases => discriminator.tokens(),
        _ => stage1.map(Part::tokens).sum(),
    }
}

fn row(published: &Published) -> Row {
    let mut row = Row {
        name: published.name,
        group: published.group,
        named_parameters: None,
        parameters: None,
        tokens: None,
        data_gb: published.data_gb,
        score: published
            .scores
            .map(|scores| scores.iter().sum::<f64>() / scores.len() as f64),
        printed: published.printed.clone(),
        flops: ByConvention::new(),
        remark: published.remark,
    };
    match &published.known {
        Known::Nothing => {}
        Known::Sizes { parameters, tokens } => {
            (row.named_parameters, row.tokens) = (Some(*parameters), Some(*tokens));
            row.flops
                .insert(Convention::Paper, super::convention::paper(*parameters, *tokens));
        }
        Known::Shapes(trainings) => {
            let mean = |of: &dyn Fn(&[Part]) -> f64| {
                trainings.iter().map(|parts| of(parts)).sum::<f64>() / trainings.len() as f64
            };
            row.named_parameters = Some(trainings[0][0].named_parameters);
            let twins = published.group == Group::Other;
            let counted = if twins { &trainings[0][..] } else { &trainings[0][..1] };
            row.parameters = Some(counted.iter().map(|part| part.parameters).sum());
            row.tokens = Some(mean(&tokens));
            row.flops = by_convention(trainings);
        }
    }
    row
}

impl Table {
    /// The table for a terminal: one convention with the single tasks, or all of them side by side.
    pub fn to_text(&self, convention: Option<Convention>) -> String {
        // Writing into a String cannot fail, here and below.
        let mut out = String::new();
        let shown: Vec<Convention> = convention.map_or(CONVENTIONS.to_vec(), |one| vec![one]);
        self.trainings(&mut out, &shown);
        if let Some(convention) = convention {
            self.single_tasks(&mut out, convention);
        }
        self.saved(&mut out, convention.unwrap_or(Convention::Paper));
        let _ = writeln!(out);
        for convention in shown {
            let _ = writeln!(out, "{:<11} {}", convention.name(), convention.meaning());
        }
        let _ = writeln!(
            out,
            "\nprinted: what the source gives; off: paper against it. N: as printed, then as counted. PLMs without\n\
             fine-tuning; retrieval, evaluation and the search for settings are in no count."
        );
        out
    }

    fn trainings(&self, out: &mut String, shown: &[Convention]) {
        let _ = write!(
            out,
            "{:<20} {:>5} {:>8} {:>8} {:>8} {:>6} {:>8} {:>6}",
            "training", "N", "counted", "tokens", "data", "score", "printed", "off"
        );
        for convention in shown {
            let _ = write!(out, " {:>10}", convention.name());
        }
        let _ = writeln!(out);
        for row in &self.rows {
            let millions = |n: f64| format!("{:.0}M", n / 1e6);
            let printed = row.printed.first().map(|printed| printed.flops);
            let off = printed.zip(row.flops.get(&Convention::Paper));
            let cells = [
                shown_or_dash(row.named_parameters, millions),
                shown_or_dash(row.parameters, |n| format!("{:.1}M", n as f64 / 1e6)),
                shown_or_dash(row.tokens, |tokens| format!("{tokens:.2e}")),
                shown_or_dash(row.data_gb, |gb| format!("{}GB", two_decimals(gb))),
                shown_or_dash(row.score, |score| format!("{score:.2}")),
                shown_or_dash(printed, |flops| format!("{flops:.2E}")),
                shown_or_dash(off, |(printed, counted)| {
                    format!("{:+.1}%", 100.0 * (counted / printed - 1.0))
                }),
            ];
            let [named, counted, tokens, data, score, printed, off] = cells;
            let _ = write!(
                out,
                "{:<20} {named:>5} {counted:>8} {tokens:>8} {data:>8} {score:>6} {printed:>8} {off:>6}",
                row.name
            );
            for convention in shown {
                let flops = row.flops.get(convention).copied();
                let _ = write!(out, " {:>10}", shown_or_dash(flops, |flops| format!("{flops:.2E}")));
            }
            let _ = writeln!(out);
        }
        let _ = writeln!(out);
        for row in &self.rows {
            let further = row.printed.iter().skip(usize::from(row.group != Group::Other));
            let further: Vec<String> = further.map(|p| format!("{:.2E} {}", p.flops, p.source)).collect();
            let parts = [further.join(", "), row.remark.to_owned()];
            let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            if !parts.is_empty() {
                let _ = writeln!(out, "{:<20} {}", row.name, parts.join("; "));
            }
        }
    }

    fn single_tasks(&self, out: &mut String, convention: Convention) {
        let _ = write!(out, "\n{:<12}", convention.name());
        for task in TASKS {
            let _ = write!(out, " {:>13}", task.name);
        }
        let _ = writeln!(out);
        for scale in SCALES {
            let _ = write!(out, "{:<12}", scale.name());
            for task in self.tasks.iter().filter(|task| task.scale == scale.name()) {
                let _ = write!(out, " {:>13}", format!("{:.3E}", task.flops[&convention]));
            }
            let _ = writeln!(out);
        }
    }

    fn saved(&self, out: &mut String, convention: Convention) {
        let plms: Vec<&Row> = self.rows.iter().filter(|row| row.group == Group::Plm).collect();
        let _ = write!(out, "\n{:<12}", "TLM : PLM");
        for plm in &plms {
            let _ = write!(out, " {:>13}", plm.name);
        }
        let _ = writeln!(out, "   ({})", convention.name());
        for scale in SCALES {
            let _ = write!(out, "{:<12}", scale.name());
            for ratio in self.ratios.iter().filter(|ratio| ratio.tlm == scale.name()) {
                let _ = write!(out, " {:>13}", format!("1 : {:.1}", ratio.ratio[&convention]));
            }
            let _ = writeln!(out);
        }
    }
}

fn shown_or_dash<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

/// At most two decimals.
fn two_decimals(x: f64) -> String {
    let text = format!("{x:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests;
