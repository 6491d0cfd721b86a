//! The run directory: what lies where, and how a run finds its way back into it.
//!
//! ```text
//! config.toml                    the complete configuration
//! selected.jsonl                 the external data
//! checkpoints/select.json        the selection's report
//! checkpoints/tokenizer.json     the tokenizer
//! checkpoints/encoder.json       the model directory that stage 2 starts from, or null
//! checkpoints/seed-42.safetensors    a repeat under way
//! checkpoints/seed-42.json           a finished repeat
//! model/                         the first repeat's best model
//! metrics.jsonl  tensorboard/    every logged step
//! report.json  report.html
//! ```
//!
//! Files are written under a temporary name and renamed, so each is either complete or absent, and a run that goes on takes
//! what is there. (The logs grow line by line; a line torn by a crash is dropped.)
//!
//! Nothing is written before the input has been read and found good. `config.toml` comes after what the run starts
//! from, so a directory that has it can be gone on with.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::TlmError;
use super::config::Config;
use crate::atomic;

/// Name of the log in a run directory.
pub const METRICS_LOG: &str = "metrics.jsonl";
/// Name of the external data.
pub const SELECTED: &str = "selected.jsonl";
/// Name of the model directory.
pub const MODEL: &str = "model";
/// Name of the selection's report.
pub const SELECT_REPORT: &str = "checkpoints/select.json";
/// Name of the tokenizer.
pub const TOKENIZER: &str = "checkpoints/tokenizer.json";

const CONFIG: &str = "config.toml";
const CHECKPOINTS: &str = "checkpoints";
const ENCODER: &str = "checkpoints/encoder.json";

/// A run's directory.
#[derive(Clone, Debug)]
pub struct RunDirectory {
    root: PathBuf,
    is_new: bool,
}

impl RunDirectory {
    /// Claims the directory for a new run, which is not made yet, or opens it to go on with (`resume`) a run of the same
    /// configuration. `model` is what stage 2 alone starts from.
    ///
    /// # Errors
    /// [`TlmError::Refused`] for a directory that holds a run already (without `resume`), no run, or another one (with
    /// it); [`TlmError::Write`] for a place that cannot be written to.
    pub fn claim(root: &Path, config: &Config, model: Option<&Path>, resume: bool) -> Result<RunDirectory, TlmError> {
        let at = root.display();
        let refused = |message: String| Err(TlmError::Refused(message));
        let directory = RunDirectory {
            root: root.to_path_buf(),
            is_new: !resume,
        };
        let saved = directory.file(CONFIG);
        if !resume {
            if saved.is_file() {
                return refused(format!(
                    "{at} holds a run already; go on with it by --resume, or choose another directory with --out"
                ));
            }
            if directory.has_checkpoints()? {
                return refused(format!(
                    "{at} holds checkpoints of a run but no {CONFIG}; choose another directory with --out"
                ));
            }
            atomic::check_writable(root)?;
            return Ok(directory);
        }
        if !saved.is_file() {
            return refused(format!(
                "there is no run in {at} to go on with: leave --resume out, or name the run's directory with --out"
            ));
        }
        let before = Config::load(&saved, &[])?;
        if let Some((key, now, then)) = config.differences(&before).into_iter().next() {
            return refused(format!(
                "{at} was started with {key} = {then}, now it is {now}; a resumed run must have the same \
                 configuration (take --out for a new one)"
            ));
        }
        let then: Option<PathBuf> = directory.read_json(ENCODER)?.flatten();
        let now = model.map(absolute).transpose()?;
        if then != now {
            let named = |model: Option<&PathBuf>| match model {
                Some(model) => format!("from the model {}", model.display()),
                None => "from random weights".to_owned(),
            };
            return refused(format!(
                "the run in {at} was started {}, this one {}: choose another directory with --out",
                named(then.as_ref()),
                named(now.as_ref())
            ));
        }
        Ok(directory)
    }

    /// Whether nothing has been written yet.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Makes the directory.
    ///
    /// # Errors
    /// [`TlmError::Write`].
    pub fn make(&self) -> Result<(), TlmError> {
        Ok(atomic::make_directory(&self.file(CHECKPOINTS))?)
    }

    /// Makes the directory that of a run: what it needs to start is there.
    ///
    /// # Errors
    /// [`TlmError::Write`].
    pub fn begin(&mut self, config: &Config, model: Option<&Path>) -> Result<(), TlmError> {
        self.write_json(ENCODER, &model.map(absolute).transpose()?)?;
        atomic::write(&self.file(CONFIG), config.to_toml().as_bytes())?;
        self.is_new = false;
        Ok(())
    }

    fn has_checkpoints(&self) -> Result<bool, TlmError> {
        let path = self.file(CHECKPOINTS);
        if !path.is_dir() {
            return Ok(false);
        }
        let names = std::fs::read_dir(&path).map_err(TlmError::io(format!("cannot read {}", path.display())))?;
        Ok(names
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("seed-")))
    }

    /// A file of the directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A JSON document, if it is there.
    ///
    /// # Errors
    /// [`TlmError::Io`], [`TlmError::Refused`] for a document of another version.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, TlmError> {
        let path = self.file(name);
        if !path.is_file() {
            return Ok(None);
        }
        let bytes = std::fs::read(&path).map_err(TlmError::io(format!("cannot read {}", path.display())))?;
        let advice = "it was written by another version; delete it and the run goes on from before it";
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| TlmError::Refused(format!("{}: {error}; {advice}", path.display())))
    }

    /// Writes a JSON document.
    ///
    /// # Errors
    /// [`TlmError::Write`].
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), TlmError> {
        let text = serde_json::to_string_pretty(value).expect("reports are plain data");
        Ok(atomic::write(&self.file(name), format!("{text}\n").as_bytes())?)
    }
}

fn absolute(path: &Path) -> Result<PathBuf, TlmError> {
    std::path::absolute(path).map_err(TlmError::io(format!("cannot resolve {}", path.display())))
}
