//! Compiled kernels: one module per file, set of defines and precision, made at its first use and kept with the GPU and
//! in a directory.
//!
//! ```text
//! CACHE/cuda/gemm-sm_80-0123456789abcdef.cubin      the checksum is over sources, options and the compiler's version
//! ```
//!
//! Machine code is for exactly one architecture, so that no driver has to compile anything; a driver that takes no machine
//! code at all gets PTX. A kept file that the driver refuses is compiled anew.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaFunction, CudaModule};
use cudarc::nvrtc::Ptx;
use rayon::prelude::*;

use super::gpu::{Shared, failed};
use crate::atomic;
use crate::device::DeviceError;
use crate::kernel::{CUDA_COMMON, Dims, Kernel, Precision, Source, Variant};

/// Modules by file, defines and precision.
pub(super) type Modules = HashMap<Key, Arc<CudaModule>>;

/// What a module is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    file: &'static str,
    defines: Vec<(String, u32)>,
    precision: Precision,
}

/// A kernel's CUDA source for launches of these sizes.
///
/// # Errors
/// [`DeviceError::Missing`].
pub(super) fn source(kernel: &'static Kernel, dims: &Dims) -> Result<&'static Source, DeviceError> {
    let source = kernel.cuda.as_ref().ok_or(DeviceError::Missing {
        backend: super::BACKEND,
        kernel: kernel.name,
    })?;
    Ok(source.storing(dims.precision()))
}

/// A source's module in one variant.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub source: &'static Source,
    pub variant: &'static Variant,
    pub dims: &'a Dims,
}

impl<'a> Wanted<'a> {
    /// The program of a variant by its number; the vendor's are the passes around its product.
    pub fn new(source: &'static Source, index: usize, dims: &'a Dims) -> Wanted<'a> {
        let source = match source.product {
            Some(product) if index == source.vendor() => product.around,
            _ => source,
        };
        let variant = source.variants.get(index).unwrap_or(&source.variants[0]);
        Wanted { source, variant, dims }
    }

    fn key(&self) -> Key {
        Key {
            file: self.source.file.name,
            defines: self.source.defines(self.variant, self.dims),
            precision: self.dims.precision(),
        }
    }
}

/// Compiles those that are not there yet, several at a time, and loads them.
pub(super) fn prepare(shared: &Shared, wanted: &[Wanted]) -> Result<(), DeviceError> {
    let mut modules = shared.modules.lock().expect("nobody panics while loading");
    let mut missing: HashMap<Key, &'static Source> = HashMap::new();
    for wanted in wanted {
        let key = wanted.key();
        if !modules.contains_key(&key) {
            missing.insert(key, wanted.source);
        }
    }
    let missing: Vec<(Key, &'static Source)> = missing.into_iter().collect();
    let images: Vec<Image> = missing
        .par_iter()
        .map(|(key, source)| image(shared, key, source))
        .collect::<Result<_, _>>()?;
    for ((key, source), image) in missing.into_iter().zip(images) {
        let module = load(shared, &key, source, image)?;
        modules.insert(key, module);
    }
    Ok(())
}

/// The entry points of a module that [`prepare`] has loaded.
pub(super) fn functions(shared: &Shared, wanted: &Wanted) -> Result<Vec<CudaFunction>, DeviceError> {
    let modules = shared.modules.lock().expect("nobody panics while loading");
    let module = modules.get(&wanted.key()).expect("prepared before");
    let function = |entry: &&str| {
        let found = module.load_function(entry);
        found.map_err(|error| {
            failed(
                &format!("{} has no entry point {entry}", wanted.source.file.name),
                error,
            )
        })
    };
    wanted.source.entries.iter().map(function).collect()
}

/// What a driver loads.
struct Image {
    bytes: Vec<u8>,
    ptx: bool,
    /// Whether it was kept from an earlier run.
    kept: bool,
}

/// What was kept of an earlier run, else what the compiler makes.
fn image(shared: &Shared, key: &Key, source: &Source) -> Result<Image, DeviceError> {
    let ptx = shared.wants_ptx.load(Ordering::Relaxed);
    let kept = path(shared, key, source, ptx).and_then(|path| std::fs::read(path).ok());
    match kept {
        Some(bytes) => Ok(Image { bytes, ptx, kept: true }),
        None => compiled(shared, key, source),
    }
}

fn compiled(shared: &Shared, key: &Key, source: &Source) -> Result<Image, DeviceError> {
    let ptx = shared.wants_ptx.load(Ordering::Relaxed);
    let compiled = shared
        .nvrtc
        .compile(source, &key.defines, key.precision, shared.info.architecture)?;
    let bytes = if ptx { compiled.ptx.into_bytes() } else { compiled.cubin };
    if let Some(path) = path(shared, key, source, ptx) {
        // A disk that takes none costs the next run the compilation and nothing else.
        let directory = path.parent().expect("a file lies in a directory");
        let _ = atomic::make_directory(directory).and_then(|()| atomic::write_with(&path, |out| out.write_all(&bytes)));
    }
    Ok(Image {
        bytes,
        ptx,
        kept: false,
    })
}

/// Loads an image; where the driver wants PTX, or refuses what was kept, another one in its place.
fn load(shared: &Shared, key: &Key, source: &Source, mut image: Image) -> Result<Arc<CudaModule>, DeviceError> {
    loop {
        let Image { bytes, ptx, kept } = image;
        let loaded = shared.context.load_module(match ptx {
            true => Ptx::from_src(String::from_utf8_lossy(&bytes).into_owned()),
            false => Ptx::from_binary(bytes),
        });
        image = match loaded {
            Ok(module) => return Ok(module),
            Err(error) if error.0 == CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU && !ptx => {
                shared.wants_ptx.store(true, Ordering::Relaxed);
                self::image(shared, key, source)?
            }
            Err(_) if kept => compiled(shared, key, source)?,
            Err(error) => return Err(failed(&format!("loading {}", key.file), error)),
        };
    }
}

/// Where an image is kept.
fn path(shared: &Shared, key: &Key, source: &Source, ptx: bool) -> Option<PathBuf> {
    static CHECKSUM: crc::Crc<u64> = crc::Crc::<u64>::new(&crc::CRC_64_ECMA_182);
    let mut digest = CHECKSUM.digest();
    for text in CUDA_COMMON.iter().chain([&source.file]).map(|file| file.text) {
        digest.update(&(text.len() as u64).to_le_bytes());
        digest.update(text.as_bytes());
    }
    let options = format!("{:?} {:?} {:?}", key.defines, key.precision, shared.nvrtc.version());
    digest.update(options.as_bytes());
    let stem = key.file.rsplit('/').next().unwrap_or(key.file).trim_end_matches(".cu");
    let (architecture, ending) = (shared.info.architecture, if ptx { "ptx" } else { "cubin" });
    let name = format!("{stem}-sm_{architecture}-{:016x}.{ending}", digest.finalize());
    Some(shared.cache.as_ref()?.join(name))
}
