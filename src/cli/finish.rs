//! The end of every command that owns a run directory: report written, summary printed.

use super::{CliError, GlobalArgs, output};
use crate::report::{self, METRICS_LOG, Report, metrics_log};
use crate::tlm::run::RunOptions;

/// Completes the report by the process' memory, writes it into the run directory, prints it.
pub(super) fn finish(mut report: Report, options: &RunOptions, global: &GlobalArgs) -> Result<(), CliError> {
    report.memory.peak_rss_bytes = report::peak_rss_bytes();
    let rows = metrics_log::read(&options.directory.join(METRICS_LOG))?;
    report::write(&options.directory, &report, &rows)?;
    let page = options.directory.join(report::REPORT_HTML);
    let text = format!("{}{}\n", report::summary(&report), page.display());
    output::result(global.json, &report, &text)
}
