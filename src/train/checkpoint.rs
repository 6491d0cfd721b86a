//! Checkpoints: everything that a run needs to go on, in one file that is replaced atomically.
//!
//! ```text
//! params, moment1, moment2   [words]    the flat buffers as they lie on the device
//! best                       [words]    the parameters with the best development score so far, once there are any
//! notes                      progress   JSON of the caller: seed, stage, step, scores, seconds
//! ```
//!
//! Data order, masks and dropout are functions of (seed, step), so nothing else is needed for the same bits. A process that
//! is killed at any moment leaves the last complete file.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::TrainError;
use crate::hub::{HubError, Tensor, WeightsFile, weights};

const PROGRESS: &str = "progress";

/// The flat buffers of a run, each of the same length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Parameters.
    pub params: Vec<f32>,
    /// AdamW's two moments.
    pub moments: [Vec<f32>; 2],
    /// Parameters of the best development score.
    pub best: Option<Vec<f32>>,
}

/// Writes a checkpoint; `best` are the parameters of the best development score, once there is one.
///
/// # Errors
/// [`HubError::Write`] with path and remedy; an older checkpoint of that name then stays.
pub fn write(
    path: &Path,
    params: &[f32],
    moments: &[Vec<f32>; 2],
    best: Option<&[f32]>,
    progress: &impl Serialize,
) -> Result<(), HubError> {
    let shape = [params.len()];
    let tensor = |name, data| Tensor {
        name,
        shape: &shape,
        data,
    };
    let mut tensors = vec![
        tensor("params", params),
        tensor("moment1", &moments[0]),
        tensor("moment2", &moments[1]),
    ];
    tensors.extend(best.map(|best| tensor("best", best)));
    let progress = serde_json::to_string(progress).expect("progress is plain data");
    weights::write(path, &tensors, &[(PROGRESS, &progress)])
}

/// Reads a checkpoint of a model with `words` words of parameters.
///
/// # Errors
/// [`TrainError::Checkpoint`] for a file that is damaged, of another model, or of another version.
pub fn read<P: DeserializeOwned>(path: &Path, words: usize) -> Result<(State, P), TrainError> {
    let file = WeightsFile::open(path).map_err(|error| refused(path, error))?;
    let tensor = |name: &str| file.read(name, &[words]).map_err(|error| refused(path, error));
    let state = State {
        params: tensor("params")?,
        moments: [tensor("moment1")?, tensor("moment2")?],
        best: file.contains("best").then(|| tensor("best")).transpose()?,
    };
    Ok((state, progress(&file, path)?))
}

/// Reads what a checkpoint knows beside the weights.
///
/// # Errors
/// As [`read`].
pub fn read_progress<P: DeserializeOwned>(path: &Path) -> Result<P, TrainError> {
    progress(&WeightsFile::open(path).map_err(|error| refused(path, error))?, path)
}

fn progress<P: DeserializeOwned>(file: &WeightsFile, path: &Path) -> Result<P, TrainError> {
    let note = file
        .note(PROGRESS)
        .ok_or_else(|| refused(path, "it is not a checkpoint of a run"))?;
    serde_json::from_str(note).map_err(|error| refused(path, format!("it was written by another version: {error}")))
}

fn refused(path: &Path, why: impl std::fmt::Display) -> TrainError {
    let message = format!("{why}; restore it, or delete it: its repeat then begins anew");
    TrainError::Checkpoint {
        path: path.to_path_buf(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let numbers = |salt: f32| (0..100).map(|index| (index as f32 * salt).sin()).collect::<Vec<f32>>();
        State {
            params: numbers(0.1),
            moments: [numbers(0.2), numbers(0.3)],
            best: Some(numbers(0.4)),
        }
    }

    #[test]
    fn a_checkpoint_comes_back_bit_for_bit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.safetensors");
        for state in [state(), State { best: None, ..state() }] {
            let best = state.best.as_deref();
            write(&path, &state.params, &state.moments, best, &(7u64, "stage")).unwrap();
            let (read, progress): (State, (u64, String)) = read(&path, 100).unwrap();
            assert_eq!((read, progress), (state, (7, "stage".to_string())));
        }
    }

    #[test]
    fn a_truncated_or_foreign_checkpoint_is_refused_with_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.safetensors");
        let state = state();
        write(&path, &state.params, &state.moments, None, &1u64).unwrap();
        let message = |words| read::<u64>(&path, words).unwrap_err().to_string();
        assert!(message(99).contains("state.safetensors"), "another model's size");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(message(100).contains("damaged") && message(100).contains("delete it"));
    }
}
