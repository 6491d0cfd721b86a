//! Before the training: external data, tokenizer, texts as tokens.
//!
//! A new run's directory is made when selection and tokenizer have succeeded; a run that goes on takes both from there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::Job;
use crate::data::{DataError, Example, LongTexts, Tokenizer, VocabularySettings, WordCounts};
use crate::hub::BertConfig;
use crate::tlm::TlmError;
use crate::tlm::directory::{SELECT_REPORT, SELECTED, TOKENIZER};
use crate::tlm::model::check_vocabulary;
use crate::tlm::objective::step_counts;
use crate::tlm::observer::Unit;
use crate::tlm::outcome::{SelectReport, StageSeconds};
use crate::tlm::repeat::Texts;
use crate::tlm::select::{External, read_selected, select_external, write_selected};
use crate::tlm::sizes;
use crate::tlm::watched::watched;

/// Texts whose words are counted at a time.
const COUNTED: usize = 1 << 13;

/// Texts in tokens, and what they were made with.
pub(super) struct Prepared {
    pub texts: Texts,
    pub tokenizer: Tokenizer,
    pub select: SelectReport,
    pub bert: BertConfig,
}

impl Job<'_> {
    /// Selection, tokenizer, run directory, encoding.
    pub(super) fn prepare(&mut self) -> Result<Prepared, TlmError> {
        let since = Instant::now();
        let kept = self.kept_selection()?;
        let external = match &kept {
            Some(external) => external.clone(),
            None => self.external()?,
        };
        match &kept {
            Some(kept) => {
                self.earlier += kept.report.seconds;
                self.seconds.push(StageSeconds {
                    name: "index and select".to_owned(),
                    seconds: kept.report.seconds,
                });
            }
            None => self.timed("index and select", since),
        }

        let since = Instant::now();
        let passages: Vec<&str> = external.passages.iter().map(|passage| passage.text.as_str()).collect();
        let tokenizer = self.tokenizer(&passages)?;
        let bert = self.bert(&tokenizer)?;
        self.timed("tokenizer", since);

        self.directory.make()?;
        if kept.is_none() {
            write_selected(&self.directory.file(SELECTED), &external.passages)?;
            self.directory.write_json(SELECT_REPORT, &external.report)?;
        }
        let file = self.directory.file(TOKENIZER);
        if self.directory.is_new() || !file.is_file() {
            tokenizer.save(&file)?;
        }
        if self.directory.is_new() {
            let model = self.model.as_ref().map(|(path, _)| *path);
            self.directory.begin(self.config, model)?;
        }

        let since = Instant::now();
        let texts = self.encode(&tokenizer, &passages)?;
        self.timed("tokenising", since);
        Ok(Prepared {
            texts,
            tokenizer,
            select: external.report,
            bert,
        })
    }

    /// The selection of an earlier process.
    fn kept_selection(&mut self) -> Result<Option<External>, TlmError> {
        let path = self.directory.file(SELECTED);
        if self.directory.is_new() || !path.is_file() {
            return Ok(None);
        }
        let Some(report) = self.directory.read_json::<SelectReport>(SELECT_REPORT)? else {
            return Ok(None);
        };
        let passages = read_selected(&path)?;
        self.note("the selection of the earlier process is used again".to_string());
        Ok(Some(External { passages, report }))
    }

    fn external(&mut self) -> Result<External, TlmError> {
        if self.model.is_some() || self.config.stage1.steps == 0 {
            let report = SelectReport {
                method: "none".into(),
                ..SelectReport::default()
            };
            return Ok(External {
                passages: Vec::new(),
                report,
            });
        }
        let texts: Vec<String> = self.task.train.iter().map(|example| example.text.clone()).collect();
        let external = select_external(self.config, &texts, self.config.run.seed, self.observer)?;
        let (external_steps, _) = step_counts(self.config.stage1.steps, self.config.rho1());
        if external.passages.is_empty() && external_steps > 0 {
            let message = "no passage was selected: the corpus and the training texts have no term in common; give \
                           another corpus, or set select.method = \"none\" to train on the task's texts alone";
            return Err(TlmError::Refused(message.to_owned()));
        }
        Ok(external)
    }

    fn tokenizer(&mut self, passages: &[&str]) -> Result<Tokenizer, TlmError> {
        let path = self.directory.file(TOKENIZER);
        if !self.directory.is_new() && path.is_file() {
            return Ok(Tokenizer::load(&path)?);
        }
        if let Some((_, model)) = &self.model {
            return Ok(Tokenizer::load(&model.tokenizer)?);
        }
        if let Some(file) = &self.config.tokenizer.file {
            return Ok(Tokenizer::load(file)?);
        }
        let task: Vec<&str> = self.task.train.iter().map(|example| example.text.as_str()).collect();
        let total = (task.len() + passages.len()) as u64;
        self.observer.begin("training the tokenizer", total, 0, Unit::Texts);
        let (mut words, mut done) = (WordCounts::default(), 0);
        for texts in task.chunks(COUNTED).chain(passages.chunks(COUNTED)) {
            words.add(texts);
            done += texts.len() as u64;
            self.observer.advance(done, "");
        }
        let settings = VocabularySettings {
            vocab_size: self.config.tokenizer.vocab_size,
            ..Default::default()
        };
        self.observer.advance(done, "merging word pieces");
        let tokenizer = Tokenizer::train(&words, &settings)?;
        self.observer
            .advance(done, &format!("{} word pieces", tokenizer.vocab_size()));
        self.observer.end();
        Ok(tokenizer)
    }

    /// The encoder: as configured, or that of the model.
    fn bert(&self, tokenizer: &Tokenizer) -> Result<BertConfig, TlmError> {
        let made = sizes::bert_config(self.config, tokenizer.vocab_size(), self.task.labels.clone());
        let Some((path, model)) = &self.model else {
            return Ok(made);
        };
        check_vocabulary(path, &model.config, tokenizer)?;
        Ok(BertConfig {
            labels: made.labels,
            max_length: made.max_length,
            hidden_dropout_prob: made.hidden_dropout_prob,
            attention_probs_dropout_prob: made.attention_probs_dropout_prob,
            ..model.config.clone()
        })
    }

    fn encode(&mut self, tokenizer: &Tokenizer, passages: &[&str]) -> Result<Texts, TlmError> {
        let (limit, external_limit) = (self.config.model.max_length, self.config.external_length());
        let task = &self.task;
        let total = passages.len() + task.train.len() + task.dev.len() + task.test.len();
        let position = AtomicU64::new(0);
        let (external, texts) = watched(
            "tokenising",
            total as u64,
            Unit::Texts,
            self.observer,
            &position,
            || {
                let progress = |texts: usize| {
                    position.fetch_add(texts as u64, Ordering::Relaxed);
                };
                let (external, _) = tokenizer.encode_watched(passages, external_limit, LongTexts::Cut, &progress)?;
                let examples = |examples: &[Example]| tokenizer.encode_examples(examples, limit, &progress);
                let texts = [examples(&task.train)?, examples(&task.dev)?, examples(&task.test)?];
                Ok::<_, DataError>((external, texts))
            },
        )?;
        if !passages.is_empty() {
            self.note(format!(
                "external data: {} passages, {} sequences of at most {external_limit} tokens, {} tokens",
                passages.len(),
                external.len(),
                external.tokens()
            ));
        }
        let truncated: usize = texts.iter().map(|(_, report)| report.truncated).sum();
        if truncated > 0 {
            self.note(format!(
                "{truncated} of {} task texts have more than model.max_length = {limit} tokens and lose their end",
                total - passages.len()
            ));
        }
        let [train, dev, test] = texts.map(|(sequences, _)| Arc::new(sequences));
        Ok(Texts {
            external: Arc::new(external),
            train,
            dev,
            test,
        })
    }
}
