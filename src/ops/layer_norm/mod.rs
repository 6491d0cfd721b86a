//! LayerNorm (Ba, Kiros, Hinton 2016), alone and fused with dropout and the residual sum of a post-norm block.
//!
//! ```text
//! residual_forward    s = residual + dropout(x)   (in place of x),   y = LN(s)
//! forward             y = dropout(LN(x))
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

use crate::kernel::{Arg, Cost, File, Kernel, PLAIN, Source};
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

/// `y = dropout(LN(x))`.
pub static FORWARD: Kernel = Kernel {
    name: "layer_norm.forward",
    args: &[
        Arg::input("x", ["rows", "width"]),
        Arg::input("gamma", ["1", "width"]),
        Arg::input("beta", ["1", "width"]),
        Arg::output("y", ["rows", "width"]),
        Arg::output("stats", ["rows", "two"]),
    ],
    constants: &[
        "rows",
        "rows.count",
        "rows.start",
        "width",
        "epsilon",
        "threshold",
        "keep_scale",
        "op",
    ],
    cuda: Some(Source::new(CUDA, "layer_norm_forward")),
    wgsl: Some(Source::new(WGSL, "layer_norm_forward")),
    cpu: cpu::forward,
    grid: |dims, _| [dims.size("rows") as u32, 1, 1],
    cost: |sizes| {
        let elements = sizes.get("rows") * sizes.get("width");
        Cost {
            flops: 8 * elements,
            read: 4 * elements,
            written: 4 * elements,
        }
    },
    variants: PLAIN,
};

/// `sum = residual + dropout(sum)`, `y = LN(sum)`.
pub static RESIDUAL_FORWARD: Kernel = Kernel {
    name: "layer_norm.residual_forward",
    args: &[
        Arg::inout("sum", ["rows", "width"]),
        Arg::input("residual", ["rows", "width"]),
        Arg::input("gamma", ["1", "width"]),
        Arg::input("beta", ["1", "width"]),
        Arg::output("y", ["rows", "width"]),
        Arg::output("stats", ["rows", "two"]),
    ],
    constants: &[
        "rows",
        "rows.count",
        "rows.start",
        "width",
        "epsilon",
        "threshold",
        "keep_scale",
        "op",
    ],
    cuda: Some(Source::new(CUDA, "layer_norm_residual_forward")),
    wgsl: Some(Source::new(WGSL, "layer_norm_residual_forward")),
    cpu: cpu::residual_forward,
    grid: |dims, _| [dims.size("rows") as u32, 1, 1],
    cost: |sizes| {
        let elements = sizes.get("rows") * sizes.get("width");
        Cost {
            flops: 10 * elements,
            read: 8 * elements,
            written: 8 * elements,
        }
    },
    variants: PLAIN,
};

/// `dx (+)= LN'(dropout'(dy))` and the partial column sums.
pub static BACKWARD: Kernel = Kernel {
    name: "layer_norm.backward",
    args: &[
        Arg::input("dy", ["rows", "width"]),
        Arg::input("x", ["rows", "width"]),
        Arg::input("stats", ["rows", "two"]),
        Arg::input("gamma", ["1", "width"]),
        Arg::inout("dx", ["rows", "width"]),
        Arg::output("dgamma_partials", ["blocks", "width"]),
        Arg::output("dbeta_partials", ["blocks", "width"]),
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
    cuda: Some(Source::new(CUDA, "layer_norm_backward")),
    wgsl: Some(Source::new(WGSL, "layer_norm_backward")),
    cpu: cpu::backward,
    grid: |dims, _| [dims.size("blocks") as u32, 1, 1],
    cost: |sizes| {
        let elements = sizes.get("rows") * sizes.get("width");
        Cost {
            flops: 14 * elements,
            read: 8 * elements,
            written: 4 * elements,
        }
    },
    variants: PLAIN,
};

/// `dresidual (+)= ds`, `dx = dropout'(ds)` and the partial column sums.
pub static RESIDUAL_BACKWARD: Kernel = Kernel {
    name: "layer_norm.residual_backward",
    args: &[
        Arg::input("dy", ["rows", "width"]),
        Arg::input("sum", ["rows", "width"]),
        Arg::input("stats", ["rows", "two"]),
        Arg::input("gamma", ["1", "width"]),
        Arg::inout("dresidual", ["rows", "width"]),
        Arg::output("dx", ["rows", "width"]),
        Arg::output("dgamma_partials", ["blocks", "width"]),
        Arg::output("dbeta_partials", ["blocks", "width"]),
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
    cuda: Some(Source::new(CUDA, "layer_norm_residual_backward")),
    wgsl: Some(Source::new(WGSL, "layer_norm_residual_backward")),
    cpu: cpu::residual_backward,
    grid: |dims, _| [dims.size("blocks") as u32, 1, 1],
    cost: |sizes| {
        let elements = sizes.get("rows") * sizes.get("width");
        Cost {
            flops: 15 * elements,
            read: 8 * elements,
            written: 8 * elements,
        }
    },
    variants: PLAIN,
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

/// `dropout(LN(x))`.
///
/// # Errors
/// Shape mismatches, with the scope.
pub fn layer_norm(r: &mut Recorder, x: Value, norm: Norm, dropout: f32) -> Result<Value, PlanError> {
    let rate = Rate {
        probability: dropout,
        op: r.op_id(),
    };
    let info = r.info(x).clone();
    let (y, stats) = (
        r.value("layer_norm", info.rows, info.width),
        r.value("stats", info.rows, 2),
    );
    r.launch(&FORWARD, &[x, norm.gamma, norm.beta, y, stats], &norm.constants(rate))?;
    r.backward(&[y], move |r| {
        let Some(dy) = r.incoming(y) else { return Ok(()) };
        let Some(dx) = r.outgoing(x)? else {
            return Err(r.unsupported("layer_norm needs a gradient of its input".to_string()));
        };
        let blocks = bias_grad::blocks(info.rows);
        let dgamma = r.value("dgamma partials", blocks, info.width);
        let dbeta = r.value("dbeta partials", blocks, info.width);
        let [threshold, scale, op] = rate.constants();
        let constants = [threshold, scale, op, ("accumulate_dx", dx.flag())];
        r.launch(
            &BACKWARD,
            &[dy, x, stats, norm.gamma, dx.value, dgamma, dbeta],
            &constants,
        )?;
        bias_grad::record_finish(r, dgamma, norm.gamma)?;
        bias_grad::record_finish(r, dbeta, norm.beta)
    });
    Ok(y)
}

/// `LN(residual + dropout(x))`. `x` is overwritten by the sum: it must be the output of an op whose backward does not
/// read it, and be used nowhere else.
///
/// # Errors
/// Shape mismatches, with the scope.
pub fn residual_layer_norm(
    r: &mut Recorder,
    x: Value,
    residual: Value,
    norm: Norm,
    dropout: f32,
) -> Result<Value, PlanError> {
    let rate = Rate {
        probability: dropout,
        op: r.op_id(),
    };
    let info = r.info(x).clone();
    let (y, stats) = (
        r.value("layer_norm", info.rows, info.width),
        r.value("stats", info.rows, 2),
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
        let blocks = bias_grad::blocks(info.rows);
        let dgamma = r.value("dgamma partials", blocks, info.width);
        let dbeta = r.value("dbeta partials", blocks, info.width);
        let [threshold, scale, op] = rate.constants();
        let constants = [threshold, scale, op, ("accumulate_dresidual", dresidual.flag())];
        let values = [dy, x, stats, norm.gamma, dresidual.value, dx.value, dgamma, dbeta];
        r.launch(&RESIDUAL_BACKWARD, &values, &constants)?;
        bias_grad::record_finish(r, dgamma, norm.gamma)?;
        bias_grad::record_finish(r, dbeta, norm.beta)
    });
    Ok(y)
}

/// Rows that one block of the backward reduces.
pub const BLOCK_ROWS: usize = ROWS;
