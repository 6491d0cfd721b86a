//! Named tensors in one file: the safetensors format, with a checksum.
//!
//! ```text
//! u64 n | n bytes of JSON | data
//! JSON  {"__metadata__": {"format": "pt", "crc32": "9ae0daaf"}, NAME: {"dtype", "shape", "data_offsets"}, ...}
//! data  the tensors one after the other in order of their names, little-endian
//! ```
//!
//! The format itself notices a file that was cut off, but not a changed bit. So the CRC-32 of the data goes into the
//! metadata, where other readers ignore it; files without one (published checkpoints) are read all the same. The same
//! tensors always give the same bytes.

use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde_json::{Map, Value, json};

use super::{HubError, names};
use crate::atomic;

// Tensors are written as they lie in memory.
const _: () = assert!(
    cfg!(target_endian = "little"),
    "safetensors are little-endian, and so must the machine be"
);

const CHECKSUM: &str = "crc32";

/// A tensor to be written.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    /// Its name, unique in the file.
    pub name: &'a str,
    /// Its shape; the product is the length of `data`.
    pub shape: &'a [usize],
    /// Its elements, row by row.
    pub data: &'a [f32],
}

/// A file of tensors, read into memory and checked.
#[derive(Debug)]
pub struct WeightsFile {
    path: PathBuf,
    bytes: Vec<u8>,
    data_start: usize,
    header: Metadata,
}

/// Writes `tensors` as one file, streaming, under a temporary name until it is complete. `metadata` are further pairs
/// of texts for the header.
///
/// # Errors
/// [`HubError::BadTensor`] before anything is written, [`HubError::Write`] after.
pub fn write(path: &Path, tensors: &[Tensor<'_>], metadata: &[(&str, &str)]) -> Result<(), HubError> {
    let mut sorted: Vec<&Tensor<'_>> = tensors.iter().collect();
    sorted.sort_by_key(|tensor| tensor.name);
    check(path, &sorted)?;
    let mut crc = flate2::Crc::new();
    for tensor in &sorted {
        crc.update(bytemuck::cast_slice(tensor.data));
    }
    let mut notes: Map<String, Value> = metadata
        .iter()
        .map(|(key, text)| ((*key).to_owned(), (*text).into()))
        .collect();
    notes.insert("format".to_owned(), "pt".into());
    notes.insert(CHECKSUM.to_owned(), format!("{:08x}", crc.sum()).into());
    let mut header = Map::from_iter([("__metadata__".to_owned(), Value::Object(notes))]);
    let mut offset = 0;
    for tensor in &sorted {
        let end = offset + size_of_val(tensor.data);
        let entry = json!({ "dtype": "F32", "shape": tensor.shape, "data_offsets": [offset, end] });
        header.insert(tensor.name.to_owned(), entry);
        offset = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    atomic::write_with(path, |out: &mut dyn Write| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        sorted
            .iter()
            .try_for_each(|tensor| out.write_all(bytemuck::cast_slice(tensor.data)))
    })?;
    Ok(())
}

fn check(path: &Path, sorted: &[&Tensor<'_>]) -> Result<(), HubError> {
    let bad = |name: &str, message: String| {
        Err(HubError::BadTensor {
            path: path.to_path_buf(),
            name: name.to_owned(),
            message,
        })
    };
    for tensor in sorted {
        let elements: usize = tensor.shape.iter().product();
        if elements != tensor.data.len() {
            let found = tensor.data.len();
            return bad(
                tensor.name,
                format!("shape {:?} has {elements} elements, the data {found}", tensor.shape),
            );
        }
    }
    match sorted.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => bad(pair[0].name, "the name occurs twice".to_owned()),
        None => Ok(()),
    }
}

impl WeightsFile {
    /// Reads the file into memory and checks its structure and, where it has one, its checksum.
    ///
    /// # Errors
    /// [`HubError::Read`], or [`HubError::Damaged`] saying how one can tell.
    pub fn open(path: &Path) -> Result<WeightsFile, HubError> {
        let bytes = std::fs::read(path).map_err(|source| HubError::Read {
            path: path.to_path_buf(),
            source,
        })?;
        let damaged = |message: String| HubError::Damaged {
            path: path.to_path_buf(),
            message,
        };
        let (length, header) =
            SafeTensors::read_metadata(&bytes).map_err(|error| damaged(explain(&error, bytes.len())))?;
        let data_start = 8 + length;
        if let Some(written) = header.metadata().as_ref().and_then(|notes| notes.get(CHECKSUM)) {
            let mut crc = flate2::Crc::new();
            crc.update(&bytes[data_start..]);
            let found = format!("{:08x}", crc.sum());
            if found != *written {
                return Err(damaged(format!("its checksum is {found}, but {written} was written")));
            }
        }
        Ok(WeightsFile {
            path: path.to_path_buf(),
            bytes,
            data_start,
            header,
        })
    }

    /// Names of all tensors, in the order of the file.
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// The further text that was written under `key`.
    pub fn note(&self, key: &str) -> Option<&str> {
        self.header.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// Whether the tensor is there under its own name or one that others use for it.
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Shape of the tensor `name`, if it is there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.find(name).map(|(_, info)| info.shape.as_slice())
    }

    /// The elements of tensor `name`, which must have the shape `shape`; half and double precision become f32.
    ///
    /// # Errors
    /// [`HubError::MissingTensor`] with the most similar name, [`HubError::Shape`] with both shapes.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, HubError> {
        let mut out = vec![0.0; shape.iter().product()];
        self.read_into(name, shape, &mut out)?;
        Ok(out)
    }

    /// As [`WeightsFile::read`], into `out`, whose length is the product of `shape`.
    ///
    /// # Errors
    /// As [`WeightsFile::read`].
    pub fn read_into(&self, name: &str, shape: &[usize], out: &mut [f32]) -> Result<(), HubError> {
        let (found_name, info) = self.find(name).ok_or_else(|| self.missing(name))?;
        let elements: usize = shape.iter().product();
        if info.shape != shape || out.len() != elements {
            return Err(HubError::Shape {
                path: self.path.clone(),
                name: found_name,
                found: format!("{:?} {:?}", info.dtype, info.shape),
                expected: format!("{shape:?}"),
            });
        }
        let (start, end) = info.data_offsets;
        let bytes = &self.bytes[self.data_start + start..self.data_start + end];
        match info.dtype {
            Dtype::F32 => convert(bytes, out, f32::from_le_bytes),
            Dtype::F16 => convert(bytes, out, |x| half::f16::from_le_bytes(x).to_f32()),
            Dtype::BF16 => convert(bytes, out, |x| half::bf16::from_le_bytes(x).to_f32()),
            Dtype::F64 => convert(bytes, out, |x| f64::from_le_bytes(x) as f32),
            other => {
                return Err(HubError::Shape {
                    path: self.path.clone(),
                    name: found_name,
                    found: format!("{other:?}"),
                    expected: "F32, F16, BF16 or F64".to_owned(),
                });
            }
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Option<(String, &TensorInfo)> {
        names::aliases(name).into_iter().find_map(|alias| {
            let info = self.header.info(&alias)?;
            Some((alias, info))
        })
    }

    fn missing(&self, name: &str) -> HubError {
        let similarity = |other: &String| (strsim::normalized_levenshtein(name, other) * 1000.0) as u32;
        let similar = self
            .names()
            .into_iter()
            .filter(|other| similarity(other) > 700)
            .max_by_key(similarity);
        let advice = similar.map_or(String::new(), |near| {
            format!("; the most similar one there is \"{near}\"")
        });
        HubError::MissingTensor {
            path: self.path.clone(),
            name: name.to_owned(),
            advice,
        }
    }
}

fn convert<const N: usize>(bytes: &[u8], out: &mut [f32], element: impl Fn([u8; N]) -> f32) {
    for (value, raw) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *value = element(*raw);
    }
}

fn explain(error: &SafeTensorError, length: usize) -> String {
    match error {
        SafeTensorError::HeaderTooSmall | SafeTensorError::InvalidHeaderLength => {
            format!("with {length} bytes it ends inside its header")
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            format!("its header announces another size than the {length} bytes that are there")
        }
        SafeTensorError::HeaderTooLarge => "it does not begin with the length of a header".to_owned(),
        other => format!("its header cannot be read ({other})"),
    }
}

#[cfg(test)]
mod tests;
