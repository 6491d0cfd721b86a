//! LayerNorm (Ba, Kiros, Hinton 2016), alone and fused with dropout and the residual sum of a post-norm block.
//!
//! ```text
//! residual_forward    s = residual + dropout(x)   (in place of x),   y = LN(s)
//! forward             s = x,                                         y = dropout(LN(s))
//! LN(s) = (s - mean) rstd gamma + beta,  rstd = 1 / sqrt(mean((s - mean)^2) + eps);   stats [rows, 2] = (mean, rstd)
//!
//! with g = dy gamma, xhat = (s - mean) rstd, means over the row:
//! ds = rstd (g - mean(g) - xhat mean(g xhat)),   dgamma = column sum of dy xhat,   dbeta = column sum of dy
//! ```
//!
//! `s` is kept instead of `y`: `xhat` from `y` would divide by gamma. Column sums in two passes through
//! [`bias_grad`].

mod cpu;
mod reference;

use crate::kernel::{Arg, Cost, Dims, Extent, File, Grid, Kernel, Sizes, Source, THREADS, Variant, workgroups};
use crate::ops::bias_grad::{self, ROWS};
use crate::ops::dropout::Rate;
use crate::plan::{PlanError, Recorder, Value};

pub use reference::cases;

/// All kernels of the room.
pub static KERNELS: &[&Kernel] = &[&FORWARD, &RESIDUAL_FORWARD, &BACKWARD, &RESIDUAL_BACKWARD];

const WGSL: File = File {
    name: "shaders/layer_norm.wgsl",
    text: include_str!("../../../shaders/layer_norm.wgsl"),
};

const CUDA: File = File {
    name: "kernels/layer_norm.cu",
    text: include_str!("../../../kernels/layer_norm.cu"),
};

const FORWARD_CONSTANTS: &[&str] = &[
    "rows",
    "rows.count",
    "rows.start",
    "width",
    "epsilon",
    "threshold",
    "keep_scale",
    "op",
];

/// FLOPs an element (dropout one more) and a row; so many tensors of the shape of s read and written.
fn cost(sizes: &Sizes, [element, row]: [u64; 2], read: u64, written: u64) -> Cost {
    let elements = sizes.get("rows") * sizes.get("width");
    let dropout = u64::from(sizes.word("threshold") != 0);
    Cost {
        flops: (element + dropout) * elements + row * sizes.get("rows"),
        read: sizes.stored_bytes() * read * elements,
        written: sizes.stored_bytes() * written * elements,
    }
}

/// A team of 32 threads has a row.
const WGSL_ROWS: &[Variant] = &[
    Variant::new("plain", THREADS, &[("ROWS", 8)]),
    Variant::new("subgroup", THREADS, &[("ROWS", 8)]).in_subgroups(),
];

/// Widest row that a warp has on CUDA; a block has wider ones.
const CUDA_WARP_WIDTH: usize = 1024;

const fn wgsl(entry: &'static [&'static str; 1]) -> Option<Source> {
    Some(Source::new(WGSL, entry).with_variants(WGSL_ROWS))
}

const fn cuda(entry: &'static [&'static str; 1]) -> Option<Source> {
    Some(Source::new(CUDA, entry).with_compiled(&["width"]))
}

const fn cuda_forward(entry: &'static [&'static str; 1]) -> Option<Source> {
    let source = Source::new(CUDA, entry).with_compiled(&["width"]);
    Some(source.with_grid(|dims, _| {
        let rows = if dims.size("width") <= CUDA_WARP_WIDTH { 8 } else { 1 };
        workgroups(dims.size("rows").div_ceil(rows))
    }))
}

/// A workgroup for as many rows as the variant says.
fn rows(dims: &Dims, variant: &Variant) -> Grid {
    workgroups(dims.size("rows").div_ceil(variant.define("ROWS") as usize))
}

/// `y = dropout(LN(s))`.
pub static FORWARD: Kernel = Kernel {
    name: "layer_norm.forward",
    args: &[
        Arg::input("s", ["rows", "width"]),
        Arg::input("gamma", ["1", "width"]).f32(),
        Arg::input("beta", ["1", "width"]).f32(),
        Arg::output("y", ["rows", "width"]),
        Arg::output("stats", ["rows", "two"]).f32(),
    ],
    constants: FORWARD_CONSTANTS,
    cuda: cuda_forward(&["layer_norm_forward"]),
    wgsl: wgsl(&["layer_norm_forward"]),
    cpu: cpu::forward,
    reserve: None,
    grid: rows,
    cost: |sizes| cost(sizes, [8, 5], 1, 1),
};

/// `s = residual + dropout(s)`, `y = LN(s)`.
pub static RESIDUAL_FORWARD: Kernel = Kernel {
    name: "layer_norm.residual_forward",
    args: &[
        Arg::inout("s", ["rows", "width"]),
        Arg::input("residual", ["rows", "width"]),
        Arg::input("gamma", ["1", "width"]).f32(),
        Arg::input("beta", ["1", "width"]).f32(),
        Arg::output("y", ["rows", "width"]),
        Arg::output("stats", ["rows", "two"]).f32(),
    ],
    constants: FORWARD_CONSTANTS,
    cuda: cuda_forward(&["layer_norm_residual_forward"]),
    wgsl: wgsl(&["layer_norm_residual_forward"]),
    cpu: cpu::residual_forward,
    reserve: None,
    grid: rows,
    cost: |sizes| cost(sizes, [9, 5], 2, 2),
};

/// `dx (+)= LN'(dropout'(dy))` and the partial column sums.
pub static BACKWARD: Kernel = Kernel {
    name: "layer_norm.backward",
    args: &[
        Arg::input("dy", ["rows", "width"]),
        Arg::input("s", ["rows", "width"]),
        Arg::input("stats", ["rows", "two"]).f32(),
        Arg::input("gamma", ["1", "width"]).f32(),
        Arg::inout("dx", ["rows", "width"]),
        Arg::output("dgamma_partials", ["blocks", "width"]).f32(),
        Arg::output("dbeta_partials", ["blocks", "width"]).f32(),
    ],
    constants: &[
        "rows",
        "rows.count",
        "rows.start",
        "width",
        "threshold",
        "keep_scale",
        "op",
        "accumulate_dx",
    ],
    cuda: cuda(&["layer_norm_backward"]),
    wgsl: wgsl(&["layer_norm_backward"]),
    cpu: cpu::backward,
    reserve: None,
    grid: |dims, _| [dims.size("blocks") as u32, 1, 1],
    cost: |sizes| cost(sizes, [13, 2], 2, 1),
};

/// `dresidual (+)= ds`, `dx = dropout'(ds)` and the partial column sums.
pub static RESIDUAL_BACKWARD: Kernel = Kernel {
    name: "layer_norm.residual_backward",
    args: &[
        Arg::input("dy", ["rows", "width"]),
        Arg::input("s", ["rows", "width"]),
        Arg::input("stats", ["rows", "two"]).f32(),
        Arg::input("gamma", ["1", "width"]).f32(),
        Arg::inout("dresidual", ["rows", "width"]),
        Arg::output("dx", ["rows", "width"]),
        Arg::output("dgamma_partials", ["blocks", "width"]).f32(),
        Arg::output("dbeta_partials", ["blocks", "width"]).f32(),
    ],
    constants: &[
        "rows",
        "rows.count",
        "rows.start",
        "width",
        "threshold",
        "keep_scale",
        "op",
        "accumulate_dresidual",
    ],
    cuda: cuda(&["layer_norm_residual_backward"]),
    wgsl: wgsl(&["layer_norm_residual_backward"]),
    cpu: cpu::residual_backward,
    reserve: None,
    grid: |dims, _| [dims.size("blocks") as u32, 1, 1],
    cost: |sizes| cost(sizes, [13, 2], 2, 2),
};

/// LayerNorm's parameters.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    /// Scale `[1, width]`.
    pub gamma: Value,
    /// Shift `[1, width]`.
    pub beta: Value,
    /// Added to the variance.
    pub epsilon: f32,
}

impl Norm {
    /// `<name>.weight` and `<name>.bias`.
    ///
    /// # Errors
    /// [`PlanError::UnknownParameter`].
    pub fn named(r: &mut Recorder, name: &str, epsilon: f32) -> Result<Norm, PlanError> {
        Ok(Norm {
            gamma: r.param(&format!("{name}.weight"))?,
            beta: r.param(&format!("{name}.bias"))?,
            epsilon,
        })
    }

    fn constants(&self, rate: Rate) -> [(&'static str, u32); 4] {
        let [threshold, scale, op] = rate.constants();
        [("epsilon", self.epsilon.to_bits()), threshold, scale, op]
    }
}

/// Widest row whose LayerNorm the backward of [`layer_norm`] with dropout takes.
pub const WIDEST: usize = 4096;

/// `dropout(LN(x))`.
///
/// # Errors
/// Shape mismatches, rows wider than [`WIDEST`] with dropout, sizes beyond the dropout counter; all with the scope.
pub fn layer_norm(r: &mut Recorder, x: Value, norm: Norm, dropout: f32) -> Result<Value, PlanError> {
    check_counter(r, x, dropout)?;
    let width = r.info(x).width;
    if dropout > 0.0 && width as usize > WIDEST {
        let what = format!("layer_norm with dropout over rows of {width}: at most {WIDEST}");
        return Err(r.unsupported(what));
    }
    let rate = Rate {
        probability: dropout,
        op: r.op_id(),
    };
    let info = r.info(x).clone();
    let (y, stats) = (
        r.value("layer_norm", info.rows, info.width),
        r.exact("stats", info.rows, 2),
    );
    r.launch(&FORWARD, &[x, norm.gamma, norm.beta, y, stats], &norm.constants(rate))?;
    r.backward(&[y], move |r| {
        let Some(dy) = r.incoming(y) else { return Ok(()) };
        let Some(dx) = r.outgoing(x)? else {
            return Err(r.unsupported("layer_norm needs a gradient of its input".to_string()));
        };
        let [dgamma, dbeta] = partials(r, info.rows, info.width);
        let [threshold, scale, op] = rate.constants();
        let constants = [threshold, scale, op, ("accumulate_dx", dx.flag())];
        r.launch(
            &BACKWARD,
            &[dy, x, stats, norm.gamma, dx.value, dgamma, dbeta],
            &constants,
        )?;
        finish(r, norm, [dgamma, dbeta])
    });
    Ok(y)
}

/// `LN(residual + dropout(x))`. `x` is overwritten by the sum: it must be the output of an op whose backward does not
/// read it, and be used nowhere else.
///
/// # Errors
/// Shape mismatches, sizes beyond the dropout counter; with the scope.
pub fn residual_layer_norm(
    r: &mut Recorder,
    x: Value,
    residual: Value,
    norm: Norm,
    dropout: f32,
) -> Result<Value, PlanError> {
    check_counter(r, x, dropout)?;
    let rate = Rate {
        probability: dropout,
        op: r.op_id(),
    };
    let info = r.info(x).clone();
    let (y, stats) = (
        r.value("layer_norm", info.rows, info.width),
        r.exact("stats", info.rows, 2),
    );
    r.launch(
        &RESIDUAL_FORWARD,
        &[x, residual, norm.gamma, norm.beta, y, stats],
        &norm.constants(rate),
    )?;
    r.backward(&[y], move |r| {
        let Some(dy) = r.incoming(y) else { return Ok(()) };
        let (Some(dresidual), Some(dx)) = (r.outgoing(residual)?, r.outgoing(x)?) else {
            return Err(r.unsupported("residual_layer_norm needs a gradient of both its inputs".to_string()));
        };
        if dx.accumulate {
            return Err(r.unsupported("the input of residual_layer_norm is used by another op as well".to_string()));
        }
        let [dgamma, dbeta] = partials(r, info.rows, info.width);
        let [threshold, scale, op] = rate.constants();
        let constants = [threshold, scale, op, ("accumulate_dresidual", dresidual.flag())];
        let values = [dy, x, stats, norm.gamma, dresidual.value, dx.value, dgamma, dbeta];
        r.launch(&RESIDUAL_BACKWARD, &values, &constants)?;
        finish(r, norm, [dgamma, dbeta])
    });
    Ok(y)
}

/// Dropout counts elements in 32 bits.
fn check_counter(r: &Recorder, x: Value, dropout: f32) -> Result<(), PlanError> {
    let info = r.info(x);
    let elements = u64::from(info.rows.capacity) * u64::from(info.width);
    if dropout > 0.0 && elements > u64::from(u32::MAX) {
        let what = format!("{elements} elements exceed the dropout counter; use a smaller batch");
        return Err(r.unsupported(what));
    }
    Ok(())
}

/// Column sums of blocks of rows, for gamma and beta.
fn partials(r: &mut Recorder, rows: Extent, width: u32) -> [Value; 2] {
    let blocks = bias_grad::blocks(rows);
    ["dgamma partials", "dbeta partials"].map(|name| r.exact(name, blocks, width))
}

fn finish(r: &mut Recorder, norm: Norm, [dgamma, dbeta]: [Value; 2]) -> Result<(), PlanError> {
    bias_grad::record_finish(r, dgamma, norm.gamma)?;
    bias_grad::record_finish(r, dbeta, norm.beta)
}

/// Rows that one block of the backward reduces.
const BLOCK_ROWS: usize = ROWS;
