//! What the keys must be together: sizes that divide, lengths that fit, data that exists.

use std::path::Path;

use super::sections::SelectMethod;
use super::{Config, ConfigError};
use crate::tlm::objective::step_counts;

/// Head widths that every attention kernel has.
const HEAD_SIZES: [usize; 3] = [32, 64, 128];

/// Checks values against each other.
pub(super) fn check_values(config: &Config) -> Result<(), ConfigError> {
    required_data(config)?;
    model_sizes(config)?;
    stages(config)
}

fn required_data(config: &Config) -> Result<(), ConfigError> {
    let missing = |key: &str, advice: &str| ConfigError::Missing {
        file: config.origins.file(),
        key: key.to_owned(),
        advice: advice.to_owned(),
    };
    for (name, files) in [
        ("train", &config.task.train),
        ("dev", &config.task.dev),
        ("test", &config.task.test),
    ] {
        if files.is_empty() {
            let advice = format!("name the labelled texts in [task], for example {name} = \"{name}.jsonl\"");
            return Err(missing(&format!("task.{name}"), &advice));
        }
    }
    let needs_corpus = config.select.method != SelectMethod::None && config.select.file.is_none();
    if needs_corpus && config.corpus.inputs.is_empty() && config.corpus.index.is_none() {
        let advice = "name the general texts in [corpus], for example inputs = [\"corpus/*.jsonl.zst\"], or an index of \
                      them, or set select.method = \"none\" to train on the task's texts alone";
        return Err(missing("corpus.inputs", advice));
    }
    if config.corpus.index.is_some() && !config.corpus.inputs.is_empty() {
        let message = "corpus.index and corpus.inputs both name the general texts: leave one out";
        return conflict(config, "corpus.index", message);
    }
    if config.select.file.is_some() && config.select.method != SelectMethod::Bm25 && given(config, "select.method") {
        let message = "select.file is a finished selection and select.method makes one: leave one out";
        return conflict(config, "select.file", message);
    }
    if config.select.rank_cut.is_some_and(|cut| cut > config.select.top_k) && config.select.file.is_none() {
        let message = format!("select.rank_cut must be at most select.top_k = {}", config.select.top_k);
        return conflict(config, "select.rank_cut", &message);
    }
    if let Err(error) = config.select.bm25().validate() {
        return conflict(config, "select.k1", &error.to_string());
    }
    if config.tokenizer.file.is_some() && given(config, "tokenizer.vocab_size") {
        let message = "tokenizer.file brings its own vocabulary: leave tokenizer.vocab_size out";
        return conflict(config, "tokenizer.vocab_size", message);
    }
    Ok(())
}

fn model_sizes(config: &Config) -> Result<(), ConfigError> {
    let shape = config.shape();
    let head = shape.hidden / shape.heads;
    if !shape.hidden.is_multiple_of(shape.heads) || !HEAD_SIZES.contains(&head) {
        let fitting: Vec<String> = HEAD_SIZES
            .iter()
            .filter(|size| shape.hidden.is_multiple_of(**size))
            .map(|size| (shape.hidden / size).to_string())
            .collect();
        let remedy = if fitting.is_empty() {
            "choose model.hidden as a multiple of 64".to_owned()
        } else {
            format!("for this width choose model.heads = {}", fitting.join(" or "))
        };
        let message = format!(
            "model.hidden = {} over model.heads = {} must give heads of 32, 64 or 128: {remedy}",
            shape.hidden, shape.heads
        );
        let key = if given(config, "model.heads") {
            "model.heads"
        } else {
            "model.hidden"
        };
        return conflict(config, key, &message);
    }
    if !shape.hidden.is_multiple_of(crate::plan::ALIGN) {
        // Query, key and value are used as one matrix, and their biases as one vector, without gaps.
        let near = shape.hidden.next_multiple_of(crate::plan::ALIGN);
        let message = format!(
            "model.hidden = {} must be a multiple of 64, for example {near}",
            shape.hidden
        );
        return conflict(config, "model.hidden", &message);
    }
    if !shape.intermediate.is_multiple_of(4) {
        let message = format!("model.intermediate = {} must be a multiple of 4", shape.intermediate);
        return conflict(config, "model.intermediate", &message);
    }
    let lengths = [
        ("model.max_length", config.model.max_length),
        ("stage1.external_length", config.external_length()),
    ];
    for (key, length) in lengths {
        if !length.is_multiple_of(4) {
            let near = length.next_multiple_of(4);
            return conflict(
                config,
                key,
                &format!("{key} = {length} must be a multiple of 4, for example {near}"),
            );
        }
        if length > shape.max_positions {
            let positions = shape.max_positions;
            let message = format!("{key} = {length} is more than model.max_positions = {positions}: raise the latter");
            return conflict(config, key, &message);
        }
    }
    Ok(())
}

fn stages(config: &Config) -> Result<(), ConfigError> {
    let (stage1, stage2) = (&config.stage1, &config.stage2);
    let stages = [
        (
            "stage1",
            stage1.steps,
            stage1.batch,
            stage1.accumulate,
            &stage1.optimizer,
        ),
        (
            "stage2",
            stage2.steps,
            stage2.batch,
            stage2.accumulate,
            &stage2.optimizer,
        ),
    ];
    for (name, steps, batch, accumulate, optimizer) in stages {
        let warmup = optimizer.warmup(steps);
        if warmup > steps {
            let message = format!("{name}.warmup = {warmup} is more than {name}.steps = {steps}");
            return conflict(config, &format!("{name}.warmup"), &message);
        }
        if !batch.is_multiple_of(accumulate) {
            let message = format!("{name}.accumulate = {accumulate} must divide {name}.batch = {batch}");
            return conflict(config, &format!("{name}.accumulate"), &message);
        }
    }
    if stage2.steps == 0 && step_counts(stage1.steps, config.rho1()).1 == 0 {
        let message = format!(
            "with stage2.steps = 0 nothing trains the classifier: {} steps of stage 1 at rho1 = {} have no internal \
             batch; give stage 2 some steps",
            stage1.steps,
            config.rho1()
        );
        return conflict(config, "stage2.steps", &message);
    }
    Ok(())
}

/// Checks that every named file exists and every pattern finds one.
pub(super) fn check_files(config: &Config) -> Result<(), ConfigError> {
    let patterns = [
        ("task.train", &config.task.train),
        ("task.dev", &config.task.dev),
        ("task.test", &config.task.test),
        ("corpus.inputs", &config.corpus.inputs),
    ];
    for (key, patterns) in patterns {
        for pattern in patterns {
            pattern_finds_files(config, key, pattern)?;
        }
    }
    if let Some(index) = config.corpus.index.as_deref().filter(|index| !index.is_dir()) {
        let message = format!("there is no index {}; `tlm index build` makes one", index.display());
        return no_file(config, "corpus.index", &message);
    }
    for (key, file) in [
        ("select.file", &config.select.file),
        ("tokenizer.file", &config.tokenizer.file),
    ] {
        if let Some(file) = file.as_deref().filter(|file| !file.is_file()) {
            return no_file(config, key, &format!("there is no file {}", file.display()));
        }
    }
    Ok(())
}

fn pattern_finds_files(config: &Config, key: &str, pattern: &str) -> Result<(), ConfigError> {
    let path = Path::new(pattern);
    if path.is_dir() {
        let message = format!("{pattern} is a directory; name its files, for example {pattern}/*.jsonl");
        return no_file(config, key, &message);
    }
    if path.is_file() {
        return Ok(());
    }
    let missing = || format!("no file is found at {pattern} (paths are relative to the configuration file)");
    match glob::glob(pattern).map(|found| found.flatten().any(|path| path.is_file())) {
        Ok(true) => Ok(()),
        Ok(false) => no_file(config, key, &missing()),
        Err(error) => no_file(config, key, &format!("{pattern} is not a valid pattern: {}", error.msg)),
    }
}

fn given(config: &Config, key: &str) -> bool {
    config.origins.given(key)
}

fn conflict(config: &Config, key: &str, message: &str) -> Result<(), ConfigError> {
    Err(ConfigError::Conflict {
        origin: config.origins.of(key),
        message: message.to_owned(),
    })
}

fn no_file(config: &Config, key: &str, message: &str) -> Result<(), ConfigError> {
    let (origin, key) = (config.origins.of(key), key.to_owned());
    Err(ConfigError::NoFile {
        origin,
        key,
        message: message.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_looked_for_beside_the_configuration() {
        let directory = tempfile::Builder::new().prefix("run [x] ").tempdir().unwrap();
        let file = directory.path().join("run.toml");
        let text = "[task]\ntrain = \"train.jsonl\"\ndev = \"dev.jsonl\"\ntest = \"test.jsonl\"\n\
                    [corpus]\ninputs = \"corpus/*.jsonl.zst\"\n";
        std::fs::write(&file, text).unwrap();
        let config = Config::load(&file, &[]).unwrap();
        let error = config.check_files().unwrap_err().to_string();
        assert!(
            error.contains("run.toml:2: task.train: no file is found at") && error.contains("train.jsonl"),
            "{error}"
        );
        for name in ["train.jsonl", "dev.jsonl", "test.jsonl"] {
            std::fs::write(directory.path().join(name), "{}").unwrap();
        }
        let error = config.check_files().unwrap_err().to_string();
        assert!(
            error.contains("run.toml:6: corpus.inputs: no file is found at"),
            "{error}"
        );
        std::fs::create_dir(directory.path().join("corpus")).unwrap();
        std::fs::write(directory.path().join("corpus/a.jsonl.zst"), "").unwrap();
        config.check_files().unwrap();
    }
}
