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
mod vendor;

use crate::kernel::{Arg, Call, Cost, Dims, File, Grid, Kernel, Sizes, Source, Variant};
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

const CUDA_HALF: File = File {
    name: "kernels/gemm_half.cu",
    text: include_str!("../../../kernels/gemm_half.cu"),
};

/// The product and the bias.
fn forward_cost(sizes: &Sizes) -> Cost {
    let bias = Cost {
        flops: sizes.get("rows") * sizes.get("n"),
        read: 4 * sizes.get("n"),
        written: 0,
    };
    cost(sizes) + bias
}

/// `2 m n k` FLOPs; operands and result once.
fn cost(sizes: &Sizes) -> Cost {
    let (rows, n, k) = (sizes.get("rows"), sizes.get("n"), sizes.get("k"));
    Cost {
        flops: 2 * rows * n * k,
        read: sizes.stored_bytes() * (rows * k + n * k),
        written: sizes.stored_bytes() * rows * n,
    }
}

/// The part of the result that a workgroup computes, and that of a thread.
const fn tile(name: &'static str, threads: u32, defines: &'static [(&'static str, u32); 5]) -> Variant {
    Variant::new(name, threads, defines)
}

/// Large tiles read the operands seldom, small ones give small results enough workgroups. The fastest depends on the
/// adapter and the shape.
const WGSL_TILES: &[Variant] = &[
    tile("64x64", 256, &tile_sizes([64, 64], [4, 4])),
    tile("128x64", 256, &tile_sizes([128, 64], [8, 4])),
    tile("128x128", 256, &tile_sizes([128, 128], [8, 8])),
    tile("64x64 of 8x8", 64, &tile_sizes([64, 64], [8, 8])),
    tile("32x32", 64, &tile_sizes([32, 32], [4, 4])),
];

const fn tile_sizes([rows, columns]: [u32; 2], [part_rows, part_columns]: [u32; 2]) -> [(&'static str, u32); 5] {
    [
        ("TILE_ROWS", rows),
        ("TILE_COLUMNS", columns),
        ("PART_ROWS", part_rows),
        ("PART_COLUMNS", part_columns),
        ("DEPTH", 16),
    ]
}

const CUDA_TILES: &[Variant] = &[
    tile("64x64", 256, &tile_sizes([64, 64], [4, 4])),
    tile("128x64", 256, &tile_sizes([128, 64], [8, 4])),
    tile("128x128", 256, &tile_sizes([128, 128], [8, 8])),
];

/// Tiles of tensor cores: the block's, that of a warp, and how many steps of the depth are under way. More of them hide
/// more of the memory's latency; what they take of shared memory is [`half_shared`].
const CUDA_HALF_TILES: &[Variant] = &[
    tile("64x64", 128, &half_sizes([64, 64], [32, 32], 4)),
    tile("128x64", 128, &half_sizes([128, 64], [64, 32], 4)),
    tile("128x128", 256, &half_sizes([128, 128], [64, 32], 4)),
    tile("128x128 of 64x64", 128, &half_sizes([128, 128], [64, 64], 4)),
];

const fn half_sizes(
    [rows, columns]: [u32; 2],
    [warp_rows, warp_columns]: [u32; 2],
    stages: u32,
) -> [(&'static str, u32); 5] {
    [
        ("TILE_ROWS", rows),
        ("TILE_COLUMNS", columns),
        ("WARP_ROWS", warp_rows),
        ("WARP_COLUMNS", warp_columns),
        ("STAGES", stages),
    ]
}

/// Steps of 32 elements of two bytes of both operands.
fn half_shared(_: &Dims, variant: &Variant) -> u32 {
    let lines = variant.define("TILE_ROWS") + variant.define("TILE_COLUMNS");
    variant.define("STAGES") * lines * 32 * 2
}

const fn wgsl(entry: &'static [&'static str; 1]) -> Option<Source> {
    Some(Source::new(WGSL, entry).with_variants(WGSL_TILES))
}

const fn cuda(half: &'static Source) -> Option<Source> {
    Some(Source {
        product: half.product,
        ..Source::new(CUDA, half.entries)
            .with_variants(CUDA_TILES)
            .with_half(half)
    })
}

const fn cuda_half(entry: &'static [&'static str; 1], product: &'static crate::kernel::Product) -> Source {
    Source::new(CUDA_HALF, entry)
        .with_variants(CUDA_HALF_TILES)
        .with_shared(half_shared)
        .with_product(product)
}

/// Workgroups for a result of `rows x columns`.
fn tiles(variant: &Variant, rows: usize, columns: usize) -> Grid {
    let (down, across) = (variant.define("TILE_ROWS"), variant.define("TILE_COLUMNS"));
    [(columns as u32).div_ceil(across), (rows as u32).div_ceil(down), 1]
}

/// `y = x W^T + b`.
pub static FORWARD: Kernel = Kernel {
    name: "gemm.forward",
    args: &[
        Arg::input("x", ["rows", "k"]),
        Arg::input("w", ["n", "k"]),
        Arg::input("b", ["1", "n"]).f32(),
        Arg::output("y", ["rows", "n"]),
    ],
    constants: CONSTANTS,
    cuda: cuda(&cuda_half(&["gemm_forward"], &vendor::FORWARD)),
    wgsl: wgsl(&["gemm_forward"]),
    cpu: |call| {
        let (rows, n, k) = sizes(call);
        let epilogue = Epilogue::Bias(call.f32(2));
        multiply(&nt(rows, n, k, call.f32(0), call.f32(1), epilogue), call.f32_mut(3));
    },
    reserve: Some(|dims| reserve(dims.size("rows"), dims.size("n"), dims.size("k"))),
    grid: |dims, variant| tiles(variant, dims.size("rows"), dims.size("n")),
    cost: forward_cost,
};

/// `z = x W^T + b`, `a = gelu(z)`.
pub static FORWARD_GELU: Kernel = Kernel {
    name: "gemm.forward_gelu",
    args: &[
        Arg::input("x", ["rows", "k"]),
        Arg::input("w", ["n", "k"]),
        Arg::input("b", ["1", "n"]).f32(),
        Arg::output("z", ["rows", "n"]),
        Arg::output("a", ["rows", "n"]),
    ],
    constants: CONSTANTS,
    cuda: cuda(&cuda_half(&["gemm_forward_gelu"], &vendor::FORWARD_GELU)),
    wgsl: wgsl(&["gemm_forward_gelu"]),
    cpu: |call| {
        let (rows, n, k) = sizes(call);
        let epilogue = Epilogue::BiasGelu(call.f32(2), Output::new(call.f32_mut(4)));
        multiply(&nt(rows, n, k, call.f32(0), call.f32(1), epilogue), call.f32_mut(3));
    },
    reserve: Some(|dims| reserve(dims.size("rows"), dims.size("n"), dims.size("k"))),
    grid: |dims, variant| tiles(variant, dims.size("rows"), dims.size("n")),
    cost: |sizes| {
        let elements = sizes.get("rows") * sizes.get("n");
        forward_cost(sizes)
            + Cost {
                flops: gelu::FLOPS * elements,
                read: 0,
                written: sizes.stored_bytes() * elements,
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
    cuda: cuda(&cuda_half(&["gemm_backward_input"], &vendor::BACKWARD_INPUT)),
    wgsl: wgsl(&["gemm_backward_input"]),
    cpu: |call| {
        let (rows, n, k) = sizes(call);
        let accumulate = call.dims().flag("accumulate_dx");
        multiply(
            &nn(rows, n, k, call.f32(0), call.f32(1), accumulate, Epilogue::None),
            call.f32_mut(2),
        );
    },
    reserve: Some(|dims| reserve(dims.size("rows"), dims.size("k"), dims.size("n"))),
    grid: |dims, variant| tiles(variant, dims.size("rows"), dims.size("k")),
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
    cuda: cuda(&cuda_half(&["gemm_backward_gelu"], &vendor::BACKWARD_GELU)),
    wgsl: wgsl(&["gemm_backward_gelu"]),
    cpu: |call| {
        let (rows, n, k) = sizes(call);
        let epilogue = Epilogue::GeluDerivative(call.f32(2));
        multiply(
            &nn(rows, n, k, call.f32(0), call.f32(1), false, epilogue),
            call.f32_mut(3),
        );
    },
    reserve: Some(|dims| reserve(dims.size("rows"), dims.size("k"), dims.size("n"))),
    grid: |dims, variant| tiles(variant, dims.size("rows"), dims.size("k")),
    cost: |sizes| {
        let elements = sizes.get("rows") * sizes.get("k");
        cost(sizes)
            + Cost {
                flops: (1 + gelu::DERIVATIVE_FLOPS) * elements,
                read: sizes.stored_bytes() * elements,
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
        Arg::inout("dw", ["n", "k"]).f32(),
    ],
    constants: CONSTANTS_ACCUMULATE_DW,
    cuda: cuda(&cuda_half(&["gemm_backward_weight"], &vendor::BACKWARD_WEIGHT)),
    wgsl: wgsl(&["gemm_backward_weight"]),
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
    grid: |dims, variant| tiles(variant, dims.size("n"), dims.size("k")),
    cost: |sizes| {
        let (rows, n, k) = (sizes.get("rows"), sizes.get("n"), sizes.get("k"));
        Cost {
            flops: 2 * rows * n * k,
            read: sizes.stored_bytes() * rows * (n + k),
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
    let weight = r.stored(layer.weight);
    r.launch(&FORWARD, &[x, weight, layer.bias, y], &[])?;
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
    let weight = r.stored(outer.weight);
    r.launch(&FORWARD, &[a, weight, outer.bias, y], &[])?;
    r.backward(&[y], move |r| {
        let Some(dy) = r.incoming(y) else { return Ok(()) };
        weight_gradients(r, dy, a, outer)?;
        let dz = r.value("dz", r.info(z).rows, r.info(z).width);
        r.launch(&BACKWARD_GELU, &[dy, weight, z, dz], &[])?;
        weight_gradients(r, dz, x, inner)?;
        input_gradient(r, dz, x, inner)
    });
    Ok(y)
}

fn hidden(r: &mut Recorder, x: Value, layer: Layer) -> Result<(Value, Value), PlanError> {
    let (rows, n) = (r.info(x).rows, r.info(layer.weight).rows.capacity);
    let (z, a) = (r.value("z", rows, n), r.value("gelu", rows, n));
    let weight = r.stored(layer.weight);
    r.launch(&FORWARD_GELU, &[x, weight, layer.bias, z, a], &[])?;
    Ok((z, a))
}

fn input_gradient(r: &mut Recorder, dy: Value, x: Value, layer: Layer) -> Result<(), PlanError> {
    let Some(dx) = r.outgoing(x)? else { return Ok(()) };
    let weight = r.stored(layer.weight);
    r.launch(
        &BACKWARD_INPUT,
        &[dy, weight, dx.value],
        &[("accumulate_dx", dx.flag())],
    )
}

fn weight_gradients(r: &mut Recorder, dy: Value, x: Value, layer: Layer) -> Result<(), PlanError> {
    if let Some(dw) = r.outgoing(layer.weight)? {
        r.launch(&BACKWARD_WEIGHT, &[dy, x, dw.value], &[("accumulate_dw", dw.flag())])?;
    }
    bias_grad::record(r, dy, layer.bias)
}
