//! Attention on the CPU: one task per sequence, heads in turn, scores of one head in L2.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::stride;
use crate::device::cpu::{LANES, vectorised};
use crate::kernel::{Call, Dims};
use crate::ops::dropout::{Dropout, GROUP};
use crate::ops::gemm;
use crate::ops::gemm::cpu::{Epilogue, Operand, Product, multiply_here};
use crate::ops::math::{exp, tree};

/// Rows of one task of `delta`.
const BLOCK_ROWS: usize = 64;

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Takes the calling thread's working memory for sequences up to `max_length`.
pub fn reserve(dims: &Dims) {
    let stride = stride(dims.word("max_length") as usize);
    SCRATCH.with_borrow_mut(|scratch| scratch.resize(scratch.len().max(scratch_words(stride)), 0.0));
    let side = stride.max(dims.word("head_size") as usize);
    gemm::cpu::reserve(side, side, side);
}

/// Two score matrices of the longest sequence.
fn scratch_words(stride: usize) -> usize {
    2 * stride * stride.next_multiple_of(LANES)
}

/// What all sequences of a launch share.
struct Shared<'a> {
    qkv: &'a [f32],
    cu_seqlens: &'a [u32],
    h: usize,
    heads: usize,
    d: usize,
    stride: usize,
    dropout: Dropout,
}

impl<'a> Shared<'a> {
    fn new(call: &Call<'a>) -> Shared<'a> {
        let dims = call.dims();
        Shared {
            qkv: call.f32(0),
            cu_seqlens: call.u32(1),
            h: dims.size("h"),
            heads: dims.word("heads") as usize,
            d: dims.word("head_size") as usize,
            stride: stride(dims.word("max_length") as usize),
            dropout: Dropout::new(dims, call.step()),
        }
    }

    fn row(&self, sequence: usize) -> usize {
        self.cu_seqlens[sequence] as usize
    }

    /// 1 / sqrt(d)
    fn scale(&self) -> f32 {
        1.0 / (self.d as f32).sqrt()
    }

    /// A head's rows of `part` (0: q, 1: k, 2: v) of a sequence that begins at `row`, as the left operand (rows, d).
    fn left(&self, row: usize, part: usize, head: usize) -> Operand<'a> {
        let start = row * 3 * self.h + part * self.h + head * self.d;
        Operand {
            data: &self.qkv[start..],
            outer: 3 * self.h,
            inner: 1,
        }
    }

    fn right(&self, row: usize, part: usize, head: usize) -> Operand<'a> {
        let Operand { data, outer, inner } = self.left(row, part, head);
        Operand {
            data,
            outer: inner,
            inner: outer,
        }
    }
}

/// A product of one head: `C (=) A B`.
fn product<'a>(m: usize, n: usize, k: usize, a: Operand<'a>, b: Operand<'a>, ldc: usize) -> Product<'a> {
    Product {
        m,
        n,
        k,
        a,
        b,
        ldc,
        accumulate: false,
        epilogue: Epilogue::None,
    }
}

/// Calls `each` for every sequence with its rows of two outputs, in parallel.
fn sequences<F>(shared: &Shared, range: Range<usize>, a: &mut [f32], b: &mut [f32], widths: [usize; 2], each: &F)
where
    F: Fn(usize, &mut [f32], &mut [f32]) + Sync,
{
    match range.len() {
        0 => {}
        1 => each(range.start, a, b),
        len => {
            let middle = range.start + len / 2;
            let rows = shared.row(middle) - shared.row(range.start);
            let (a0, a1) = a.split_at_mut(rows * widths[0]);
            let (b0, b1) = b.split_at_mut(rows * widths[1]);
            rayon::join(
                || sequences(shared, range.start..middle, a0, b0, widths, each),
                || sequences(shared, middle..range.end, a1, b1, widths, each),
            );
        }
    }
}

pub(super) fn forward(call: &Call) {
    let shared = Shared::new(call);
    let widths = [shared.h, shared.heads];
    let (out, lse) = (call.f32_mut(2), call.f32_mut(3));
    sequences(
        &shared,
        0..call.live("offsets"),
        out,
        lse,
        widths,
        &|sequence, out, lse| {
            let start = shared.row(sequence);
            let len = shared.row(sequence + 1) - start;
            let ld = len.next_multiple_of(LANES);
            SCRATCH.with_borrow_mut(|scratch| {
                scratch.resize(scratch.len().max(scratch_words(shared.stride)), 0.0);
                let scores = &mut scratch[..len * ld];
                for head in 0..shared.heads {
                    let (q, k) = (shared.left(start, 0, head), shared.left(start, 1, head));
                    multiply_here(&product(len, len, shared.d, q, k, ld), scores);
                    vectorised(
                        #[inline(always)]
                        || softmax(&shared, start, head, len, scores, lse),
                    );
                    let p = Operand {
                        data: scores,
                        outer: ld,
                        inner: 1,
                    };
                    let v = shared.right(start, 2, head);
                    multiply_here(
                        &product(len, shared.d, len, p, v, shared.h),
                        out.get_mut(head * shared.d..).unwrap_or_default(),
                    );
                }
            });
        },
    );
}

/// Scores to dropped-out probabilities in place, and their log-sum-exp.
#[inline(always)]
fn softmax(shared: &Shared, start: usize, head: usize, len: usize, scores: &mut [f32], lse: &mut [f32]) {
    let scale = shared.scale();
    let ld = len.next_multiple_of(LANES);
    for (row, line) in scores.chunks_exact_mut(ld.max(1)).enumerate() {
        line[len..].fill(f32::NEG_INFINITY);
        let (groups, _) = line.as_chunks_mut::<LANES>();
        let mut most = [f32::NEG_INFINITY; LANES];
        for group in groups.iter() {
            for (most, x) in most.iter_mut().zip(group) {
                *most = if *x > *most { *x } else { *most };
            }
        }
        let most = tree(most, |a, b| if b > a { b } else { a });
        let mut sums = [0.0f32; LANES];
        for group in groups.iter_mut() {
            for (sum, x) in sums.iter_mut().zip(group) {
                *x = exp((*x - most) * scale);
                *sum += *x;
            }
        }
        let sum = tree(sums, |a, b| a + b);
        lse[row * shared.heads + head] = most * scale + libm::logf(sum);
        let normaliser = 1.0 / sum;
        for x in line.iter_mut() {
            *x *= normaliser;
        }
        let element = ((start + row) * shared.heads + head) * shared.stride;
        shared.dropout.apply(element, line);
    }
}

pub(super) fn delta(call: &Call) {
    let (rows, h) = (call.live("tokens"), call.dims().size("h"));
    let (heads, d) = (call.dims().size("heads"), call.dims().word("head_size") as usize);
    let (out, dout) = (&call.f32(0)[..rows * h], &call.f32(1)[..rows * h]);
    call.f32_mut(2)[..rows * heads]
        .par_chunks_mut(BLOCK_ROWS * heads)
        .zip(out.par_chunks(BLOCK_ROWS * h))
        .zip(dout.par_chunks(BLOCK_ROWS * h))
        .for_each(|((delta, out), dout)| {
            vectorised(
                #[inline(always)]
                || deltas(d, out, dout, delta),
            );
        });
}

pub(super) fn backward(call: &Call) {
    let shared = Shared::new(call);
    let (lse, dout, delta) = (call.f32(2), call.f32(3), call.f32(4));
    let dqkv = call.f32_mut(5);
    sequences(
        &shared,
        0..call.live("offsets"),
        dqkv,
        &mut [],
        [3 * shared.h, 0],
        &|sequence, dqkv, _| {
            let start = shared.row(sequence);
            let len = shared.row(sequence + 1) - start;
            let rows = start * shared.h..(start + len) * shared.h;
            let heads = start * shared.heads..(start + len) * shared.heads;
            let (lse, delta) = (&lse[heads.clone()], &delta[heads]);
            let ld = len.next_multiple_of(LANES);
            SCRATCH.with_borrow_mut(|scratch| {
                scratch.resize(scratch.len().max(scratch_words(shared.stride)), 0.0);
                let (p, ds) = scratch[..2 * len * ld].split_at_mut(len * ld);
                for head in 0..shared.heads {
                    let dout = Operand {
                        data: dout.get(rows.start + head * shared.d..).unwrap_or_default(),
                        outer: shared.h,
                        inner: 1,
                    };
                    let (q, k) = (shared.left(start, 0, head), shared.left(start, 1, head));
                    multiply_here(&product(len, len, shared.d, q, k, ld), p);
                    multiply_here(&product(len, len, shared.d, dout, shared.left(start, 2, head), ld), ds);
                    vectorised(
                        #[inline(always)]
                        || score_gradients(&shared, start, head, len, p, ds, lse, delta),
                    );
                    let (p, ds) = (&*p, &*ds);
                    let mut write = |part: usize, a: Operand, b: Operand| {
                        let c = dqkv.get_mut(part * shared.h + head * shared.d..).unwrap_or_default();
                        multiply_here(&product(len, shared.d, len, a, b, 3 * shared.h), c);
                    };
                    write(
                        0,
                        Operand {
                            data: ds,
                            outer: ld,
                            inner: 1,
                        },
                        shared.right(start, 1, head),
                    );
                    write(
                        1,
                        Operand {
                            data: ds,
                            outer: 1,
                            inner: ld,
                        },
                        shared.right(start, 0, head),
                    );
                    let dout = Operand {
                        data: dout.data,
                        outer: 1,
                        inner: shared.h,
                    };
                    write(
                        2,
                        Operand {
                            data: p,
                            outer: 1,
                            inner: ld,
                        },
                        dout,
                    );
                }
            });
        },
    );
}

/// `delta[row, head] = sum over d of dout out`.
#[inline(always)]
fn deltas(d: usize, out: &[f32], dout: &[f32], delta: &mut [f32]) {
    for ((delta, out), dout) in delta.iter_mut().zip(out.chunks_exact(d)).zip(dout.chunks_exact(d)) {
        let mut sums = [0.0f32; LANES];
        let ((out, out_rest), (dout, dout_rest)) = (out.as_chunks::<LANES>(), dout.as_chunks::<LANES>());
        for (out, dout) in out.iter().zip(dout) {
            for ((sum, out), dout) in sums.iter_mut().zip(out).zip(dout) {
                *sum += out * dout;
            }
        }
        for ((sum, out), dout) in sums.iter_mut().zip(out_rest).zip(dout_rest) {
            *sum += out * dout;
        }
        *delta = tree(sums, |a, b| a + b);
    }
}

/// In: `p` = q k^T, `ds` = dout v^T. Out: `p` = dropout(P), `ds` = dS.
#[expect(clippy::too_many_arguments, reason = "one head's operands, all of the same kind")]
#[inline(always)]
fn score_gradients(
    shared: &Shared,
    start: usize,
    head: usize,
    len: usize,
    p: &mut [f32],
    ds: &mut [f32],
    lse: &[f32],
    delta: &[f32],
) {
    let scale = shared.scale();
    let ld = len.next_multiple_of(LANES).max(1);
    let mut factors = [1.0f32; GROUP];
    for (row, (p, ds)) in p.chunks_exact_mut(ld).zip(ds.chunks_exact_mut(ld)).enumerate() {
        let (lse, delta) = (lse[row * shared.heads + head], delta[row * shared.heads + head]);
        let element = ((start + row) * shared.heads + head) * shared.stride;
        for (group, (p, ds)) in p.chunks_mut(GROUP).zip(ds.chunks_mut(GROUP)).enumerate() {
            if shared.dropout.active() {
                shared.dropout.factors(element + group * GROUP, &mut factors);
            }
            for ((p, ds), factor) in p.iter_mut().zip(ds).zip(&factors) {
                let probability = exp(p.mul_add(scale, -lse));
                *p = probability * factor;
                *ds = probability * (*ds * factor - delta) * scale;
            }
        }
    }
}
