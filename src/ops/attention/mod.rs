//! Self-attention over packed sequences of different lengths (FlashAttention-2's equations, Dao 2023).
//!
//! ```text
//! qkv [tokens, 3 h] = q | k | v, each [tokens, heads x d];  sequence s owns rows cu_seqlens[s] .. cu_seqlens[s + 1]
//!
//! forward    S = q k^T / sqrt(d)      P = softmax(S)      out = dropout(P) v      lse = log sum exp S     per head
//! backward   P = exp(S - lse)         dP = dropout'(dout v^T)                     delta = sum(dout out)   over d
//!            dv = dropout(P)^T dout   dS = P (dP - delta) / sqrt(d)    dq = dS k    dk = dS^T q
//! ```
//!
//! P is never stored between the passes: `lse [tokens, heads]` is enough to make it again, and the dropout mask comes from
//! its counter, element `(row heads + head) stride + key` with `stride` the longest length rounded up to 4. No
//! token attends outside its sequence, so no padding exists anywhere. The backward writes each gradient once: no atomics.

mod cpu;
mod reference;

use crate::kernel::{Arg, Cost, Dims, File, Grid, Kernel, Sizes, Source, Variant, workgroups};
use crate::ops::dropout::Rate;
use crate::plan::{PlanError, Recorder, Value};

pub use reference::cases;

/// All kernels of the room.
pub static KERNELS: &[&Kernel] = &[&FORWARD, &DELTA, &BACKWARD];

const WGSL: File = File {
    name: "shaders/attention.wgsl",
    text: include_str!("../../../shaders/attention.wgsl"),
};

const CUDA: File = File {
    name: "kernels/attention.cu",
    text: include_str!("../../../kernels/attention.cu"),
};

const CUDA_HALF: File = File {
    name: "kernels/attention_half.cu",
    text: include_str!("../../../kernels/attention_half.cu"),
};

const CUDA_DELTA: File = File {
    name: "kernels/attention_delta.cu",
    text: include_str!("../../../kernels/attention_delta.cu"),
};

/// Columns of a head that a thread owns and rows that stream at a time. 16 columns of two tensors for four rows are 128
/// registers: the more columns, the less often a score's parts pass through workgroup memory.
const FORWARD_TILES: &[Variant] = &[Variant::new("plain", 64, &[("COLUMNS", 16), ("BLOCK", 8)])];

/// The backward keeps up to four tensors in as many registers.
const BACKWARD_TILES: &[Variant] = &[Variant::new("plain", 64, &[("COLUMNS", 8), ("BLOCK", 8)])];

/// On tensor cores a warp has 16 rows.
const CUDA_HALF_ROWS: &[Variant] = &[Variant::new("64 rows", 128, &[]), Variant::new("128 rows", 256, &[])];

const fn cuda(half: &'static Source) -> Option<Source> {
    Some(
        Source::new(CUDA, half.entries)
            .with_variants(BACKWARD_TILES)
            .with_compiled(&["head_size"])
            .with_half(half),
    )
}

const fn cuda_half(entries: &'static [&'static str], shared: fn(&Dims, &Variant) -> u32) -> Source {
    Source::new(CUDA_HALF, entries)
        .with_variants(CUDA_HALF_ROWS)
        .with_compiled(&["head_size"])
        .with_grid(half_grid)
        .with_shared(shared)
}

/// Rows of a block on tensor cores.
fn half_rows(variant: &Variant) -> u32 {
    variant.threads / 2
}

/// Rows that stream past it at a time.
fn half_block(dims: &Dims) -> u32 {
    if dims.word("head_size") <= 64 { 64 } else { 32 }
}

fn half_grid(dims: &Dims, variant: &Variant) -> Grid {
    [
        dims.word("max_length").div_ceil(half_rows(variant)),
        dims.word("heads"),
        dims.size("offsets") as u32 - 1,
    ]
}

/// Bytes of a head's row in shared memory: a multiple of 16 columns, and a chunk of 16 bytes more where that spreads rows over
/// the banks (`Tile` in `kernels/common/tile.cuh`).
fn half_line(dims: &Dims) -> u32 {
    let chunks = 2 * dims.word("head_size").div_ceil(16);
    let spread = chunks == 4 || chunks.is_multiple_of(8);
    16 * (chunks + u32::from(!spread))
}

/// Two stages of two blocks, or the block's own rows on their way to registers.
fn forward_shared(dims: &Dims, variant: &Variant) -> u32 {
    half_line(dims) * half_rows(variant).max(4 * half_block(dims))
}

/// The same where dq is made; two tensors of the block's own rows and stages of two streamed blocks, lse and delta where dk
/// and dv are.
fn backward_shared(dims: &Dims, variant: &Variant) -> u32 {
    let stages = if dims.word("head_size") <= 64 { 2 } else { 1 };
    let block = half_block(dims);
    let keys = half_line(dims) * (2 * half_rows(variant) + stages * 2 * block) + stages * block * 8;
    forward_shared(dims, variant).max(keys)
}

/// What the GPU kernels read; `head_size` is compiled in.
const CONSTANTS: &[&str] = &["h", "heads", "max_length", "threshold", "keep_scale", "op"];

/// FLOPs of `products` products of `[len, len, d]` per sequence and head, and `others` a score; bytes of
/// the tensors, in units of `[tokens, h]` and, for lse and delta, of `[tokens, heads]`.
fn cost(sizes: &Sizes, [products, others]: [u64; 2], read: [u64; 2], written: [u64; 2]) -> Cost {
    let (heads, d) = (sizes.word("heads"), sizes.word("head_size"));
    let pairs = sizes.squared_lengths(sizes.word("max_length")) * heads;
    let stored = sizes.stored_bytes();
    let bytes = |[wide, narrow]: [u64; 2]| sizes.get("tokens") * heads * (stored * d * wide + 4 * narrow);
    Cost {
        flops: pairs * (2 * d * products + others),
        read: bytes(read),
        written: bytes(written),
    }
}

/// Blocks of rows of every head of every sequence. Each team of a workgroup has four rows, and enough threads for the
/// head's columns.
fn grid(dims: &Dims, variant: &Variant) -> Grid {
    let team = dims.word("head_size").div_ceil(variant.define("COLUMNS")).max(4);
    let teams = (variant.threads / team).max(1);
    [
        dims.word("max_length").div_ceil(4 * teams),
        dims.word("heads"),
        dims.size("offsets") as u32 - 1,
    ]
}

/// `out = dropout(softmax(q k^T / sqrt(d))) v`.
pub static FORWARD: Kernel = Kernel {
    name: "attention.forward",
    args: &[
        Arg::input("qkv", ["tokens", "three_h"]),
        Arg::index("cu_seqlens", ["offsets", "1"]),
        Arg::output("out", ["tokens", "h"]),
        Arg::output("lse", ["tokens", "heads"]).f32(),
    ],
    constants: CONSTANTS,
    cuda: cuda(&cuda_half(&["attention_forward"], forward_shared)),
    wgsl: Some(
        Source::new(WGSL, &["attention_forward"])
            .with_variants(FORWARD_TILES)
            .with_compiled(&["head_size"]),
    ),
    cpu: cpu::forward,
    reserve: Some(cpu::reserve),
    grid,
    // Scale, maximum subtracted, exponential, sum, quotient, dropout.
    cost: |sizes| cost(sizes, [2, 6], [3, 0], [1, 1]),
};

/// `delta = sum over d of dout out`, per token and head. A launch of its own: the next one reads it wherever a block of
/// queries or keys needs it.
pub static DELTA: Kernel = Kernel {
    name: "attention.delta",
    args: &[
        Arg::input("out", ["tokens", "h"]),
        Arg::input("dout", ["tokens", "h"]),
        Arg::output("delta", ["tokens", "heads"]).f32(),
    ],
    constants: &["tokens", "tokens.count", "tokens.start", "h", "heads"],
    cuda: Some(
        Source::new(CUDA_DELTA, &["attention_delta"])
            .with_compiled(&["head_size"])
            .with_grid(|dims, _| workgroups((dims.size("tokens") * dims.size("heads")).div_ceil(32))),
    ),
    wgsl: Some(
        Source::new(WGSL, &["attention_delta"])
            .with_variants(BACKWARD_TILES)
            .with_compiled(&["head_size"]),
    ),
    cpu: cpu::delta,
    reserve: None,
    grid: |dims, variant| {
        let tokens = dims.size("tokens") as u32;
        [tokens.div_ceil(variant.threads), dims.size("heads") as u32, 1]
    },
    cost: |sizes| {
        let (elements, rows) = (sizes.get("tokens") * sizes.get("h"), sizes.get("tokens"));
        Cost {
            flops: 2 * elements,
            read: 2 * sizes.stored_bytes() * elements,
            written: 4 * rows * sizes.get("heads"),
        }
    },
};

/// `dqkv` from `dout`.
pub static BACKWARD: Kernel = Kernel {
    name: "attention.backward",
    args: &[
        Arg::input("qkv", ["tokens", "three_h"]),
        Arg::index("cu_seqlens", ["offsets", "1"]),
        Arg::input("lse", ["tokens", "heads"]).f32(),
        Arg::input("dout", ["tokens", "h"]),
        Arg::input("delta", ["tokens", "heads"]).f32(),
        Arg::output("dqkv", ["tokens", "three_h"]),
    ],
    constants: CONSTANTS,
    cuda: cuda(&cuda_half(
        &["attention_backward_queries", "attention_backward_keys"],
        backward_shared,
    )),
    wgsl: Some(
        Source::new(WGSL, &["attention_backward_queries", "attention_backward_keys"])
            .with_variants(BACKWARD_TILES)
            .with_compiled(&["head_size"]),
    ),
    cpu: cpu::backward,
    reserve: Some(cpu::reserve),
    grid,
    // Scores and probabilities once more (4), dropout of dP, ds in three.
    cost: |sizes| cost(sizes, [5, 8], [4, 2], [3, 0]),
};

/// Sizes of an attention op.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Heads.
    pub heads: u32,
    /// Longest sequence.
    pub max_length: u32,
    /// Dropout on the attention probabilities.
    pub dropout: f32,
}

/// Elements between two rows of the dropout counter.
fn stride(max_length: usize) -> usize {
    max_length.next_multiple_of(4)
}

/// Multi-head self-attention: `qkv [tokens, 3 h]`, `cu_seqlens [sequences + 1, 1]` to `[tokens, h]`.
///
/// # Errors
/// Shape mismatches; a width that is not a multiple of the heads; no offsets; sizes whose dropout counter passes 2^32.
pub fn attention(r: &mut Recorder, qkv: Value, cu_seqlens: Value, shape: Attention) -> Result<Value, PlanError> {
    let Attention {
        heads,
        max_length,
        dropout,
    } = shape;
    let info = r.info(qkv).clone();
    let h = info.width / 3;
    if heads == 0 || h == 0 || info.width != 3 * h || !h.is_multiple_of(heads) {
        return Err(r.unsupported(format!(
            "attention needs 3 x heads x head size columns, got {} for {heads} heads",
            info.width
        )));
    }
    if r.info(cu_seqlens).rows.capacity == 0 {
        return Err(r.unsupported("attention needs the offset at which the last sequence ends".to_string()));
    }
    let elements = u64::from(info.rows.capacity) * u64::from(heads) * stride(max_length as usize) as u64;
    if elements > u64::from(u32::MAX) {
        let what = format!("{elements} attention probabilities exceed the dropout counter; use a smaller batch");
        return Err(r.unsupported(what));
    }
    let rate = Rate {
        probability: dropout,
        op: r.op_id(),
    };
    let [threshold, scale, op] = rate.constants();
    let constants = [
        ("heads", heads),
        ("head_size", h / heads),
        ("max_length", max_length),
        threshold,
        scale,
        op,
    ];
    let (out, lse) = (r.value("attention", info.rows, h), r.exact("lse", info.rows, heads));
    r.launch(&FORWARD, &[qkv, cu_seqlens, out, lse], &constants)?;
    r.backward(&[out], move |r| {
        let Some(dout) = r.incoming(out) else { return Ok(()) };
        let Some(dqkv) = r.outgoing(qkv)? else { return Ok(()) };
        if dqkv.accumulate {
            return Err(r.unsupported("the input of attention is used by another op as well".to_string()));
        }
        let delta = r.exact("delta", info.rows, heads);
        r.launch(&DELTA, &[out, dout, delta], &[("head_size", h / heads)])?;
        let values = [qkv, cu_seqlens, lse, dout, delta, dqkv.value];
        r.launch(&BACKWARD, &values, &constants)
    });
    Ok(out)
}
