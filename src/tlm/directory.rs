//! The run directory: what lies where, and how a run finds its way back into it.
//!
//! ```text
//! config.toml                    the complete configuration
//! selected.jsonl                 the external data
//! checkpoints/select.json        the selection's report
//! checkpoints/tokenizer.json     the tokenizer
//! checkpoints/seed-42.safetensors    a repeat under way
//! checkpoints/seed-42.json           a finished repeat
//! model/                         the first repeat's best model
//! metrics.jsonl  report.json  report.html
//! ```
//!
//! Everything is written under a temporary name and renamed, so each file is either complete or absent, and a run that goes
//! on takes what is there.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::TlmError;
use super::config::Config;
use crate::atomic;

/// A run's directory.
#[derive(Clone, Debug)]
pub struct RunDirectory {
    root: PathBuf,
}

impl RunDirectory {
    /// Makes the directory for a new run, or opens it to go on with a run of the same configuration.
    ///
    /// # Errors
    /// [`TlmError::Refused`] for a directory that holds a run already (without `resume`) or a run of another
    /// configuration (with it).
    pub fn open(root: &Path, config: &Config, resume: bool) -> Result<RunDirectory, TlmError> {
        let directory = RunDirectory {
            root: root.to_path_buf(),
        };
        let saved = directory.file("config.toml");
        if saved.is_file() {
            if !resume {
                return Err(TlmError::Refused(format!(
                    "{} holds a run already; go on with it by --resume, or choose another directory with --out",
                    root.display()
                )));
            }
            let before = Config::load(&saved, &[])?;
            if let Some((key, now, then)) = config.differences(&before).into_iter().next() {
                return Err(TlmError::Refused(format!(
                    "{} was started with {key} = {then}, now it is {now}; a resumed run must have the same \
                     configuration (take --out for a new one)",
                    root.display()
                )));
            }
            return Ok(directory);
        }
        let make = |path: PathBuf| {
            let what = format!("cannot make the run directory {}", path.display());
            std::fs::create_dir_all(&path).map_err(TlmError::io(what))
        };
        make(directory.file("checkpoints"))?;
        atomic::write(&saved, config.to_toml().as_bytes())?;
        Ok(directory)
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
