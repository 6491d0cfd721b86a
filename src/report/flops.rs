//! Score against training FLOPs: the published models, and where a run stands among them.

use super::format::{scientific, short};
use super::plot::escape;
use super::plot::scatter::{LogScatter, Point};
use crate::cost::convention::CONVENTIONS;
use crate::cost::published::{Group, published};
use crate::cost::table::{Table, table};
use crate::cost::{Convention, TASKS};
use crate::tlm::outcome::Report;

/// The published models by their mean score, as an SVG document.
pub fn published_svg(table: &Table, convention: Convention) -> String {
    chart(convention, mean_scores(table, convention)).to_svg()
}

/// The section of a report: the picture under the paper's convention, all conventions as a table.
pub(super) fn section(report: &Report) -> String {
    let Some(&own) = report
        .flops
        .conventions
        .get(&Convention::Paper)
        .filter(|flops| **flops > 0.0)
    else {
        return String::new();
    };
    let table = table();
    let name = |text: &str| text.to_lowercase().replace(['-', '_', ' '], "");
    let task = TASKS.iter().position(|task| name(task.name) == name(&report.task));
    let mut chart = match task {
        Some(task) => chart(Convention::Paper, task_scores(&table, task)),
        None => chart(Convention::Paper, mean_scores(&table, Convention::Paper)),
    };
    if task.is_some() && report.test.examples > 0 {
        chart.points.push(Point {
            x: own,
            y: 100.0 * report.over_seeds.test.mean,
            name: "this run".to_owned(),
            colour: 2,
        });
    } else {
        chart.mark = Some((own, "this run".to_owned()));
    }
    let what = match task {
        Some(task) => format!("{}: test score", TASKS[task].name),
        None => "Mean test score over eight tasks".to_owned(),
    };
    let heads: String = table
        .rows
        .iter()
        .filter(|row| row.group != Group::Other)
        .map(|row| format!("<th class=\"n\">{}</th>", row.name))
        .collect();
    let row = |convention: Convention| {
        let own = report.flops.conventions.get(&convention).copied().unwrap_or(f64::NAN);
        let published = table.rows.iter().filter(|row| row.group != Group::Other);
        let cells: String = published
            .map(|row| format!("<td class=\"n\">{}</td>", times(row.flops[&convention] / own)))
            .collect();
        format!(
            "<tr><td title=\"{}\">{}</td><td class=\"n\">{}</td>{cells}</tr>",
            escape(convention.meaning()),
            convention.name(),
            scientific(own)
        )
    };
    let rows: String = CONVENTIONS.into_iter().map(row).collect();
    format!(
        "<h2>FLOPs against published models</h2>\n<div class=\"card scroll\"><h3>{what} <span class=\"soft\">Yao et al. 2022, \
         table 2</span></h3>{}</div>\n<div class=\"card scroll\"><table class=\"wide\"><tr><th>counted as</th><th \
         class=\"n\">this run</th>{heads}</tr>{rows}</table><p class=\"soft\">Times as many FLOPs as this run, counted the \
         same way, texts at their greatest length.</p></div>\n",
        chart.to_html()
    )
}

fn chart(convention: Convention, points: Vec<Point>) -> LogScatter {
    LogScatter {
        title: "Score against training FLOPs".to_owned(),
        x: format!("training FLOPs, counted as {convention}"),
        points,
        mark: None,
    }
}

fn mean_scores(table: &Table, convention: Convention) -> Vec<Point> {
    let points = table.rows.iter().filter_map(|row| {
        Some(Point {
            x: *row.flops.get(&convention)?,
            y: row.score?,
            name: row.name.to_owned(),
            colour: usize::from(row.group == Group::Tlm),
        })
    });
    points.collect()
}

/// One task's published scores at the cost of its own training.
fn task_scores(table: &Table, task: usize) -> Vec<Point> {
    let published = published();
    let points = table.rows.iter().zip(&published).filter_map(|(row, published)| {
        let single = table
            .tasks
            .iter()
            .find(|single| single.scale == row.name && single.task == TASKS[task].name);
        let flops = single.map_or(&row.flops, |single| &single.flops);
        Some(Point {
            y: published.scores?[task],
            x: flops[&Convention::Paper],
            name: row.name.to_owned(),
            colour: usize::from(row.group == Group::Tlm),
        })
    });
    points.collect()
}

fn times(ratio: f64) -> String {
    format!("{} ×", short(ratio))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tlm::outcome::FlopsReport;

    fn report(task: &str) -> Report {
        Report {
            task: task.to_owned(),
            flops: FlopsReport {
                conventions: CONVENTIONS.map(|convention| (convention, 1e15)).into(),
                ..FlopsReport::default()
            },
            ..Report::default()
        }
    }

    #[test]
    fn the_published_models_stand_at_their_cost_and_the_run_among_them() {
        let html = section(&report("mine"));
        for name in [
            "BERT-Base",
            "BERT-Large",
            "TLM small",
            "RoBERTa-Base",
            "TLM medium",
            "RoBERTa-Large",
            "TLM large",
        ] {
            assert!(html.contains(&format!("<title>{name}: ")), "{name}");
        }
        assert!(html.contains("<title>TLM small: 83.78 at 2.739e18</title>"), "{html}");
        assert!(html.contains("this run") && html.contains("Mean test score"), "{html}");
        // 1.536e21 by 1e15: 1.54M times.
        assert!(html.contains("1.54M ×"), "{html}");
    }

    #[test]
    fn a_task_of_the_paper_is_held_against_its_own_scores() {
        let html = section(&report("acl_arc"));
        // TLM small on ACL-ARC: 69.84 at 150,000 x 256 x 128 tokens.
        assert!(html.contains("<title>TLM small: 69.84 at 3.215e18</title>"), "{html}");
    }

    #[test]
    fn a_report_of_an_earlier_version_has_no_such_section() {
        assert_eq!(section(&Report::default()), "");
    }
}
