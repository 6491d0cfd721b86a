use super::*;
use crate::tlm::objective::{StepKind, step_kind};
use crate::tlm::outcome::*;
use crate::train::metrics::{Confusion, Metric};

fn repeat(seed: u64, right: u64) -> RepeatReport {
    let confusion = Confusion {
        rows: vec![vec![right, 10], vec![5, 20]],
    };
    RepeatReport {
        seed,
        stage1: Stage1Report {
            steps: 100,
            tokens: 8000,
            seconds: 2.0,
            tokens_per_second: 4000.0,
            ..Stage1Report::default()
        },
        stage2: Stage2Report {
            steps: 50,
            best_dev: Some(0.75),
            best_step: Some(20),
            seconds: 1.0,
        },
        test: TestReport::of(&confusion, Metric::MacroF1),
    }
}

fn report(repeats: Vec<RepeatReport>) -> Report {
    let mut report = Report {
        task: "a <b> & \"c\"".into(),
        device: "cpu".into(),
        labels: vec!["<yes>".into(), "no".into()],
        seconds: 4.0,
        config: "[task]\nname = \"<x>\"\n".into(),
        notes: vec!["3 empty texts".into()],
        ..Report::default()
    };
    report.select = SelectReport {
        method: "bm25".into(),
        documents: 1000,
        queries: 10,
        selected: 200,
        by_source: (0..20)
            .map(|i| SourceCount {
                source: format!("source {i}"),
                count: 20 - i,
            })
            .collect(),
        examples: vec![SelectedPassage {
            text: "ü".repeat(1000),
            id: "s/d#1".into(),
            ..SelectedPassage::default()
        }],
        ..SelectReport::default()
    };
    report.stages = vec![
        StageSeconds {
            name: "stage 1".into(),
            seconds: 3.0,
        },
        StageSeconds {
            name: "stage 2".into(),
            seconds: 1.0,
        },
    ];
    report.set_repeats(repeats);
    report
}

fn rows() -> Vec<MetricsRow> {
    let training = (1..=100).map(|step| MetricsRow {
        seed: 1,
        stage: 1,
        step,
        kind: Some(step_kind(step - 1, 3)),
        mlm_loss: Some(9.0 - step as f64 / 50.0),
        task_loss: (step_kind(step - 1, 3) == StepKind::Internal).then_some(1.0),
        learning_rate: Some(1e-3),
        ..MetricsRow::default()
    });
    let evaluations = [(10, 0.5), (20, 0.75)].map(|(step, score)| MetricsRow {
        seed: 1,
        stage: 2,
        step,
        dev_score: Some(score),
        ..MetricsRow::default()
    });
    training.chain(evaluations).collect()
}

#[test]
fn the_page_needs_nothing_but_itself() {
    let page = html::page(&report(vec![repeat(1, 30)]), &rows());
    for outside in ["http:", "https:", "<script", "<link", "<img", "@import", "url("] {
        assert!(!page.contains(outside), "the page contains {outside}");
    }
    assert_eq!(page.matches("<html").count(), 1);
    assert_eq!(page.matches("<div").count(), page.matches("</div>").count());
}

#[test]
fn names_from_data_cannot_become_markup() {
    let page = html::page(&report(vec![repeat(1, 30)]), &rows());
    assert!(
        page.contains("a &lt;b&gt; &amp; &quot;c&quot;") && page.contains("&lt;yes&gt;") && page.contains("&lt;x&gt;")
    );
    assert!(!page.contains("<b> &") && !page.contains("<yes>") && !page.contains("<x>"));
}

#[test]
fn every_part_with_data_is_shown_and_no_other() {
    let titles = [
        "Test scores",
        "Curves",
        "Right and wrong",
        "Selected data",
        "Time and cost",
        "Notes",
        "Configuration",
    ];
    let page = html::page(&report(vec![repeat(1, 30)]), &rows());
    for title in titles {
        assert!(page.contains(&format!("<h2>{title}")), "{title} is missing");
    }
    assert!(
        page.contains("8 others"),
        "sources beyond the first twelve are summed up"
    );
    assert!(
        page.contains(&format!("{}…", "ü".repeat(320))),
        "a long passage is cut between letters"
    );
    let bare = html::page(&Report::default(), &[]);
    assert!(
        bare.contains("<title>: stage 1</title>"),
        "without a test there is no score"
    );
    assert!(!bare.contains("NaN") && !bare.contains("inf"), "{bare}");
    for title in &titles[..4] {
        assert!(!bare.contains(&format!("<h2>{title}")), "{title} has no data");
    }
}

#[test]
fn several_seeds_are_shown_as_mean_and_deviation() {
    let one = html::page(&report(vec![repeat(1, 30)]), &[]);
    assert!(!one.contains('±'));
    // Macro-F1 by hand: right 30: (60/75 + 40/55) / 2 = 0.763636; right 50: (100/115 + 40/55) / 2 = 0.798419.
    // Mean 78.10, sample deviation 0.034783 / sqrt(2) = 2.46.
    let two = report(vec![repeat(1, 30), repeat(2, 50)]);
    assert!(html::page(&two, &[]).contains("78.10 <small>± 2.46</small>"));
    assert!(
        summary(&two).contains("macro-F1 78.10 ± 2.46 over 2 seeds"),
        "{}",
        summary(&two)
    );
}

#[test]
fn the_written_json_is_the_report_and_a_second_write_replaces_it() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &report(vec![]), &[]).unwrap();
    let report = report(vec![repeat(1, 30), repeat(2, 31)]);
    write(directory.path(), &report, &rows()).unwrap();
    let text = std::fs::read_to_string(directory.path().join(REPORT_JSON)).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    assert!(directory.path().join(REPORT_HTML).is_file());
}

#[cfg(target_os = "linux")]
#[test]
fn the_peak_of_the_resident_memory_grows_with_use() {
    let before = peak_rss_bytes().unwrap();
    let block = vec![1u8; 64 << 20];
    assert!(block.iter().map(|&x| u64::from(x)).sum::<u64>() == 64 << 20);
    let after = peak_rss_bytes().unwrap();
    assert!(after >= before && after >= 64 << 20, "{before} {after}");
}
