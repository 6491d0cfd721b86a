//! Control from outside of the driver's interface: exported functions and environment variables. [`crate::control`] is
//! the side that calls them.

use std::ffi::{CString, c_char, c_int};

use super::error::{INVALID_VALUE, SUCCESS};
use super::{Called, Driver, Error, Generation, call, code, driver, read_text};

/// Names of the settings; a variable of the environment is `CUDA_EMULATOR_` and the name in capitals.
pub const SETTINGS: [&str; 7] = [
    "seed",
    "checked",
    "lazy",
    "counters",
    "threads",
    "step_limit",
    "capability",
];

impl Driver {
    fn set(&mut self, name: &str, value: u64) -> Called {
        match name {
            "seed" => self.settings.seed = value,
            "checked" => self.settings.checked = value != 0,
            "lazy" => {
                if self.lazy && value == 0 {
                    self.run_everything()?;
                }
                self.lazy = value != 0;
            }
            "counters" => self.settings.counters = value != 0,
            "threads" => {
                self.threads = (value as usize).max(1);
                self.pool = None;
            }
            "step_limit" => self.settings.step_limit = value,
            "capability" => {
                let unknown = || {
                    Error::new(
                        INVALID_VALUE,
                        format!("no device of capability {value}: 75 and 80 there are"),
                    )
                };
                self.generation = Generation::of(value).ok_or_else(unknown)?;
            }
            _ => return Err(Error::new(INVALID_VALUE, format!("no setting {name}"))),
        }
        Ok(())
    }
}

/// Settings from the environment.
pub fn read_environment(driver: &mut Driver) -> Called {
    for name in SETTINGS {
        let variable = format!("CUDA_EMULATOR_{}", name.to_uppercase());
        if let Ok(text) = std::env::var(&variable) {
            let Ok(value) = text.parse() else {
                return Err(Error::new(INVALID_VALUE, format!("{variable}={text} is no number")));
            };
            driver.set(name, value)?;
        }
    }
    Ok(())
}

fn text_out(text: String) -> *mut c_char {
    let text = CString::new(text.replace('\0', " ")).expect("its NULs are replaced");
    text.into_raw()
}

/// Changes a setting.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuda_emulator_set(name: *const c_char, value: u64) -> c_int {
    call(|driver| {
        // SAFETY: the caller gives a text.
        let name = unsafe { read_text(name) }?;
        driver.set(&name, value)
    })
}

/// What was found, a line each; to be freed with `cuda_emulator_free_text`.
#[unsafe(no_mangle)]
extern "C" fn cuda_emulator_findings() -> *mut c_char {
    let findings = driver().findings.iter().map(ToString::to_string).collect::<Vec<_>>();
    text_out(findings.join("\n"))
}

/// What was counted, as JSON: kernels by name; to be freed with `cuda_emulator_free_text`.
#[unsafe(no_mangle)]
extern "C" fn cuda_emulator_counters() -> *mut c_char {
    let counts = &driver().counts;
    let kernels = counts
        .iter()
        .map(|(name, (kernel, counts))| (name.clone(), counts.to_json(kernel)));
    text_out(serde_json::Value::Object(kernels.collect()).to_string())
}

/// Frees a text.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuda_emulator_free_text(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: made by `text_out`, and freed once.
        drop(unsafe { CString::from_raw(text) });
    }
}

/// Forgets findings, the error that stays, counters, and work that is not done.
#[unsafe(no_mangle)]
extern "C" fn cuda_emulator_reset() -> c_int {
    let mut driver = driver();
    driver.findings.clear();
    driver.sticky = None;
    driver.counts.clear();
    for stream in driver.streams.values_mut() {
        stream.queue.clear();
        stream.capture = None;
    }
    SUCCESS
}

/// Pieces of work that are queued and not done.
#[unsafe(no_mangle)]
extern "C" fn cuda_emulator_pending() -> u64 {
    driver().streams.values().map(|stream| stream.queue.len() as u64).sum()
}

/// Gives a part of device memory a name for messages.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuda_emulator_name_memory(start: u64, bytes: u64, name: *const c_char) -> c_int {
    // SAFETY: the caller gives a text.
    let name = unsafe { read_text(name) };
    code(name.map(|name| driver().memory.name(start, bytes, name)))
}
