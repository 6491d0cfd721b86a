//! A profile as text and as part of a page.

use std::fmt::Write;

use super::flame::flame;
use super::format::{count, duration, short};
use super::html::document;
use super::plot::escape;
use crate::cost::Ceilings;
use crate::cost::bench::rate as giga;
use crate::cost::profile::{Line, Profile};
use crate::tlm::run::ProfileReport;

/// The profile for a terminal.
pub fn profile_text(report: &ProfileReport) -> String {
    let mut out = text(&report.profile);
    let profile = &report.profile;
    let per_step = |seconds: f64| duration(seconds / profile.steps as f64);
    // Writing into a String cannot fail, here and below.
    let _ = writeln!(
        out,
        "\nthe same steps without profiling: {} a step, {}; profiling took {:+.1} % longer; losses, norms and weights {}",
        per_step(report.plain_wall),
        rate(profile.tokens as f64 / report.plain_wall, "tokens/s"),
        100.0 * (profile.wall / report.plain_wall - 1.0),
        if report.same_bits {
            "have the same bits"
        } else {
            "DIFFER"
        }
    );
    if let Some(why) = &report.no_ceilings {
        let _ = writeln!(out, "no ceilings: {why}");
    }
    out
}

fn text(profile: &Profile) -> String {
    let mut out = format!(
        "{}\n{} steps, {} tokens, {} launches a step\n\n",
        profile.device,
        profile.steps,
        profile.tokens,
        profile.launches / profile.steps.max(1)
    );
    for (what, lines) in [("kernel", &profile.kernels), ("layer", &profile.layers)] {
        let _ = writeln!(
            out,
            "{what:<34} {:>6} {:>10} {:>7} {:>9} {:>8} {:>9}",
            "calls", "ms a step", "share", "GFLOP/s", "GB/s", "ceiling"
        );
        for line in lines {
            let [calls, time, share, flops, bytes, ceiling] = cells(line, profile.steps);
            let name = &line.name;
            let _ = writeln!(
                out,
                "{name:<34} {calls:>6} {time:>10} {share:>7} {flops:>9} {bytes:>8} {ceiling:>9}"
            );
        }
        let _ = writeln!(out);
    }
    for (what, seconds) in parts(profile).into_iter().chain([("wall clock", profile.wall)]) {
        let share = 100.0 * seconds / profile.wall;
        let _ = writeln!(
            out,
            "{what:<34} {:>17.3} {share:>6.1}%",
            1e3 * seconds / profile.steps as f64
        );
    }
    let _ = writeln!(out);
    for (what, figure) in figures(profile) {
        let _ = writeln!(out, "{what:<34} {figure}");
    }
    out
}

/// Calls and time a step, share of the kernels, rates, share of the ceiling.
fn cells(line: &Line, steps: u64) -> [String; 6] {
    let bound = match line.arithmetic {
        Some(true) => " F",
        Some(false) => " B",
        None => "",
    };
    let ceiling = line
        .of_ceiling
        .map_or_else(|| "-".to_owned(), |share| format!("{:.0}%{bound}", 100.0 * share));
    let calls = line.calls as f64 / steps as f64;
    [
        if calls.fract() == 0.0 {
            format!("{calls}")
        } else {
            format!("{calls:.1}")
        },
        format!("{:.3}", 1e3 * line.seconds / steps as f64),
        format!("{:.1}%", 100.0 * line.share),
        giga(line.flops as f64 / line.seconds / 1e9),
        giga(line.bytes as f64 / line.seconds / 1e9),
        ceiling,
    ]
}

/// Where the wall clock went, seconds.
fn parts(profile: &Profile) -> [(&'static str, f64); 6] {
    let parts = &profile.parts;
    [
        ("kernels", parts.kernels),
        ("launching", parts.launching),
        ("waiting for a batch", parts.waiting),
        ("upload", parts.upload),
        ("readback", parts.readback),
        ("rest of the host", parts.rest),
    ]
}

fn figures(profile: &Profile) -> Vec<(&'static str, String)> {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let mut figures = vec![("speed", rate(profile.tokens as f64 / profile.wall, "tokens/s"))];
    if let (Some(light), Some(mfu), Some(ceilings)) = (profile.speed_of_light(), profile.mfu(), &profile.ceilings) {
        figures.push((
            "speed of light",
            format!("{} of the step is what no kernel can do without", percent(light)),
        ));
        figures.push(("MFU", format!("{} of the measured peak", percent(mfu))));
        figures.push(("measured ceilings", ceilings_text(ceilings)));
    }
    let flops = (
        profile.needed as f64 / profile.wall,
        profile.executed as f64 / profile.wall,
    );
    figures.push((
        "model FLOP/s",
        format!("{} needed, {} executed", short(flops.0), short(flops.1)),
    ));
    figures
}

/// Ceilings in a line.
pub fn ceilings_text(ceilings: &Ceilings) -> String {
    let giga = |rate: f64| giga(rate / 1e9);
    format!(
        "read {}, write {}, copy {} GB/s; multiply-add {}, product {} GFLOP/s; launch {:.2} µs",
        giga(ceilings.read),
        giga(ceilings.write),
        giga(ceilings.copy),
        giga(ceilings.fma),
        giga(ceilings.product),
        1e6 * ceilings.launch
    )
}

fn rate(per_second: f64, unit: &str) -> String {
    format!("{} {unit}", short(per_second))
}

/// A page of its own: the picture and both tables.
pub fn profile_page(task: &str, report: &ProfileReport) -> String {
    let profile = &report.profile;
    let head = format!(
        "<header>\n<h1>{}</h1>\n<p class=\"sub\">{} steps, {} tokens · {}</p>\n</header>\n",
        escape(task),
        profile.steps,
        count(profile.tokens),
        escape(&profile.device)
    );
    document(&format!("{task}: profile"), &(head + &section(profile, true)))
}

/// The part of a page; its tables open or folded.
pub(super) fn section(profile: &Profile, open: bool) -> String {
    if profile.steps == 0 {
        return String::new();
    }
    let opened = if open { " open" } else { "" };
    let table = |what: &str, lines: &[Line]| {
        let heads = ["calls", "ms a step", "share", "GFLOP/s", "GB/s", "of ceiling"];
        let heads: String = heads
            .iter()
            .map(|head| format!("<th class=\"n\">{head}</th>"))
            .collect();
        let row = |line: &Line| {
            let cells = cells(line, profile.steps);
            let cells: String = cells
                .iter()
                .map(|cell| format!("<td class=\"n\">{cell}</td>"))
                .collect();
            format!("<tr><td>{}</td>{cells}</tr>", escape(&line.name))
        };
        let rows: String = lines.iter().map(row).collect();
        format!(
            "<div class=\"card scroll\"><details{opened}><summary>By {what}</summary><table class=\"wide\"><tr><th>{what}</th>\
             {heads}</tr>{rows}</table></details></div>\n"
        )
    };
    let shares = parts(profile).map(|(what, seconds)| format!("{what} {:.1}\u{a0}%", 100.0 * seconds / profile.wall));
    let facts: String = [("wall clock", shares.join(", "))]
        .into_iter()
        .chain(figures(profile))
        .map(|(what, figure)| format!("<tr><td>{what}</td><td>{}</td></tr>", escape(&figure)))
        .collect();
    let kernels: f64 = profile.parts.kernels / profile.wall;
    format!(
        "<h2>A step, kernel by kernel</h2>\n<div class=\"card scroll\"><h3>{} a step, {:.1} % in kernels <span class=\"soft\">{} \
         steps</span></h3>{}</div>\n<div class=\"card scroll\"><table>{facts}</table><p class=\"soft\">Of ceiling: \
         the longer of FLOPs (F) at the measured peak and bytes (B) at the measured bandwidth, by the time taken. Caches can \
         be faster than memory: above 100 %.</p></div>\n{}{}",
        duration(profile.wall / profile.steps as f64),
        100.0 * kernels,
        profile.steps,
        flame(&profile.tree, profile.steps),
        table("kernel", &profile.kernels),
        table("layer", &profile.layers)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::profile::{Node, Parts};

    fn profile() -> Profile {
        Profile {
            device: "cpu".into(),
            steps: 2,
            tokens: 2000,
            needed: 4_000_000_000,
            executed: 5_000_000_000,
            launches: 6,
            wall: 0.5,
            parts: Parts {
                kernels: 0.4,
                launching: 0.01,
                waiting: 0.02,
                upload: 0.03,
                readback: 0.01,
                rest: 0.03,
            },
            floor: Some(0.2),
            ceilings: Some(Ceilings {
                read: 2e10,
                write: 1e10,
                copy: 1.5e10,
                fma: 1e11,
                product: 9e10,
                matrix_units: false,
                launch: 1e-6,
            }),
            kernels: vec![Line {
                name: "gemm.forward".into(),
                calls: 4,
                seconds: 0.25,
                share: 0.625,
                flops: 30_000_000_000,
                bytes: 1_000_000_000,
                of_ceiling: Some(1.2),
                arithmetic: Some(true),
            }],
            layers: Vec::new(),
            tree: Node {
                name: "steps".into(),
                seconds: 0.5,
                parts: Vec::new(),
            },
        }
    }

    // Two steps: 125 ms a step, 30 GFLOP in 0.25 s = 120 GFLOP/s, 4 GB/s. 4 GFLOP in 0.5 s at a peak of 100 GFLOP/s: 8 %.
    #[test]
    fn rates_and_shares_are_those_of_the_sums_and_nothing_is_cut() {
        let text = text(&profile());
        for figure in [
            "125.000",
            "62.5%",
            "120.0",
            "4.0",
            "120% F",
            "8.0 % of the measured peak",
            "40.0 % of the step",
        ] {
            assert!(text.contains(figure), "{figure}\n{text}");
        }
    }

    #[test]
    fn the_parts_of_the_wall_clock_add_up_in_the_text() {
        let profile = profile();
        let shown: f64 = parts(&profile).iter().map(|(_, seconds)| seconds).sum();
        assert!((shown / profile.wall - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_page_of_a_profile_needs_nothing_else() {
        let report = ProfileReport {
            profile: profile(),
            plain_wall: 0.49,
            same_bits: true,
            no_ceilings: None,
        };
        let page = profile_page("a <b>", &report);
        assert!(page.contains("a &lt;b&gt;") && page.contains("class=\"chart flame\""));
        assert!(!page.contains("http:") && !page.contains("<script"));
        assert!(profile_text(&report).contains("same bits"));
    }
}
