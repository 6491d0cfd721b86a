//! The curves of a report: losses of both stages, development score, learning rate.

use super::format::{metric_name, percent};
use super::plot::{LineChart, Series, escape};
use crate::tlm::objective::StepKind;
use crate::tlm::outcome::{MetricsRow, Report};

/// Repeats drawn in one chart of development scores.
const MOST_REPEATS: usize = 8;

/// All charts that have data. Losses are those of the first repeat, development scores those of all.
pub(super) fn section(report: &Report, rows: &[MetricsRow]) -> String {
    let first: Vec<&MetricsRow> = rows.iter().filter(|row| row.seed == report.seed).collect();
    let charts = [
        ("Stage 1: loss of the masked tokens", mlm_loss(&first)),
        ("Stage 1: loss of the classification", stage1_task_loss(&first)),
        ("Stage 2: loss of the classification", stage2_loss(&first)),
        ("Score on the development set", dev_score(report, rows)),
        ("Learning rate", learning_rate(&first)),
        ("Norm of the gradient before clipping", gradient_norm(&first)),
    ];
    let cards: String = charts
        .into_iter()
        .map(|(title, chart)| {
            (
                title,
                LineChart {
                    title: title.to_owned(),
                    ..chart
                }
                .to_html(),
            )
        })
        .filter(|(_, chart)| !chart.is_empty())
        .map(|(title, chart)| format!("<div class=\"card\"><h3>{}</h3>{chart}</div>", escape(title)))
        .collect();
    if cards.is_empty() {
        return String::new();
    }
    let seed = if report.repeats.len() > 1 {
        format!(" (losses of seed {})", report.seed)
    } else {
        String::new()
    };
    format!("<h2>Curves{seed}</h2>\n<div class=\"grid\">{cards}</div>\n")
}

fn line(name: &str, smooth: bool, points: impl Iterator<Item = Option<(f64, f64)>>) -> Series {
    Series {
        name: name.to_owned(),
        points: points.flatten().collect(),
        smooth,
        dots: false,
    }
}

fn mlm_loss(rows: &[&MetricsRow]) -> LineChart {
    let of = |name, kind| {
        let rows = rows.iter().filter(move |row| row.stage == 1 && row.kind == Some(kind));
        line(name, true, rows.map(|row| Some((row.step as f64, row.mlm_loss?))))
    };
    let series = vec![
        of("selected texts", StepKind::External),
        of("task texts", StepKind::Internal),
    ];
    LineChart {
        x: "step".into(),
        series,
        ..LineChart::default()
    }
}

fn stage1_task_loss(rows: &[&MetricsRow]) -> LineChart {
    let training = rows.iter().filter(|row| row.stage == 1);
    let series = vec![
        line(
            "training, masked texts",
            true,
            training.clone().map(|row| Some((row.step as f64, row.task_loss?))),
        ),
        line(
            "development",
            false,
            training.map(|row| Some((row.step as f64, row.dev_loss?))),
        ),
    ];
    LineChart {
        x: "step".into(),
        series,
        from_zero: true,
        ..LineChart::default()
    }
}

fn stage2_loss(rows: &[&MetricsRow]) -> LineChart {
    let training = rows.iter().filter(|row| row.stage == 2);
    let series = vec![
        line(
            "training",
            true,
            training.clone().map(|row| Some((row.step as f64, row.task_loss?))),
        ),
        line(
            "development",
            false,
            training.map(|row| Some((row.step as f64, row.dev_loss?))),
        ),
    ];
    LineChart {
        x: "step".into(),
        series,
        from_zero: true,
        ..LineChart::default()
    }
}

/// Stage 2's evaluations of every repeat, in percent; the tested model of the first repeat is marked.
fn dev_score(report: &Report, rows: &[MetricsRow]) -> LineChart {
    let stage = if rows.iter().any(|row| row.stage == 2 && row.dev_score.is_some()) {
        2
    } else {
        1
    };
    let series = report
        .repeats
        .iter()
        .take(MOST_REPEATS)
        .map(|repeat| {
            let rows = rows.iter().filter(|row| row.seed == repeat.seed && row.stage == stage);
            let points = rows.map(|row| Some((row.step as f64, 100.0 * row.dev_score?)));
            Series {
                dots: true,
                ..line(&format!("seed {}", repeat.seed), false, points)
            }
        })
        .collect();
    let best = report
        .stage2
        .best_step
        .zip(report.stage2.best_dev)
        .filter(|_| stage == 2);
    let metric = metric_name(&report.test.metric);
    LineChart {
        x: format!("step of stage {stage}, {metric} in %"),
        series,
        mark: best.map(|(step, score)| ((step as f64, 100.0 * score), percent(score))),
        ..LineChart::default()
    }
}

fn learning_rate(rows: &[&MetricsRow]) -> LineChart {
    let of = |name, stage| {
        let rows = rows.iter().filter(move |row| row.stage == stage);
        line(name, false, rows.map(|row| Some((row.step as f64, row.learning_rate?))))
    };
    let series = vec![of("stage 1", 1), of("stage 2", 2)];
    LineChart {
        x: "step".into(),
        series,
        from_zero: true,
        ..LineChart::default()
    }
}

fn gradient_norm(rows: &[&MetricsRow]) -> LineChart {
    let of = |name, stage| {
        let rows = rows.iter().filter(move |row| row.stage == stage);
        line(name, true, rows.map(|row| Some((row.step as f64, row.gradient_norm?))))
    };
    let series = vec![of("stage 1", 1), of("stage 2", 2)];
    LineChart {
        x: "step".into(),
        series,
        from_zero: true,
        ..LineChart::default()
    }
}
