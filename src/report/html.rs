//! `report.html`: one file that needs nothing else, for a browser of any width, in light and dark.
//!
//! Top to bottom: the score and the run's key figures, scores of every repeat, curves, confusion matrix and classes,
//! what was selected, where the time went, what it cost, notes, the complete configuration. A part without data is left out.

use std::fmt::Write;

use super::format::{bytes, count, duration, mean_std, metric_name, percent, scientific, short};
use super::plot::escape;
use super::{curves, flops, profile, selection};
use crate::tlm::outcome::{MetricsRow, Report, TestReport};
use crate::train::metrics::MeanStd;

const STYLE: &str = include_str!("style.css");

/// Beyond so many classes a confusion matrix is no picture any more.
const MOST_CONFUSED: usize = 30;
/// Beyond so many classes the matrix and the table of classes stand one below the other.
const MOST_BESIDE: usize = 6;

/// The whole page.
pub fn page(report: &Report, rows: &[MetricsRow]) -> String {
    let parts = [
        header(report),
        repeats(report),
        curves::section(report, rows),
        confusion(report),
        selection::section(report),
        time(report),
        report
            .profile
            .as_ref()
            .map_or_else(String::new, |profile| profile::section(profile, false)),
        flops::section(report),
        notes(report),
        configuration(report),
    ];
    document(&format!("{}: {}", report.task, title(report)), &parts.concat())
}

/// A page of its own around `body`, which is HTML.
pub(super) fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\
         <footer>tlm {}</footer>\n</main>\n</body>\n</html>\n",
        escape(title),
        env!("CARGO_PKG_VERSION")
    )
}

/// Whether there is a score: `tlm train` ends before the test.
fn is_tested(report: &Report) -> bool {
    report.test.examples > 0
}

fn title(report: &Report) -> String {
    if is_tested(report) {
        let metric = metric_name(&report.test.metric);
        format!("{} {metric}", percent(report.over_seeds.test.mean))
    } else {
        "stage 1".to_owned()
    }
}

/// The figure that the page is about.
fn main_figure(report: &Report) -> String {
    if !is_tested(report) {
        let loss = report.stage1.mlm_loss_last;
        let loss = loss.map_or_else(|| "–".to_owned(), |loss| format!("{loss:.3}"));
        return format!("<div class=\"card figure main\"><b>{loss}</b><span>last MLM loss of stage 1</span></div>");
    }
    let tests = report.over_seeds.test;
    let spread = tests
        .std
        .map_or_else(String::new, |std| format!(" <small>± {}</small>", percent(std)));
    let over = if tests.count > 1 {
        format!(", mean of {} seeds", tests.count)
    } else {
        String::new()
    };
    format!(
        "<div class=\"card figure main\"><b>{}{spread}</b><span>test {}{over}</span></div>",
        percent(tests.mean),
        metric_name(&report.test.metric)
    )
}

fn header(report: &Report) -> String {
    let model = &report.model;
    let mut figures = main_figure(report);
    if report.over_seeds.dev.count > 0 {
        figures += &figure(&mean_std(&report.over_seeds.dev), "best on dev");
    }
    figures += &figure(&duration(report.seconds), "wall clock in all");
    if report.stage1.steps > 0 {
        figures += &figure(&short(report.stage1.tokens_per_second), "tokens per second in stage 1");
    }
    figures += &figure(&short(model.parameters as f64), "parameters");
    figures += &figure(&scientific(report.flops.needed), "FLOPs needed by one repeat");
    let memory = report.memory.peak_rss_bytes.unwrap_or(report.memory.planned_bytes);
    let what = if report.memory.peak_rss_bytes.is_some() {
        "memory at the peak"
    } else {
        "memory planned"
    };
    figures += &figure(&bytes(memory), what);
    format!(
        "<header>\n<h1>{}</h1>\n<p class=\"sub\">{} layers of {}, {} heads, vocabulary {} · {} classes · {} test \
         texts · {}</p>\n</header>\n<div class=\"figures\">{figures}</div>\n",
        escape(&report.task),
        model.layers,
        model.hidden,
        model.heads,
        count(model.vocab_size as u64),
        report.labels.len(),
        count(report.test.examples),
        escape(&report.device)
    )
}

fn figure(value: &str, what: &str) -> String {
    format!(
        "<div class=\"card figure\"><b>{}</b><span>{what}</span></div>",
        escape(value)
    )
}

fn repeats(report: &Report) -> String {
    let shown = |score: Option<f64>| score.map_or_else(|| "–".to_owned(), percent);
    let step = |step: Option<u64>| step.map_or_else(|| "–".to_owned(), count);
    let loss = |loss: Option<f64>| loss.map_or_else(|| "–".to_owned(), |loss| format!("{loss:.3}"));
    let mut rows = String::new();
    for repeat in &report.repeats {
        let (one, two, test) = (&repeat.stage1, &repeat.stage2, &repeat.test);
        let scores = [test.accuracy, test.micro_f1, test.macro_f1];
        let [accuracy, micro_f1, macro_f1] = scores.map(|score| shown((test.examples > 0).then_some(score)));
        let cells = [
            accuracy,
            micro_f1,
            macro_f1,
            shown(two.best_dev.or(one.dev)),
            step(two.best_step),
            loss(one.mlm_loss_last),
            duration(one.seconds),
            duration(two.seconds),
        ];
        let _ = write!(rows, "<tr><td>{}</td>{}</tr>", repeat.seed, number_cells(&cells));
    }
    if report.repeats.len() > 1 && is_tested(report) {
        let over = |part: fn(&TestReport) -> f64| {
            let values: Vec<f64> = report.repeats.iter().map(|repeat| part(&repeat.test)).collect();
            mean_std(&MeanStd::of(&values))
        };
        let mut cells = vec![
            over(|test| test.accuracy),
            over(|test| test.micro_f1),
            over(|test| test.macro_f1),
        ];
        cells.push(mean_std(&report.over_seeds.dev));
        cells.resize(8, String::new());
        let _ = write!(
            rows,
            "<tr class=\"total\"><td>mean ± std</td>{}</tr>",
            number_cells(&cells)
        );
    }
    let heads = [
        "accuracy",
        "micro-F1",
        "macro-F1",
        "best dev",
        "at step",
        "last MLM loss",
        "stage 1",
        "stage 2",
    ];
    let heads: String = heads
        .iter()
        .map(|head| format!("<th class=\"n\">{head}</th>"))
        .collect();
    format!(
        "<h2>{}</h2>\n<div class=\"card scroll\"><table class=\"wide\"><tr><th>seed</th>{heads}</tr>{rows}\
         </table></div>\n",
        if is_tested(report) { "Test scores" } else { "Training" }
    )
}

fn number_cells(cells: &[String]) -> String {
    cells
        .iter()
        .map(|cell| format!("<td class=\"n\">{cell}</td>"))
        .collect()
}

fn confusion(report: &Report) -> String {
    let test = &report.test;
    if test.confusion.is_empty() {
        return String::new();
    }
    let label = |class: usize| {
        report
            .labels
            .get(class)
            .map_or_else(|| class.to_string(), |label| escape(label))
    };
    let mut rows = String::new();
    for (class, scores) in test.classes.iter().enumerate() {
        let cells = [
            percent(scores.precision),
            percent(scores.recall),
            percent(scores.f1),
            count(scores.support),
        ];
        let _ = write!(rows, "<tr><td>{}</td>{}</tr>", label(class), number_cells(&cells));
    }
    let classes = format!(
        "<div class=\"card\"><h3>Classes</h3><div class=\"scroll\"><table class=\"wide\"><tr><th>class</th>\
         <th class=\"n\">precision</th><th class=\"n\">recall</th><th class=\"n\">F1</th><th class=\"n\">texts</th>\
         </tr>{rows}</table></div></div>"
    );
    let seed = if report.repeats.len() > 1 {
        format!(" (seed {})", report.seed)
    } else {
        String::new()
    };
    let matrix = if test.confusion.len() <= MOST_CONFUSED {
        matrix(report, label)
    } else {
        String::new()
    };
    let layout = if test.confusion.len() > MOST_BESIDE {
        "grid one"
    } else {
        "grid"
    };
    format!("<h2>Right and wrong{seed}</h2>\n<div class=\"{layout}\">{matrix}{classes}</div>\n")
}

fn matrix(report: &Report, label: impl Fn(usize) -> String) -> String {
    let confusion = &report.test.confusion;
    let longest = report
        .labels
        .iter()
        .map(|label| label.chars().count())
        .max()
        .unwrap_or(0);
    let heads: String = (0..confusion.len())
        .map(|class| format!("<th class=\"column\" title=\"{0}\"><span>{0}</span></th>", label(class)))
        .collect();
    let mut rows = String::new();
    for (class, row) in confusion.iter().enumerate() {
        let total = row.iter().sum::<u64>().max(1);
        let _ = write!(rows, "<tr><th class=\"row\" title=\"{0}\">{0}</th>", label(class));
        for (predicted, &cell) in row.iter().enumerate() {
            let share = cell as f64 / total as f64;
            let kind = match cell {
                0 => "none",
                _ if share > 0.6 => "full",
                _ => "some",
            };
            let title = format!("{} predicted as {}: {cell}", label(class), label(predicted));
            let _ = write!(
                rows,
                "<td class=\"{kind}\" style=\"--p:{share:.3}\" title=\"{title}\">{cell}</td>"
            );
        }
        rows.push_str("</tr>");
    }
    let short = if longest <= 4 { " short" } else { "" };
    format!(
        "<div class=\"card\"><h3>Confusion matrix <span class=\"soft\">rows: truth, columns: prediction</span></h3>\
         <div class=\"scroll\"><table class=\"confusion{short}\"><tr><th></th>{heads}</tr>{rows}</table></div></div>"
    )
}

fn time(report: &Report) -> String {
    let total: f64 = report.stages.iter().map(|stage| stage.seconds).sum();
    if total <= 0.0 {
        return String::new();
    }
    let (mut bar, mut legend) = (String::new(), String::new());
    for (index, stage) in report.stages.iter().enumerate() {
        let (share, colour, name) = (100.0 * stage.seconds / total, index % 8, escape(&stage.name));
        let took = duration(stage.seconds);
        let _ = write!(
            bar,
            "<i class=\"b{colour}\" style=\"flex:{share:.3}\" title=\"{name}: {took}\"></i>"
        );
        let _ = write!(
            legend,
            "<span><i class=\"key b{colour}\"></i>{name} <b>{took}</b> ({share:.1} %)</span>"
        );
    }
    let flops = &report.flops;
    let rate = if report.stage1.seconds + report.stage2.seconds > 0.0 {
        let training = report.stage1.seconds + report.stage2.seconds;
        format!(", {} FLOP/s needed while training", short(flops.needed / training))
    } else {
        String::new()
    };
    format!(
        "<h2>Time and cost</h2>\n<div class=\"card\"><div class=\"stack\">{bar}</div><p class=\"legend\">{legend}</p>\
         </div>\n<div class=\"card\"><table><tr><td>FLOPs as the paper counts (6 × parameters × tokens of stage 1)</td>\
         <td class=\"n\">{}</td></tr><tr><td>FLOPs needed{rate}</td><td class=\"n\">{}</td></tr>\
         <tr><td>FLOPs executed by the kernels</td><td class=\"n\">{}</td></tr>\
         <tr><td>Memory planned on the device</td><td class=\"n\">{}</td></tr>\
         <tr><td>Largest resident size of the process</td><td class=\"n\">{}</td></tr></table></div>\n",
        scientific(flops.paper),
        scientific(flops.needed),
        scientific(flops.executed),
        bytes(report.memory.planned_bytes),
        report
            .memory
            .peak_rss_bytes
            .map_or_else(|| "not known".to_owned(), bytes)
    )
}

fn notes(report: &Report) -> String {
    if report.notes.is_empty() {
        return String::new();
    }
    let items: String = report
        .notes
        .iter()
        .map(|note| format!("<li>{}</li>", escape(note)))
        .collect();
    format!("<h2>Notes</h2>\n<div class=\"card\"><ul class=\"notes\">{items}</ul></div>\n")
}

fn configuration(report: &Report) -> String {
    if report.config.is_empty() {
        return String::new();
    }
    format!(
        "<h2>Configuration</h2>\n<div class=\"card\"><details><summary>config.toml</summary><pre>{}</pre>\
         </details></div>\n",
        escape(&report.config)
    )
}
