//! Signals that ask a run to save and stop: SIGINT (Ctrl-C), SIGTERM (a cluster takes the machine), SIGUSR1 (Slurm
//! warns before the time limit). A second Ctrl-C ends the process at once.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::signal::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::CliError;

/// The exit code of a process that did not wait for its checkpoint: a failure, not "saved".
const NOT_SAVED: i32 = 1;

/// A flag that becomes true when the run shall save and stop.
pub(super) fn flag() -> Result<Arc<AtomicBool>, CliError> {
    let stop = Arc::new(AtomicBool::new(false));
    let register = || {
        // The order matters: the second SIGINT finds the flag set by the first.
        flag::register_conditional_shutdown(SIGINT, NOT_SAVED, Arc::clone(&stop))?;
        flag::register(SIGINT, Arc::clone(&stop))?;
        flag::register(SIGTERM, Arc::clone(&stop))?;
        #[cfg(unix)]
        flag::register(signal_hook::consts::signal::SIGUSR1, Arc::clone(&stop))?;
        Ok(())
    };
    register()
        .map_err(|error: std::io::Error| CliError::Failed(format!("cannot listen to signals: {error}")))
        .map(|()| stop)
}
