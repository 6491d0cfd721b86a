//! Arguments of the commands that read a configuration and own a run directory.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{CliError, GlobalArgs, stop};
use crate::tlm::config::Config;
use crate::tlm::run::RunOptions;

/// A configuration file with overrides.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    /// The configuration; paths in it are relative to it.
    #[arg(value_name = "CONFIG.toml")]
    pub config: PathBuf,
    /// Override a value: --set stage1.rho1=19. Paths are relative to the configuration, as in it. Repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

/// A run directory.
#[derive(Debug, Args)]
pub(super) struct RunDirectoryArgs {
    /// The run directory; runs/NAME with the task's name by default.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on from the last checkpoint in the run directory.
    #[arg(long)]
    pub resume: bool,
}

impl ConfigArgs {
    /// The configuration, its values checked.
    pub(super) fn load(&self) -> Result<Config, CliError> {
        Ok(Config::load(&self.config, &self.overrides)?)
    }

    /// The configuration, its values checked and its files found.
    pub(super) fn load_with_files(&self) -> Result<Config, CliError> {
        let config = self.load()?;
        config.check_files()?;
        Ok(config)
    }
}

impl RunDirectoryArgs {
    /// Options of a run of `config`; from here on, signals mean "save and stop".
    pub(super) fn options(&self, config: &Config, global: &GlobalArgs) -> Result<RunOptions, CliError> {
        Ok(RunOptions {
            directory: self
                .out
                .clone()
                .unwrap_or_else(|| Path::new("runs").join(&config.task.name)),
            resume: self.resume,
            device: global.device(),
            stop: stop::flag()?,
        })
    }
}
