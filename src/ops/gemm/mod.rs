//! Linear layers: matrix products with bias, GELU and accumulation.
//!
//! ```text
//! forward          y  [rows, n]  = x [rows, k] W^T + b          W [n, k], b [1, n]     (NT)
//! forward_gelu     z  [rows, n]  = x W^T + b,  a = gelu(z)                              (NT)
//! backward_input   dx [rows, k] (+)= dy [rows, n] W                                      (NN)
//! backward_gelu    dz [rows, k]  = (dy W) gelu'(z)                                       (NN)
//! backward_weight  dW [n, k]    (+)= dy^T x                                              (TN, sum over live rows)
//! ```
//!
//! Rows are symbolic: products over tokens, sequences or masked rows read their live count on the device, rows beyond
//! it are neither read nor written. Record functions: [`linear`], [`linear_gelu`], [`feed_forward`]. The bias gradient
//! is a column sum ([`bias_grad`]).

pub mod cpu;
mod reference;

use crate::kernel::{Arg, Call, Cost, File, Kernel, Sizes, Source, Variant};
use crate::ops::{bias_grad, gelu};
use crate::plan::{PlanError, Recorder, Value};
use cpu::{Epilogue, Operand, Output, Product, multiply, reserve};

pub use reference::cases;

/// All kernels of the room.
pub static KERNELS: &[&Kernel] = &[
    &FORWARD,
    &FORWARD_GELU,
    &BACKWARD_INPUT,
    &BACKWARD_GELU,
    &BACKWARD_WEIGHT,
];

const CONSTANTS: &[&str] = &["rows", "rows.count", "rows.start", "n", "k"];
const CONSTANTS_ACCUMULATE_DX: &[&str] = &["rows", "rows.count", "rows.start", "n", "k", "accumulate_dx"];
const CONSTANTS_ACCUMULATE_DW: &[&str] = &["rows", "rows.count", "rows.start", "n", "k", "accumulate_dw"];

const WGSL: File = File {
    name: "shaders/gemm.wgsl",
    text: include_str!("../../../shaders/gemm.wgsl"),
};

const CUDA: File = File {
    name: "kernels/gemm.cu",
    text: include_str!("../../../kernels/gemm.cu"),
};

/// `2 m n k` FLOPs; operands and result once.
fn cost(sizes: &Sizes) -> Cost {
    let (rows, n, k) = (sizes.get("rows"), sizes.get("n"), sizes.get("k"));
    Cost {
        flops: 2 * rows * n * k,
        read: 4 * (rows * k + n * k),
        written: 4 * rows * n,
    }
}

/// Tile edge of the GPU kernels: one workgroup computes `TILE x TILE` of the result.
const TILE: u32 = 64;

fn tiles(columns: usize, rows: usize) -> [u32; 3] {
    [(columns as u32).div_ceil(TILE), (rows as u32).div_ceil(TILE), 1]
}

/// `y = x W^T + b`.
pub static FORWARD: Kernel = Kernel {
    name: "gemm.forward",
    args: &[
        Arg::input("x", ["rows", "k"]),
        Arg::input("w", ["n", "k"]),
        Arg::input("b", ["1", "n"]),
        Arg::output("y", ["rows", "n"]),
    ],
    constants: CONSTANTS,
    cuda: Some(Source::new(CUDA, &["gemm_forward"])),
    wgsl: Some(Source::new(WGSL, &["gemm_forward"])),
    cpu: |call| {
        let (rows, n, k) = sizes(call);
        let epilogue = Epilogue::Bias(call.f32(2));
        multiply(&nt(rows, n, k, call.f32(0), call.f32(1), epilogue), call.f32_mut(3));
    },
    reserve: Some(|dims| reserve(dims.size("rows"), dims.size("n"), dims.size("k"))),
    grid: |dims, _: &Variant| tiles(dims.size("n"), dims.size("rows")),
    cost,
};

/// `z = x W^T + b`, `a = gelu(z)`.
pub static FORWARD_GELU: Kernel = Kernel {
    name: "gemm.forward_gelu",
    args: &[
        Arg::input("x", ["rows", "k"]),
        Arg::input("w", ["n", "k"]),
        Arg::input("b", ["1", "n"]),
        Arg::output("z", ["rows", "n"]),
        Arg::output("a", ["rows", "n"]),
    ],
    constants: CONSTANTS,
    cuda: Some(Source::new(CUDA, &["gemm_forward_gelu"])),
    wgsl: Some(Source::new(WGSL, &["gemm_forward_gelu"])),
    cpu: |call| {
        let (rows, n, k) = sizes(call);
        let epilogue = Epilogue::BiasGelu(call.f32(2), Output::new(call.f32_mut(4)));
        multiply(&nt(rows, n, k, call.f32(0), call.f32(1), epilogue), call.f32_mut(3));
    },
    reserve: Some(|dims| reserve(dims.size("rows"), dims.size("n"), dims.size("k"))),
    grid: |dims, _: &Variant| tiles(dims.size("n"), dims.size("rows")),
    cost: |sizes| {
        let elements = sizes.get("rows") * sizes.get("n");
        cost(sizes)
            + Cost {
                flops: 25 * elements,
                read: 0,
                written: 4 * elements,
            }
    },
};

/// `dx (+)= dy W`.
pub static BACKWARD_INPUT: Kernel = Kernel {
    name: "gemm.backward_input",
    args: &[
        Arg::input("dy", ["rows", "n"]),
        Arg::input("w", ["n", "k"]),
        Arg::inout("dx", ["rows", "k"]),
    ],
    constants: CONSTANTS_ACCUMULATE_DX,
    cuda: Some(Source::new(CUDA, &["gemm_backward_input"])),
    wgsl: Some(Source::new(WGSL, &["gemm_backward_input"])),
    cpu: |call| {
        let (rows, n, k) = sizes(call);
        let accumulate = call.dims().flag("accumulate_dx");
        multiply(
            &nn(rows, n, k, call.f32(0), call.f32(1), accumulate, Epilogue::None),
            call.f32_mut(2),
        );
    },
    reserve: Some(|dims| reserve(dims.size("rows"), dims.size("k"), dims.size("n"))),
    grid: |dims, _: &Variant| tiles(dims.size("k"), dims.size("rows")),
    cost,
};

/// `dz = (dy W) gelu'(z)`.
pub static BACKWARD_GELU: Kernel = Kernel {
    name: "gemm.backward_gelu",
    args: &[
        Arg::input("dy", ["rows", "n"]),
        Arg::input("w", ["n", "k"]),
        Arg::input("z", ["rows", "k"]),
        Arg::output("dz", ["rows", "k"]),
    ],
    constants: CONSTANTS,
    cuda: Some(Source::new(CUDA, &["gemm_backward_gelu"])),
    wgsl: Some(Source::new(WGSL, &["gemm_backward_gelu"])),
    cpu: |call| {
        let (rows, n, k) = sizes(call);
        let epilogue = Epilogue::GeluDerivative(call.f32(2));
        multiply(
            &nn(rows, n, k, call.f32(0), call.f32(1), false, epilogue),
            call.f32_mut(3),
        );
    },
    reserve: Some(|dims| reserve(dims.size("rows"), dims.size("k"), dims.size("n"))),
    grid: |dims, _: &Variant| tiles(dims.size("k"), dims.size("rows")),
    cost: |sizes| {
        let elements = sizes.get("rows") * sizes.get("k");
        cost(sizes)
            + Cost {
                flops: 40 * elements,
                read: 4 * elements,
                written: 0,
            }
    },
};

/// `dW (+)= dy^T x`.
pub static BACKWARD_WEIGHT: Kernel = Kernel {
    name: "gemm.backward_weight",
    args: &[
        Arg::input("dy", ["rows", "n"]),
        Arg::input("x", ["rows", "k"]),
        Arg::inout("dw", ["n", "k"]),
    ],
    constants: CONSTANTS_ACCUMULATE_DW,
    cuda: Some(Source::new(CUDA, &["gemm_backward_weight"])),
    wgsl: Some(Source::new(WGSL, &["gemm_backward_weight"])),
    cpu: |call| {
        let (rows, n, k) = sizes(call);
        let product = Product {
            m: n,
            n: k,
            k: rows,
            a: Operand {
                data: call.f32(0),
                outer: 1,
                inner: n,
            },
            b: Operand {
                data: call.f32(1),
                outer: 1,
                inner: k,
            },
            ldc: k,
            accumulate: call.dims().flag("accumulate_dw"),
            epilogue: Epilogue::None,
        };
        multiply(&product, call.f32_mut(2));
    },
    reserve: Some(|dims| reserve(dims.size("n"), dims.size("k"), dims.size("rows"))),
    grid: |dims, _: &Variant| tiles(dims.size("k"), dims.size("n")),
    cost: |sizes| {
        let (rows, n, k) = (sizes.get("rows"), sizes.get("n"), sizes.get("k"));
        Cost {
            flops: 2 * rows * n * k,
            read: 4 * rows * (n + k),
            written: 4 * n * k,
        }
    },
};

fn sizes(call: &Call) -> (usize, usize, usize) {
    (call.live("rows"), call.dims().size("n"), call.dims().size("k"))
}

fn nt<'a>(rows: usize, n: usize, k: usize, x: &'a [f32], w: &'a [f32], epilogue: Epilogue<'a>) -> Product<'a> {
    let a = Operand {
        data: x,
        outer: k,
        inner: 1,
    };
    let b = Operand {
        data: w,
        outer: k,
        inner: 1,
    };
    Product {
        m: rows,
        n,
        k,
        a,
        b,
        ldc: n,
        accumulate: false,
        epilogue,
    }
}

fn nn<'a>(
    rows: usize,
    n: usize,
    k: usize,
    dy: &'a [f32],
    w: &'a [f32],
    accumulate: bool,
    epilogue: Epilogue<'a>,
) -> Product<'a> {
    let a = Operand {
        data: dy,
        outer: n,
        inner: 1,
    };
    let b = Operand {
        data: w,
        outer: 1,
        inner: k,
    };
    Product {
        m: rows,
        n: k,
        k: n,
        a,
        b,
        ldc: k,
        accumulate,
        epilogue,
    }
}

/// A layer's weight `[n, k]` and bias `[1, n]`.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// Weight.
    pub weight: Value,
    /// Bias.
    pub bias: Value,
}

impl Layer {
    /// `<name>.weight` and `<name>.bias`.
    ///
    /// # Errors
    /// [`PlanError::UnknownParameter`].
    pub fn named(r: &mut Recorder, name: &str) -> Result<Layer, PlanError> {
        Ok(Layer {
            weight: r.param(&format!("{name}.weight"))?,
            bias: r.param(&format!("{name}.bias"))?,
        })
    }
}

/// `x W^T + b`: `[rows, k]` to `[rows, n]`.
///
/// # Errors
/// Shape mismatches, with the scope.
pub fn linear(r: &mut Recorder, x: Value, layer: Layer) -> Result<Value, PlanError> {
    let y = r.value("linear", r.info(x).rows, r.info(layer.weight).rows.capacity);
    r.launch(&FORWARD, &[x, layer.weight, layer.bias, y], &[])?;
    r.backward(&[y], move |r| {
        let Some(dy) = r.incoming(y) else { return Ok(()) };
        weight_gradients(r, dy, x, layer)?;
        input_gradient(r, dy, x, layer)
    });
    Ok(y)
}

/// `gelu(x W^T + b)`.
///
/// # Errors
/// Shape mismatches, with the scope.
pub fn linear_gelu(r: &mut Recorder, x: Value, layer: Layer) -> Result<Value, PlanError> {
    let (z, a) = hidden(r, x, layer)?;
    r.backward(&[a], move |r| {
        let Some(da) = r.incoming(a) else { return Ok(()) };
        let dz = gelu::record_backward(r, da, z)?;
        weight_gradients(r, dz, x, layer)?;
        input_gradient(r, dz, x, layer)
    });
    Ok(a)
}

/// `gelu(x W1^T + b1) W2^T + b2`: the block's inner activation never makes a trip of its own in the backward.
///
/// # Errors
/// Shape mismatches, with the scope.
pub fn feed_forward(r: &mut Recorder, x: Value, inner: Layer, outer: Layer) -> Result<Value, PlanError> {
    let (z, a) = hidden(r, x, inner)?;
    let y = r.value("feed_forward", r.info(x).rows, r.info(outer.weight).rows.capacity);
    r.launch(&FORWARD, &[a, outer.weight, outer.bias, y], &[])?;
    r.backward(&[y], move |r| {
        let Some(dy) = r.incoming(y) else { return Ok(()) };
        weight_gradients(r, dy, a, outer)?;
        let dz = r.value("dz", r.info(z).rows, r.info(z).width);
        r.launch(&BACKWARD_GELU, &[dy, outer.weight, z, dz], &[])?;
        weight_gradients(r, dz, x, inner)?;
        input_gradient(r, dz, x, inner)
    });
    Ok(y)
}

fn hidden(r: &mut Recorder, x: Value, layer: Layer) -> Result<(Value, Value), PlanError> {
    let (rows, n) = (r.info(x).rows, r.info(layer.weight).rows.capacity);
    let (z, a) = (r.value("z", rows, n), r.value("gelu", rows, n));
    r.launch(&FORWARD_GELU, &[x, layer.weight, layer.bias, z, a], &[])?;
    Ok((z, a))
}

fn input_gradient(r: &mut Recorder, dy: Value, x: Value, layer: Layer) -> Result<(), PlanError> {
    let Some(dx) = r.outgoing(x)? else { return Ok(()) };
    r.launch(
        &BACKWARD_INPUT,
        &[dy, layer.weight, dx.value],
        &[("accumulate_dx", dx.flag())],
    )
}

fn weight_gradients(r: &mut Recorder, dy: Value, x: Value, layer: Layer) -> Result<(), PlanError> {
    if let Some(dw) = r.outgoing(layer.weight)? {
        r.launch(&BACKWARD_WEIGHT, &[dy, x, dw.value], &[("accumulate_dw", dw.flag())])?;
    }
    bias_grad::record(r, dy, layer.bias)
}
