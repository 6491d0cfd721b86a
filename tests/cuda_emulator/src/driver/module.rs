//! Modules: PTX only.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::Arc;

use super::error::{
    Code, FILE_NOT_FOUND, INVALID_HANDLE, INVALID_PTX, INVALID_VALUE, NO_BINARY_FOR_GPU, NOT_FOUND, OUT_OF_MEMORY,
};
use super::function::Function;
use super::{Called, Driver, Error, call_in_context, give, read_text};
use crate::memory::Owner;
use crate::ptx::Module;

/// A module and where its variables are.
pub struct Loaded {
    module: Module,
    variables: Arc<Vec<u64>>,
}

/// `.target sm_90` is for later devices than this one.
fn check_target(capability: u32, text: &str) -> Called {
    let target = text.split(".target").nth(1).unwrap_or_default();
    let name = target
        .split([',', '\n', ' '])
        .find(|word| !word.trim().is_empty())
        .unwrap_or_default();
    let digits: String = name.chars().filter(char::is_ascii_digit).collect();
    match digits.parse::<u32>() {
        Ok(target) if target <= capability => Ok(()),
        _ => Err(Error::new(
            INVALID_PTX,
            format!(
                "PTX for {name:?}; the device is an interpreter of sm_{capability}: compile for compute_{capability}"
            ),
        )),
    }
}

impl Driver {
    fn load(&mut self, text: &str) -> Called<usize> {
        check_target(self.generation.capability(), text)?;
        let module = Module::load(text).map_err(|error| Error::new(INVALID_PTX, error.to_string()))?;
        let mut variables = Vec::new();
        for variable in &module.variables {
            let owner = Owner::Variable(variable.name.clone());
            let start = self
                .memory
                .reserve(variable.bytes.len().max(1), owner)
                .ok_or(OUT_OF_MEMORY)?;
            // SAFETY: just reserved with this many bytes.
            unsafe {
                std::ptr::copy_nonoverlapping(variable.bytes.as_ptr(), start as *mut u8, variable.bytes.len());
            }
            variables.push(start);
        }
        let handle = self.handle();
        let variables = Arc::new(variables);
        self.modules.insert(handle, Loaded { module, variables });
        Ok(handle)
    }
}

/// The text of an image.
///
/// # Safety
/// The image is null, machine code, or text that ends with NUL.
unsafe fn text_of(image: *const c_void) -> Called<String> {
    if image.is_null() {
        return Err(INVALID_VALUE.into());
    }
    let starts_with = |magic: &[u8]| {
        // SAFETY: bytes are read only as far as they are those of the magic, none of which ends a text.
        magic
            .iter()
            .enumerate()
            .all(|(at, byte)| unsafe { *image.cast::<u8>().add(at) } == *byte)
    };
    let machine_code = [&b"\x7fELF"[..], b"\x50\xed\x55\xba", b"\xb1\x43\x62\x46"];
    if machine_code.iter().any(|magic| starts_with(magic)) {
        let text = "machine code (a cubin); the device is an interpreter of PTX: load the PTX instead";
        return Err(Error::new(NO_BINARY_FOR_GPU, text));
    }
    // SAFETY: not machine code, and so text that ends with NUL.
    Ok(unsafe { CStr::from_ptr(image.cast()) }.to_string_lossy().into_owned())
}

/// `cuModuleLoadData`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadData(module: *mut usize, image: *const c_void) -> Code {
    call_in_context(|driver| {
        // SAFETY: as the caller promises.
        let text = unsafe { text_of(image) }?;
        let handle = driver.load(&text)?;
        // SAFETY: the caller gives a place for a handle.
        unsafe { give(module, handle) }
    })
}

/// `cuModuleLoadDataEx`: of the options, the buffer for errors is served.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadDataEx(
    module: *mut usize,
    image: *const c_void,
    count: c_uint,
    options: *const c_int,
    values: *mut *mut c_void,
) -> Code {
    const ERROR_LOG: c_int = 5;
    const ERROR_LOG_BYTES: c_int = 6;
    call_in_context(|driver| {
        // SAFETY: as the caller promises.
        let text = unsafe { text_of(image) }?;
        let loaded = driver.load(&text);
        if let Err(error) = &loaded {
            let (mut buffer, mut size) = (std::ptr::null_mut::<u8>(), 0usize);
            for at in 0..count as usize {
                // SAFETY: the caller gives `count` options and values.
                let (option, value) = unsafe { (*options.add(at), *values.add(at)) };
                match option {
                    ERROR_LOG => buffer = value.cast(),
                    ERROR_LOG_BYTES => size = value as usize,
                    _ => {}
                }
            }
            if !buffer.is_null() && size > 0 {
                let length = error.text.len().min(size - 1);
                // SAFETY: the buffer has `size` bytes.
                unsafe {
                    std::ptr::copy_nonoverlapping(error.text.as_ptr(), buffer, length);
                    buffer.add(length).write(0);
                }
            }
        }
        // SAFETY: the caller gives a place for a handle.
        unsafe { give(module, loaded?) }
    })
}

/// `cuModuleLoad`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoad(module: *mut usize, path: *const c_char) -> Code {
    call_in_context(|driver| {
        // SAFETY: the caller gives a text.
        let path = unsafe { read_text(path) }?;
        let mut bytes = std::fs::read(&path).map_err(|error| Error::new(FILE_NOT_FOUND, format!("{path}: {error}")))?;
        bytes.push(0);
        // SAFETY: the bytes end with NUL.
        let text = unsafe { text_of(bytes.as_ptr().cast()) }?;
        let handle = driver.load(&text)?;
        // SAFETY: the caller gives a place for a handle.
        unsafe { give(module, handle) }
    })
}

/// `cuModuleUnload`
#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(module: usize) -> Code {
    call_in_context(|driver| {
        driver.run_everything()?;
        let loaded = driver.modules.remove(&module).ok_or(INVALID_HANDLE)?;
        for start in loaded.variables.iter() {
            driver.memory.free(*start);
        }
        driver.functions.retain(|_, function| function.module != module);
        Ok(())
    })
}

/// `cuModuleGetFunction`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleGetFunction(function: *mut usize, module: usize, name: *const c_char) -> Code {
    call_in_context(|driver| {
        // SAFETY: the caller gives a text.
        let name = unsafe { read_text(name) }?;
        let loaded = driver.modules.get(&module).ok_or(INVALID_HANDLE)?;
        let Some(kernel) = loaded.module.kernels.get(&name) else {
            let mut known: Vec<_> = loaded.module.kernels.keys().cloned().collect();
            known.sort();
            let text = format!("no kernel {name}; there are {}", known.join(", "));
            return Err(Error::new(NOT_FOUND, text));
        };
        let found = Function::new(module, kernel.clone(), loaded.variables.clone());
        let known = driver.functions.iter();
        let known = known.filter(|(_, other)| other.module == module && other.kernel.name == name);
        let handle = match known.map(|(handle, _)| *handle).next() {
            Some(handle) => handle,
            None => {
                let handle = driver.handle();
                driver.functions.insert(handle, found);
                handle
            }
        };
        // SAFETY: the caller gives a place for a handle.
        unsafe { give(function, handle) }
    })
}

/// `cuModuleGetGlobal`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleGetGlobal_v2(
    address: *mut u64,
    bytes: *mut usize,
    module: usize,
    name: *const c_char,
) -> Code {
    call_in_context(|driver| {
        // SAFETY: the caller gives a text.
        let name = unsafe { read_text(name) }?;
        let loaded = driver.modules.get(&module).ok_or(INVALID_HANDLE)?;
        let variables = loaded.module.variables.iter().zip(loaded.variables.iter());
        let mut found = variables.filter(|(variable, _)| variable.name == name);
        let Some((variable, start)) = found.next() else {
            return Err(Error::new(NOT_FOUND, format!("no variable {name}")));
        };
        // SAFETY: each is null or a place for a number.
        unsafe {
            if !address.is_null() {
                address.write(*start);
            }
            if !bytes.is_null() {
                bytes.write(variable.bytes.len());
            }
        }
        Ok(())
    })
}
