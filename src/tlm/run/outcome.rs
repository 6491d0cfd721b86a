//! After the training: the run's report.

use super::Job;
use crate::cost::Encoder;
use crate::cost::table::by_convention;
use crate::hub::BertConfig;
use crate::tlm::flops::{paper_of_stage1, training};
use crate::tlm::outcome::{FlopsReport, MemoryReport, ModelReport, RepeatReport, Report, SelectReport, StageSeconds};
use crate::tlm::repeat::Finished;

/// What the report says beside the repeats.
pub(super) struct Sums<'a> {
    pub bert: &'a BertConfig,
    pub select: SelectReport,
    pub parameters: usize,
    pub device: String,
    pub planned_bytes: u64,
    /// Seconds of all tests.
    pub tested: f64,
}

impl Job<'_> {
    /// The report of finished repeats. The peak of the process' memory is the caller's to fill in.
    pub(super) fn report(mut self, finished: Vec<Finished>, sums: Sums) -> Report {
        let config = self.config;
        let total = |part: fn(&RepeatReport) -> f64| finished.iter().map(|done| part(&done.report)).sum();
        let parts: [(&str, f64); 3] = [
            ("stage 1", total(|repeat| repeat.stage1.seconds)),
            ("stage 2", total(|repeat| repeat.stage2.seconds)),
            ("test", sums.tested),
        ];
        self.seconds.extend(parts.map(|(name, seconds)| StageSeconds {
            name: name.to_string(),
            seconds,
        }));
        let first = finished.first().cloned().unwrap_or_default();
        let (encoder, classes) = (Encoder::of(sums.bert), sums.bert.labels.len() as u64);
        let mut parts = training(config, encoder, sums.parameters as u64, classes);
        parts.retain(|part| part.stage2 || self.model.is_none());
        let mut report = Report {
            task: config.task.name.clone(),
            device: sums.device,
            labels: sums.bert.labels.clone(),
            select: sums.select,
            flops: FlopsReport {
                paper: paper_of_stage1(&parts),
                needed: first.flops[0],
                executed: first.flops[1],
                conventions: by_convention(&[parts]),
            },
            profile: first.profile.clone(),
            memory: MemoryReport {
                planned_bytes: sums.planned_bytes,
                peak_rss_bytes: None,
            },
            seconds: self.begun.elapsed().as_secs_f64() + self.earlier,
            stages: self.seconds,
            model: ModelReport {
                layers: sums.bert.num_hidden_layers,
                hidden: sums.bert.hidden_size,
                heads: sums.bert.num_attention_heads,
                vocab_size: sums.bert.vocab_size,
                parameters: sums.parameters as u64,
            },
            notes: self.notes,
            config: config.to_toml(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            ..Report::default()
        };
        report.set_repeats(finished.into_iter().map(|done| done.report).collect());
        report
    }
}
