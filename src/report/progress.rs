//! Progress of long work on stderr: a bar with rate and remaining time on a terminal, a plain line now and then in a
//! log.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::format;
use crate::tlm::observer::Unit;

/// First plain line after so long; each further one after twice the time since the start, at most [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Progress of one piece of work. Dropping it removes the bar.
pub struct Progress {
    label: String,
    total: u64,
    unit: Unit,
    position: u64,
    message: String,
    show: Show,
}

enum Show {
    Bar(ProgressBar),
    Lines {
        out: Box<dyn Write + Send>,
        start: Instant,
        origin: u64,
        next: Duration,
    },
}

impl Progress {
    /// Begins `label` with `total` units to do (0: not known beforehand), on stderr.
    pub fn new(label: &str, total: u64, unit: Unit) -> Progress {
        if io::stderr().is_terminal() {
            let bar =
                ProgressBar::with_draw_target((total > 0).then_some(total), ProgressDrawTarget::stderr_with_hz(10));
            bar.set_style(style(total, unit));
            bar.set_prefix(label.to_owned());
            bar.enable_steady_tick(Duration::from_millis(500));
            Progress::with(label, total, unit, Show::Bar(bar))
        } else {
            Progress::lines(label, total, unit, Box::new(io::stderr()), Instant::now())
        }
    }

    fn lines(label: &str, total: u64, unit: Unit, out: Box<dyn Write + Send>, start: Instant) -> Progress {
        Progress::with(
            label,
            total,
            unit,
            Show::Lines {
                out,
                start,
                origin: 0,
                next: FIRST_PAUSE,
            },
        )
    }

    fn with(label: &str, total: u64, unit: Unit, show: Show) -> Progress {
        Progress {
            label: label.to_owned(),
            total,
            unit,
            position: 0,
            message: String::new(),
            show,
        }
    }

    /// Goes on from `position`, done by an earlier process: it does not count for the rate.
    pub fn start_at(&mut self, position: u64) {
        self.position = position;
        match &mut self.show {
            Show::Bar(bar) => {
                bar.set_position(position);
                bar.reset_eta();
            }
            Show::Lines { origin, .. } => *origin = position,
        }
    }

    /// Sets how much is done.
    pub fn set(&mut self, position: u64) {
        self.set_at(position, Instant::now());
    }

    /// Shows a short text beside the figures, such as the current loss.
    pub fn message(&mut self, message: &str) {
        message.clone_into(&mut self.message);
        if let Show::Bar(bar) = &self.show {
            bar.set_message(self.message.clone());
        }
    }

    /// Prints a line of its own above the bar.
    pub fn note(&mut self, line: &str) {
        match &mut self.show {
            Show::Bar(bar) => bar.suspend(|| eprintln!("{line}")),
            Show::Lines { out, .. } => print_line(out, line),
        }
    }

    /// Ends the work: the bar gives way to one line that says how long it took.
    pub fn finish(mut self) {
        let elapsed = match &self.show {
            Show::Bar(bar) => bar.elapsed(),
            Show::Lines { start, .. } => start.elapsed(),
        };
        let line = self.last_line(elapsed);
        match &mut self.show {
            Show::Bar(bar) => {
                bar.finish_and_clear();
                eprintln!("{line}");
            }
            Show::Lines { out, .. } => print_line(out, &line),
        }
    }

    fn set_at(&mut self, position: u64, now: Instant) {
        self.position = position;
        let (elapsed, done) = match &self.show {
            Show::Bar(bar) => {
                bar.set_position(position);
                return;
            }
            Show::Lines {
                start, origin, next, ..
            } => {
                let elapsed = now.duration_since(*start);
                if elapsed < *next {
                    return;
                }
                (elapsed, position.saturating_sub(*origin))
            }
        };
        let line = self.line(elapsed, done);
        if let Show::Lines { out, next, .. } = &mut self.show {
            print_line(out, &line);
            *next = elapsed + elapsed.min(LONGEST_PAUSE);
        }
    }

    fn line(&self, elapsed: Duration, done: u64) -> String {
        let rate = done as f64 / elapsed.as_secs_f64().max(1e-9);
        let mut line = format!("{}: {}", self.label, amount(self.position, self.unit));
        if self.total > 0 {
            let share = 100.0 * self.position as f64 / self.total as f64;
            line += &format!(" of {} ({share:.0} %)", amount(self.total, self.unit));
        }
        line += &format!(", {}", rate_text(rate, self.unit));
        if self.total > self.position && rate > 0.0 {
            let left = (self.total - self.position) as f64 / rate;
            line += &format!(", {} left", format::duration(left));
        }
        if self.message.is_empty() {
            line
        } else {
            format!("{line}, {}", self.message)
        }
    }

    fn last_line(&self, elapsed: Duration) -> String {
        let took = format::duration(elapsed.as_secs_f64());
        let line = format!("{}: {} in {took}", self.label, amount(self.position, self.unit));
        if self.message.is_empty() {
            line
        } else {
            format!("{line}, {}", self.message)
        }
    }
}

/// A log that cannot be written to must not end the work it tells of.
fn print_line(out: &mut Box<dyn Write + Send>, line: &str) {
    let _ = writeln!(out, "{line}");
}

fn amount(number: u64, unit: Unit) -> String {
    match unit {
        Unit::Steps => format!("{} steps", format::count(number)),
        Unit::Bytes => format::bytes(number),
        Unit::Texts => format!("{} texts", format::count(number)),
    }
}

fn rate_text(rate: f64, unit: Unit) -> String {
    match unit {
        Unit::Steps => format!("{} steps/s", format::short(rate)),
        Unit::Bytes => format!("{}/s", format::bytes(rate as u64)),
        Unit::Texts => format!("{} texts/s", format::short(rate)),
    }
}

/// `stage 1 ━━━╸──── 120/2,000 16.7 steps/s, 1 min 52 s left mlm 6.915`: what does not fit the terminal's width is cut at
/// the end.
fn style(total: u64, unit: Unit) -> ProgressStyle {
    let position = match (total, unit) {
        (0, Unit::Bytes) => "{bytes}",
        (0, _) => "{human_pos}",
        (_, Unit::Bytes) => "{bytes}/{total_bytes}",
        (_, Unit::Steps | Unit::Texts) => "{human_pos}/{human_len}",
    };
    let picture = if total > 0 { "{bar:24.cyan/dim}" } else { "{spinner}" };
    let rate = move |state: &ProgressState, out: &mut dyn fmt::Write| {
        // A figure that cannot be shown is left out, as everywhere in a bar.
        let _ = out.write_str(&rate_text(state.per_sec(), unit));
    };
    let left = move |state: &ProgressState, out: &mut dyn fmt::Write| {
        let seconds = state.eta().as_secs_f64();
        if total > 0 && state.pos() > 0 && seconds > 0.0 {
            let _ = write!(out, ", {} left", format::duration(seconds));
        }
    };
    ProgressStyle::with_template(&format!(
        "{{prefix}} {picture} {position} {{rate}}{{left}} {{wide_msg}}"
    ))
    .expect("the template above is valid")
    .progress_chars("━╸─")
    .with_key("rate", rate)
    .with_key("left", left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(shared: &Shared) -> Vec<String> {
        String::from_utf8(shared.0.lock().unwrap().clone())
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn a_log_gets_a_line_now_and_then_with_rate_and_remaining_time() {
        let (shared, start) = (Shared::default(), Instant::now());
        let mut progress = Progress::lines("stage 1", 2000, Unit::Steps, Box::new(shared.clone()), start);
        for second in 0..=1000 {
            progress.set_at(second * 2, start + Duration::from_secs(second));
        }
        let lines = lines(&shared);
        // At 10, 20, 40, 80, 160, 320, 620 and 920 seconds.
        assert_eq!(lines.len(), 8, "{lines:?}");
        assert_eq!(
            lines[0],
            "stage 1: 20 steps of 2,000 steps (1 %), 2 steps/s, 16 min 30 s left"
        );
    }

    #[test]
    fn a_resumed_work_does_not_count_the_earlier_part_into_its_rate() {
        let (shared, start) = (Shared::default(), Instant::now());
        let mut progress = Progress::lines("stage 1", 2000, Unit::Steps, Box::new(shared.clone()), start);
        progress.start_at(1000);
        progress.message("loss 3.2");
        progress.set_at(1050, start + Duration::from_secs(10));
        assert_eq!(
            lines(&shared),
            ["stage 1: 1,050 steps of 2,000 steps (52 %), 5 steps/s, 3 min 10 s left, loss 3.2"]
        );
    }

    #[test]
    fn short_work_prints_only_its_end() {
        let shared = Shared::default();
        let mut progress = Progress::lines("index", 0, Unit::Bytes, Box::new(shared.clone()), Instant::now());
        progress.set(1 << 20);
        progress.set(2 << 20);
        progress.finish();
        let lines = lines(&shared);
        assert!(
            lines.len() == 1 && lines[0].starts_with("index: 2.00 MiB in "),
            "{lines:?}"
        );
    }

    #[test]
    fn every_template_of_a_bar_is_valid() {
        for unit in [Unit::Steps, Unit::Bytes, Unit::Texts] {
            style(0, unit);
            style(10, unit);
        }
    }
}
