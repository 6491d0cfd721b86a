//! NVIDIA's libraries, found and loaded at run time.
//!
//! Looked for in this order; the first that loads is used:
//!
//! 1. the file that the library's environment variable names, and then nowhere else
//! 2. the loader's own path
//! 3. Python packages of a virtual environment: `$VIRTUAL_ENV`, `.venv`
//! 4. CUDA toolkits in `/usr/local`
//!
//! Their functions are looked up here instead of through cudarc: that one searches by name alone, so that it cannot be told
//! which file to use, and panics where it finds none.

use std::path::{Path, PathBuf};

use super::BACKEND;
use crate::device::DeviceError;

/// A library and how to find it.
pub(super) struct Wanted {
    /// What people call it.
    pub name: &'static str,
    /// Environment variable that names its file.
    pub variable: &'static str,
    /// Names that a loader knows it by, newest first.
    pub names: &'static [&'static str],
    /// Its files in the directory of a package or a toolkit.
    pub files: &'static str,
    /// How to get it.
    pub remedy: &'static str,
}

#[cfg(windows)]
const IN_PACKAGES: &str = "Lib/site-packages/nvidia/*/bin";
#[cfg(not(windows))]
const IN_PACKAGES: &str = "lib/python*/site-packages/nvidia/*/lib";

const IN_TOOLKITS: &str = "/usr/local/cuda*/lib64";

impl Wanted {
    /// The first file that `load` takes.
    ///
    /// # Errors
    /// [`DeviceError::Library`] with all places that were tried.
    pub fn find<T>(&self, load: impl Fn(String) -> Result<T, libloading::Error>) -> Result<T, DeviceError> {
        self.first(self.candidates(), load)
    }

    /// What `load` makes of a file.
    ///
    /// # Errors
    /// [`DeviceError::Library`].
    pub fn load<T>(
        &self,
        file: &Path,
        load: impl Fn(String) -> Result<T, libloading::Error>,
    ) -> Result<T, DeviceError> {
        self.first(vec![file.to_owned()], load)
    }

    fn first<T>(
        &self,
        paths: Vec<PathBuf>,
        load: impl Fn(String) -> Result<T, libloading::Error>,
    ) -> Result<T, DeviceError> {
        let mut tried = String::new();
        for path in paths {
            match load(path.to_string_lossy().into_owned()) {
                Ok(library) => return Ok(library),
                Err(error) => {
                    let cause = std::error::Error::source(&error);
                    let cause = cause.map_or_else(|| error.to_string(), ToString::to_string);
                    tried += &format!("\n  {}: {cause}", path.display());
                }
            }
        }
        Err(DeviceError::Library {
            backend: BACKEND,
            library: self.name,
            tried,
            remedy: self.remedy,
        })
    }

    fn candidates(&self) -> Vec<PathBuf> {
        if let Some(path) = std::env::var_os(self.variable) {
            return vec![path.into()];
        }
        let mut paths: Vec<PathBuf> = self.names.iter().map(PathBuf::from).collect();
        let environments = std::env::var("VIRTUAL_ENV").into_iter().chain([".venv".to_string()]);
        let directories = environments.map(|environment| format!("{environment}/{IN_PACKAGES}"));
        for directory in directories.chain([IN_TOOLKITS.to_string()]) {
            let found = glob::glob(&format!("{directory}/{}", self.files));
            let mut found: Vec<PathBuf> = found.into_iter().flatten().flatten().collect();
            found.sort();
            paths.extend(found.into_iter().rev()); // newest first
        }
        paths
    }
}
