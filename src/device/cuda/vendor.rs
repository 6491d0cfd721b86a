//! Launches that NVIDIA's library computes: its product and the passes around it.

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::cublaslt::{Arguments, CublasLt, Matmul, Workspace};
use super::gpu::Shared;
use super::memory::Memory;
use super::module::{Wanted, functions};
use super::program::{Call, Part};
use crate::device::DeviceError;
use crate::kernel::{Count, Finish, Product, cover};
use crate::plan::Launch;

/// The library and its memory, for one device.
pub(super) struct Vendor {
    library: Arc<CublasLt>,
    workspace: Workspace,
}

impl Vendor {
    pub fn open(shared: &Shared, stream: &CudaStream) -> Result<Vendor, DeviceError> {
        Ok(Vendor {
            library: Arc::new(CublasLt::open(shared.cublaslt.as_deref())?),
            workspace: Workspace(Memory::zeros(shared, stream, "cuBLASLt's workspace", Workspace::WORDS)?),
        })
    }

    /// What computes, for people.
    pub fn describe(&self) -> String {
        self.library.describe()
    }

    /// The parts of a launch; `wanted` is the loaded program of the passes.
    pub fn parts(
        &self,
        shared: &Shared,
        launch: &Launch,
        product: &Product,
        wanted: &Wanted,
        tensors: &[u64],
        step: u64,
    ) -> Result<Vec<Part>, DeviceError> {
        let (kernel, dims) = (launch.kernel, &launch.dims);
        let arguments = Arguments::new(product, kernel, dims);
        let loaded = functions(shared, wanted)?;
        let call = |entry: &str, elements: usize, parameters: Vec<u64>| {
            let position = wanted.source.entries.iter().position(|name| *name == entry);
            Part::Kernel(Call {
                function: loaded[position.expect("an entry point of the passes")].clone(),
                grid: cover(elements),
                threads: wanted.variant.threads,
                shared_bytes: 0,
                parameters,
            })
        };
        // A pass over a tensor of these rows and this width.
        let pass = |entry: &str, pointers: &[u64], like: usize| {
            let [rows, width] = kernel.args[like].shape;
            let words = [rows, &format!("{rows}.count"), &format!("{rows}.start"), width].map(|name| {
                let word = dims.device_word(name);
                u64::from(word.expect("the recorder bound every symbol of the table"))
            });
            let threads = (dims.size(rows) * dims.size(width)).div_ceil(dims.precision().vector());
            call(entry, threads, [pointers, &[step], &words].concat())
        };

        let mut parts = Vec::new();
        let bias = match product.bias {
            Some(arg) if kernel.args[arg].element.dtype(dims.precision()) != arguments.d.dtype => {
                let width = dims.size(kernel.args[arg].shape[1]);
                let bytes = width * arguments.d.dtype.bytes();
                if bytes > Workspace::BIAS {
                    return Err(DeviceError::Limit {
                        what: format!("{}: {} by cuBLASLt", launch.scope, kernel.name),
                        needed: bytes as u64,
                        available: Workspace::BIAS as u64,
                        unit: "bytes of a bias",
                        device: shared.info.to_string(),
                    });
                }
                let rounded = self.workspace.bias();
                let parameters = vec![tensors[arg], rounded, width as u64];
                parts.push(call(Product::ROUND_BIAS, width.div_ceil(4), parameters));
                Some(rounded)
            }
            bias => bias.map(|arg| tensors[arg]),
        };
        // Factors whose rows are what is summed over.
        let summed = [product.left, product.right].into_iter().zip([true, false]);
        for (factor, along_rows) in summed {
            let rows = dims.extent(kernel.args[factor.arg].shape[0]);
            if factor.transposed == along_rows && rows.count != Count::Fixed {
                parts.push(pass(Product::CLEAR, &[tensors[factor.arg]], factor.arg));
            }
        }
        let product_of = Matmul::new(&self.library, &self.workspace, &arguments, tensors, bias)?;
        parts.push(Part::Product(product_of));
        let result = product.result;
        match product.finish {
            Finish::Nothing => {}
            Finish::Gelu { into } => parts.push(pass(Product::GELU, &[tensors[result], tensors[into]], result)),
            Finish::GeluDerivative { at } => {
                parts.push(pass(Product::GELU_DERIVATIVE, &[tensors[at], tensors[result]], result));
            }
        }
        Ok(parts)
    }
}
