//! BERT's input embedding: word + position + segment. LayerNorm and dropout follow
//! ([`layer_norm`](super::layer_norm::layer_norm)).
//!
//! ```text
//! forward             y [tokens, width]            = word[id] + position[p] + segment[0]
//! word_backward       dword[bucket_ids[b]]        += sum of dy[sorted_rows[j]], j in bucket b
//! position_backward   dposition[p]               (+)= sum over sequences longer than p of dy[cu_seqlens[s] + p]
//! ```
//!
//! No atomics: the packer sorts the batch's rows stably by token id, so that each row of the word table has one owner, and
//! a sum's order is that of the batch. A gradient of the word table that nothing has written yet (no language model
//! head is tied to it) is zeroed first. The segment's gradient is a column sum ([`bias_grad`]).

mod cpu;
mod reference;

use crate::kernel::{Arg, Cost, File, Kernel, Source, workgroups};
use crate::ops::{bias_grad, fill};
use crate::plan::{PlanError, Recorder, Value};

pub use reference::cases;

const WGSL: File = File {
    name: "shaders/embedding.wgsl",
    text: include_str!("../../../shaders/embedding.wgsl"),
};

const CUDA: File = File {
    name: "kernels/embedding.cu",
    text: include_str!("../../../kernels/embedding.cu"),
};

/// `y = word[id] + position[p] + segment[0]`.
pub static FORWARD: Kernel = Kernel {
    name: "embedding.forward",
    args: &[
        Arg::index("ids", ["tokens", "1"]),
        Arg::index("positions", ["tokens", "1"]),
        Arg::input("word", ["vocabulary", "width"]).f32(),
        Arg::input("position", ["longest", "width"]).f32(),
        Arg::input("segment", ["segments", "width"]).f32(),
        Arg::output("y", ["tokens", "width"]),
    ],
    constants: &["tokens", "tokens.count", "tokens.start", "width"],
    cuda: Some(
        Source::new(CUDA, &["embedding_forward"]).with_grid(|dims, _| workgroups(dims.size("tokens").div_ceil(8))),
    ),
    wgsl: Some(Source::new(WGSL, &["embedding_forward"])),
    cpu: cpu::forward,
    reserve: None,
    grid: |dims, _| workgroups(dims.size("tokens")),
    cost: |sizes| {
        let (tokens, width) = (sizes.get("tokens"), sizes.get("width"));
        Cost {
            flops: 2 * tokens * width,
            read: 4 * (2 * tokens * width + width + 2 * tokens),
            written: sizes.stored_bytes() * tokens * width,
        }
    },
};

/// `dword[id] += sum of dy over the rows of the id's bucket`.
pub static WORD_BACKWARD: Kernel = Kernel {
    name: "embedding.word_backward",
    args: &[
        Arg::input("dy", ["tokens", "width"]),
        Arg::index("sorted_rows", ["tokens", "1"]),
        Arg::index("bucket_ids", ["buckets", "1"]),
        Arg::index("bucket_offsets", ["bounds", "1"]),
        Arg::inout("dword", ["vocabulary", "width"]).f32(),
    ],
    constants: &["buckets", "buckets.count", "buckets.start", "width"],
    cuda: Some(Source::new(CUDA, &["embedding_word_backward"])),
    wgsl: Some(Source::new(WGSL, &["embedding_word_backward"])),
    cpu: cpu::word_backward,
    reserve: None,
    grid: |dims, _| workgroups(dims.size("buckets")),
    cost: |sizes| {
        let (tokens, buckets, width) = (sizes.get("tokens"), sizes.get("buckets"), sizes.get("width"));
        Cost {
            flops: tokens * width,
            read: sizes.stored_bytes() * tokens * width + 4 * (buckets * width + tokens + 2 * buckets),
            written: 4 * buckets * width,
        }
    },
};

/// `dposition[p] (+)= sum over sequences longer than p`; every row of the table is written. The live sequences are those
/// of the step parameters.
pub static POSITION_BACKWARD: Kernel = Kernel {
    name: "embedding.position_backward",
    args: &[
        Arg::input("dy", ["tokens", "width"]),
        Arg::index("cu_seqlens", ["bounds", "1"]),
        Arg::inout("dposition", ["longest", "width"]).f32(),
    ],
    constants: &["width", "bounds", "accumulate_dposition"],
    cuda: Some(Source::new(CUDA, &["embedding_position_backward"])),
    wgsl: Some(Source::new(WGSL, &["embedding_position_backward"])),
    cpu: cpu::position_backward,
    reserve: None,
    grid: |dims, _| [dims.size("longest") as u32, 1, 1],
    cost: |sizes| {
        let (tokens, longest, width) = (sizes.get("tokens"), sizes.get("longest"), sizes.get("width"));
        Cost {
            flops: tokens * width,
            read: sizes.stored_bytes() * tokens * width + 4 * sizes.get("bounds"),
            written: 4 * longest * width,
        }
    },
};

/// All kernels of the room.
pub static KERNELS: &[&Kernel] = &[&FORWARD, &WORD_BACKWARD, &POSITION_BACKWARD];

/// The packed batch as the embedding reads it; all u32.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    /// Token ids `[tokens, 1]`, below the vocabulary.
    pub ids: Value,
    /// Positions `[tokens, 1]`: the row's distance from the first row of its sequence.
    pub positions: Value,
    /// First row of each sequence and one past the last row, `[sequences + 1, 1]`.
    pub cu_seqlens: Value,
    /// Rows stably sorted by token id, `[tokens, 1]`.
    pub sorted_rows: Value,
    /// The distinct ids, ascending, `[buckets, 1]`.
    pub bucket_ids: Value,
    /// Bucket `b` owns `sorted_rows[bucket_offsets[b]..bucket_offsets[b + 1]]`, `[buckets + 1, 1]`.
    pub bucket_offsets: Value,
}

/// The three tables of parameters.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    /// `[vocabulary, width]`
    pub word: Value,
    /// `[longest sequence, width]`
    pub position: Value,
    /// `[segments, width]`; only row 0 is used.
    pub segment: Value,
}

/// Sum of the embeddings of every token, `[tokens, width]`.
///
/// # Errors
/// Shape and type mismatches, with the scope.
pub fn embedding(r: &mut Recorder, batch: &Ids, tables: &Tables) -> Result<Value, PlanError> {
    let (batch, tables) = (*batch, *tables);
    let y = r.value("embedding", r.info(batch.ids).rows, r.info(tables.word).width);
    let Tables {
        word,
        position,
        segment,
    } = tables;
    r.launch(&FORWARD, &[batch.ids, batch.positions, word, position, segment, y], &[])?;
    r.backward(&[y], move |r| {
        let Some(dy) = r.incoming(y) else { return Ok(()) };
        if let Some(dword) = r.outgoing(word)? {
            if !dword.accumulate {
                fill::zero(r, dword.value)?;
            }
            let rows = [batch.sorted_rows, batch.bucket_ids, batch.bucket_offsets];
            r.launch(&WORD_BACKWARD, &[dy, rows[0], rows[1], rows[2], dword.value], &[])?;
        }
        if let Some(d) = r.outgoing(position)? {
            let constants = [("accumulate_dposition", d.flag())];
            r.launch(&POSITION_BACKWARD, &[dy, batch.cu_seqlens, d.value], &constants)?;
        }
        segment_backward(r, dy, segment)
    });
    Ok(y)
}

/// Row 0 of the segment table was added to every token; the other rows have a gradient of zero.
fn segment_backward(r: &mut Recorder, dy: Value, segment: Value) -> Result<(), PlanError> {
    let Some(d) = r.outgoing(segment)? else { return Ok(()) };
    if !d.accumulate {
        fill::zero(r, d.value)?;
    }
    let info = r.info(dy).clone();
    let partials = r.exact("partials", bias_grad::blocks(info.rows), info.width);
    r.launch(&bias_grad::PARTIAL, &[dy, partials], &[])?;
    let first = r.view(d.value, 0, 1);
    r.launch(&bias_grad::FINISH, &[partials, first], &[("accumulate_d", 1)])
}
