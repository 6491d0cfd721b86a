//! What a run tells people and other programs: `report.json`, `report.html`, `metrics.jsonl`, event files
//! for TensorBoard, progress bars.
//!
//! The data itself ([`Report`], [`MetricsRow`]) comes from the runs; here it is only written, drawn and printed.

mod curves;
mod flame;
pub mod flops;
pub mod format;
pub mod html;
pub mod metrics_log;
pub mod plot;
mod profile;
pub mod progress;
mod selection;
pub mod tensorboard;
pub mod watch;

use std::path::Path;

use crate::atomic::{self, WriteError};
pub use crate::tlm::directory::METRICS_LOG;
pub use crate::tlm::outcome::{MetricsRow, Report};
pub use metrics_log::{MetricsLog, MetricsLogError};
pub use profile::{ceilings_text, profile_page, profile_text};
pub use progress::Progress;
pub use watch::Watch;

/// Name of the machine-readable report in a run directory.
pub const REPORT_JSON: &str = "report.json";
/// Name of the page in a run directory.
pub const REPORT_HTML: &str = "report.html";

/// Writes `report.json` and `report.html` into `directory`; `rows` are the lines of its `metrics.jsonl`.
///
/// # Errors
/// [`WriteError`]; each file is written whole or not at all.
pub fn write(directory: &Path, report: &Report, rows: &[MetricsRow]) -> Result<(), WriteError> {
    atomic::write_with(&directory.join(REPORT_JSON), |out| {
        serde_json::to_writer_pretty(&mut *out, report)?;
        out.write_all(b"\n")
    })?;
    atomic::write(&directory.join(REPORT_HTML), html::page(report, rows).as_bytes())
}

/// The run in a few lines for a terminal: score, repeats, time.
pub fn summary(report: &Report) -> String {
    let stages: Vec<String> = report
        .stages
        .iter()
        .map(|stage| format!("{} {}", stage.name, format::duration(stage.seconds)))
        .collect();
    let selected = if report.select.documents > 0 {
        let (selected, documents) = (report.select.selected, report.select.documents);
        format!(
            "{} passages selected of {}\n",
            format::count(selected),
            format::count(documents)
        )
    } else {
        String::new()
    };
    format!(
        "{}: {}\n{selected}{} in all: {}\n",
        report.task,
        score(report),
        format::duration(report.seconds),
        stages.join(", ")
    )
}

/// The test score in words; without a test, what stage 1 came to.
fn score(report: &Report) -> String {
    if report.test.examples == 0 {
        let loss = report.stage1.mlm_loss_last;
        let loss = loss.map_or_else(String::new, |loss| format!(", last MLM loss {loss:.3}"));
        return format!("{} steps of stage 1{loss}", format::count(report.stage1.steps));
    }
    let metric = format::metric_name(&report.test.metric);
    let over = report.over_seeds.test;
    let seeds = if over.count > 1 {
        format!(" over {} seeds", over.count)
    } else {
        String::new()
    };
    let dev = if report.over_seeds.dev.count > 0 {
        format!(" (best on dev {})", format::mean_std(&report.over_seeds.dev))
    } else {
        String::new()
    };
    format!(
        "{metric} {}{seeds}{dev} on {} test texts",
        format::mean_std(&over),
        format::count(report.test.examples)
    )
}

/// Largest resident size of this process so far in bytes, where the system tells (`VmHWM` of `/proc/self/status`).
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(1024 * kilobytes)
}

#[cfg(test)]
mod tests;
