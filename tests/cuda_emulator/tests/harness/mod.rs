//! What the tests share: the emulator as cudarc's driver, NVRTC, and launches with few words.
//!
//! NVRTC is looked for in the file that `TLM_NVRTC` names, by the loader, and in the virtual environment `.venv` of the
//! workspace. Without it the tests say so and pass; `TLM_REQUIRE_NVRTC=1` makes them fail.

#![allow(dead_code, reason = "each test uses its part")]

use std::ffi::{CString, c_void};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cuda_emulator::control::Control;
use cudarc::driver::{CudaContext, CudaFunction, CudaSlice, CudaStream, LaunchConfig, PushKernelArg, sys};
use cudarc::nvrtc::{Ptx, sys as nvrtc};

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The emulator, held by one test at a time.
pub struct Device {
    pub control: &'static Control,
    pub context: Arc<CudaContext>,
    pub stream: Arc<CudaStream>,
    _lock: MutexGuard<'static, ()>,
}

static LOCK: Mutex<()> = Mutex::new(());

/// The emulator, fresh; none where NVRTC is missing.
pub fn device() -> Option<Device> {
    static CONTROL: OnceLock<Control> = OnceLock::new();
    static NVRTC: OnceLock<bool> = OnceLock::new();
    let lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let control = CONTROL.get_or_init(|| Control::find().unwrap_or_else(|error| panic!("{error}")));
    if !NVRTC.get_or_init(load_nvrtc) {
        return None;
    }
    control.reset();
    control.set_seed(0);
    control.set_checked(true);
    control.set_lazy(false);
    control.set_counters(false);
    let context = CudaContext::new(0).unwrap();
    let stream = context.default_stream();
    Some(Device {
        control,
        context,
        stream,
        _lock: lock,
    })
}

/// Loads NVRTC once and for all; cudarc then finds it by its name.
#[expect(
    clippy::explicit_write,
    reason = "a passing test keeps what eprintln writes to itself"
)]
fn load_nvrtc() -> bool {
    let mut candidates: Vec<PathBuf> = match std::env::var_os("TLM_NVRTC") {
        Some(path) => vec![path.into()],
        None => vec!["libnvrtc.so.13".into()],
    };
    if std::env::var_os("TLM_NVRTC").is_none() {
        let pattern = workspace().join(".venv/lib/python*/site-packages/nvidia/*/lib/libnvrtc.so.*");
        candidates.extend(glob::glob(&pattern.to_string_lossy()).unwrap().flatten());
    }
    for candidate in &candidates {
        // SAFETY: the library's initialisers are NVIDIA's.
        if let Ok(library) = unsafe { libloading::Library::new(candidate) } {
            std::mem::forget(library);
            // SAFETY: only asks the loader.
            return unsafe { nvrtc::is_culib_present() };
        }
    }
    let required = std::env::var("TLM_REQUIRE_NVRTC").is_ok_and(|value| value == "1");
    assert!(!required, "TLM_REQUIRE_NVRTC=1, but there is no NVRTC: {candidates:?}");
    let hint = "python3 -m venv .venv && .venv/bin/pip install nvidia-cuda-nvrtc";
    writeln!(std::io::stderr(), "SKIPPED: no NVRTC ({hint})").unwrap();
    false
}

/// Compiles a source with the headers of `kernels/common/`.
pub fn compile(name: &str, source: &str, defines: &[(&str, &str)]) -> String {
    let mut headers = Vec::new();
    for path in glob::glob(&workspace().join("kernels/common/*.cuh").to_string_lossy())
        .unwrap()
        .flatten()
    {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        headers.push((
            text(&format!("common/{file}")),
            text(&std::fs::read_to_string(&path).unwrap()),
        ));
    }
    let mut options = vec![
        text("--gpu-architecture=compute_80"),
        text("--std=c++17"),
        text("--generate-line-info"),
    ];
    options.extend(
        defines
            .iter()
            .map(|(name, value)| text(&format!("--define-macro={name}={value}"))),
    );
    let names: Vec<_> = headers.iter().map(|(name, _)| name.as_ptr()).collect();
    let texts: Vec<_> = headers.iter().map(|(_, text)| text.as_ptr()).collect();
    let pointers: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
    let (code, name) = (text(source), text(name));
    let mut program = std::ptr::null_mut();
    // SAFETY: all texts end with NUL and outlive the calls; counts and sizes are those of the arrays.
    unsafe {
        let count = headers.len() as i32;
        nvrtc::nvrtcCreateProgram(
            &mut program,
            code.as_ptr(),
            name.as_ptr(),
            count,
            texts.as_ptr(),
            names.as_ptr(),
        )
        .result()
        .unwrap();
        let compiled = nvrtc::nvrtcCompileProgram(program, options.len() as i32, pointers.as_ptr());
        let mut size = 0;
        nvrtc::nvrtcGetProgramLogSize(program, &mut size).result().unwrap();
        let mut log = vec![0u8; size];
        nvrtc::nvrtcGetProgramLog(program, log.as_mut_ptr().cast())
            .result()
            .unwrap();
        assert!(compiled.result().is_ok(), "{}", String::from_utf8_lossy(&log));
        nvrtc::nvrtcGetPTXSize(program, &mut size).result().unwrap();
        let mut ptx = vec![0u8; size];
        nvrtc::nvrtcGetPTX(program, ptx.as_mut_ptr().cast()).result().unwrap();
        nvrtc::nvrtcDestroyProgram(&mut program).result().unwrap();
        String::from_utf8_lossy(&ptx).trim_end_matches('\0').to_string()
    }
}

fn text(text: &str) -> CString {
    CString::new(text).unwrap()
}

/// A launch's parameter.
pub enum Arg<'a> {
    F32(&'a CudaSlice<f32>),
    U32(&'a CudaSlice<u32>),
    Number(u32),
    Float(f32),
    Address(u64),
}

impl Device {
    /// A kernel of a source.
    pub fn kernel(&self, name: &str, source: &str, entry: &str) -> CudaFunction {
        let ptx = compile(name, source, &[]);
        let module = self
            .context
            .load_module(Ptx::from_src(ptx))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        module.load_function(entry).unwrap()
    }

    /// Floats on the device.
    pub fn floats(&self, data: &[f32]) -> CudaSlice<f32> {
        self.stream.clone_htod(data).unwrap()
    }

    /// Words on the device.
    pub fn words(&self, data: &[u32]) -> CudaSlice<u32> {
        self.stream.clone_htod(data).unwrap()
    }

    /// Back on the host.
    pub fn read<T: cudarc::driver::DeviceRepr + Clone + Default>(&self, slice: &CudaSlice<T>) -> Vec<T> {
        self.stream.clone_dtoh(slice).unwrap()
    }

    /// Launches and waits; the error's text if there is one.
    pub fn launch(&self, kernel: &CudaFunction, grid: u32, block: u32, args: &[Arg<'_>]) -> Result<(), String> {
        self.launch_shared(kernel, (grid, 1, 1), block, 0, args)
    }

    /// Likewise, with dynamic shared memory.
    pub fn launch_shared(
        &self,
        kernel: &CudaFunction,
        grid: (u32, u32, u32),
        block: u32,
        shared: u32,
        args: &[Arg<'_>],
    ) -> Result<(), String> {
        let mut builder = self.stream.launch_builder(kernel);
        for arg in args {
            match arg {
                Arg::F32(slice) => builder.arg(*slice),
                Arg::U32(slice) => builder.arg(*slice),
                Arg::Number(number) => builder.arg(number),
                Arg::Float(number) => builder.arg(number),
                Arg::Address(address) => builder.arg(address),
            };
        }
        let config = LaunchConfig {
            grid_dim: grid,
            block_dim: (block, 1, 1),
            shared_mem_bytes: shared,
        };
        // SAFETY: the emulator checks every access.
        let launched = unsafe { builder.launch(config) }.map(|_| ());
        launched
            .and_then(|()| self.stream.synchronize())
            .map_err(|error| error.to_string())
    }
}

/// Pinned host memory.
pub struct Pinned {
    pub address: *mut f32,
    length: usize,
}

impl Pinned {
    /// Of this many floats, all the same.
    pub fn new(length: usize, value: f32) -> Pinned {
        // SAFETY: a context is current; the memory is written within its bounds.
        unsafe {
            let address = cudarc::driver::result::malloc_host(4 * length, 0)
                .unwrap()
                .cast::<f32>();
            for at in 0..length {
                address.add(at).write(value);
            }
            Pinned { address, length }
        }
    }

    /// What it holds now.
    pub fn read(&self) -> Vec<f32> {
        // SAFETY: allocated with this length.
        unsafe { std::slice::from_raw_parts(self.address, self.length) }.to_vec()
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: allocated by the driver and freed once.
        let _ = unsafe { sys::cuMemFreeHost(self.address.cast::<c_void>()) };
    }
}
