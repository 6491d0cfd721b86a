//! The masked language model's loss: decoder, softmax and cross entropy of the masked rows, a chunk of rows at a time.
//!
//! ```text
//! z      [rows, V]  = hidden [rows, h] W^T + b              W [V, h] the word embedding, b [1, V]
//! losses [rows, 1]  = log sum_j exp(z_j) - z_label          of every row, unweighted
//!
//! gradients of sum_i weight_i loss_i, emitted at once because the loss is where a backward begins:
//! dz = weight loss_scale (softmax(z) - onehot(label))  (in place of z),  dhidden (+)= dz W,  dW (+)= dz^T hidden,  db (+)= sum dz
//! ```
//!
//! Only one chunk's logits exist at a time: with 30,522 words, 1,024 masked rows at once would take 125 MB, and as much again for
//! their gradient. A chunk beyond the live rows touches nothing, except that the first one starts `dW` and `db`.

mod cpu;
mod reference;

use crate::kernel::{Arg, Cost, File, Kernel, REDUCING, Source, workgroups};
use crate::ops::{bias_grad, gemm};
use crate::plan::{PlanError, Recorder, Value};

pub use reference::cases;
pub(in crate::ops) use reference::cross_entropy;

const WGSL: File = File {
    name: "shaders/masked_cross_entropy.wgsl",
    text: include_str!("../../../shaders/masked_cross_entropy.wgsl"),
};

const CUDA: File = File {
    name: "kernels/masked_cross_entropy.cu",
    text: include_str!("../../../kernels/masked_cross_entropy.cu"),
};

/// `losses` of rows of logits; with the constant `train`, `logits = weight (softmax(logits) - onehot(label))`.
pub static ROWS: Kernel = Kernel {
    name: "masked_cross_entropy.rows",
    args: &[
        Arg::inout("logits", ["rows", "classes"]),
        Arg::index("labels", ["rows", "1"]),
        Arg::input("weights", ["rows", "1"]).f32(),
        Arg::output("losses", ["rows", "1"]).f32(),
    ],
    constants: &["rows", "rows.count", "rows.start", "classes", "train"],
    cuda: Some(Source::new(CUDA, &["masked_cross_entropy_rows"])),
    wgsl: Some(Source::new(WGSL, &["masked_cross_entropy_rows"]).with_variants(REDUCING)),
    cpu: cpu::rows,
    reserve: None,
    grid: |dims, _| workgroups(dims.size("rows")),
    cost: |sizes| {
        let (rows, train) = (sizes.get("rows"), sizes.word("train"));
        let elements = rows * sizes.get("classes");
        Cost {
            flops: 3 * (1 + train) * elements + (3 + train) * rows,
            read: sizes.stored_bytes() * elements + 8 * rows,
            written: sizes.stored_bytes() * train * elements + 4 * rows,
        }
    },
};

/// All kernels of the room.
pub static KERNELS: &[&Kernel] = &[&ROWS];

/// What the loss of the masked rows is made of.
#[derive(Clone, Copy, Debug)]
pub struct Masked {
    /// Rows after the head's transform, `[masked, h]`.
    pub hidden: Value,
    /// Decoder: the word embedding `[V, h]` and the decoder's own bias `[1, V]`.
    pub decoder: gemm::Layer,
    /// True ids, `[masked, 1]` u32.
    pub labels: Value,
    /// Factor of each row's loss in the objective, `[masked, 1]`.
    pub weights: Value,
}

/// Unweighted losses `[masked, 1]`; with `train`, also all gradients of their weighted sum. At most `chunk_rows` rows
/// of logits exist at a time: a multiple of [`Recorder::view_unit`], so that a chunk's rows begin where every device can
/// bind them, or at least all rows.
///
/// # Errors
/// [`PlanError::Unsupported`] for other chunks and for no rows; shape and type mismatches, with the scope.
pub fn masked_cross_entropy(
    r: &mut Recorder,
    masked: &Masked,
    chunk_rows: u32,
    train: bool,
) -> Result<Value, PlanError> {
    let rows = r.info(masked.hidden).rows;
    let classes = r.info(masked.decoder.weight).rows.capacity;
    let unit = r.view_unit();
    let aligned = chunk_rows.is_multiple_of(unit) && chunk_rows > 0;
    if rows.capacity == 0 || !(aligned || chunk_rows >= rows.capacity) {
        let what = format!(
            "masked_cross_entropy over {} rows in chunks of {chunk_rows}: it needs a row, and chunks of a multiple of \
             {unit} rows or of all",
            rows.capacity
        );
        return Err(r.unsupported(what));
    }
    let gemm::Layer { weight, bias } = masked.decoder;
    let stored = r.stored(weight);
    let losses = r.exact("losses", rows, 1);
    let dhidden = if train { r.outgoing(masked.hidden)? } else { None };
    for start in (0..rows.capacity).step_by(chunk_rows as usize) {
        let count = chunk_rows.min(rows.capacity - start);
        let hidden = r.view(masked.hidden, start, count);
        let logits = r.value("logits", r.info(hidden).rows, classes);
        r.launch(&gemm::FORWARD, &[hidden, stored, bias, logits], &[])?;
        let (labels, weights) = (
            r.view(masked.labels, start, count),
            r.view(masked.weights, start, count),
        );
        let chunk_losses = r.view(losses, start, count);
        let constants = [("train", u32::from(train))];
        r.launch(&ROWS, &[logits, labels, weights, chunk_losses], &constants)?;
        if !train {
            continue;
        }
        if let Some(d) = dhidden {
            let view = r.view(d.value, start, count);
            r.launch(
                &gemm::BACKWARD_INPUT,
                &[logits, stored, view],
                &[("accumulate_dx", d.flag())],
            )?;
        }
        if let Some(d) = r.outgoing(weight)? {
            r.launch(
                &gemm::BACKWARD_WEIGHT,
                &[logits, hidden, d.value],
                &[("accumulate_dw", d.flag())],
            )?;
        }
        bias_grad::record(r, logits, bias)?;
    }
    Ok(losses)
}
