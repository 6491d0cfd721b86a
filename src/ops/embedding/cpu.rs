//! The embedding on the CPU: tasks own blocks of rows of what they write.

use rayon::prelude::*;

use crate::device::cpu::vectorised;
use crate::kernel::Call;

/// Rows of one task.
const BLOCK_ROWS: usize = 64;

pub(super) fn forward(call: &Call) {
    let (tokens, width) = (call.live("tokens"), call.dims().size("width"));
    let (ids, positions) = (&call.u32(0)[..tokens], &call.u32(1)[..tokens]);
    let (word, position, segment) = (call.f32(2), call.f32(3), &call.f32(4)[..width]);
    let y = &mut call.f32_mut(5)[..tokens * width];
    y.par_chunks_mut(BLOCK_ROWS * width)
        .zip(ids.par_chunks(BLOCK_ROWS))
        .zip(positions.par_chunks(BLOCK_ROWS))
        .for_each(|((y, ids), positions)| {
            vectorised(
                #[inline(always)]
                || {
                    for ((y, &id), &at) in y.chunks_exact_mut(width).zip(ids).zip(positions) {
                        let word = &word[id as usize * width..][..width];
                        let position = &position[at as usize * width..][..width];
                        for (((y, word), position), segment) in y.iter_mut().zip(word).zip(position).zip(segment) {
                            *y = word + position + segment;
                        }
                    }
                },
            );
        });
}

pub(super) fn word_backward(call: &Call) {
    let (tokens, buckets, width) = (call.live("tokens"), call.live("buckets"), call.dims().size("width"));
    let (dy, sorted_rows) = (call.f32(0), &call.u32(1)[..tokens]);
    let (ids, offsets) = (&call.u32(2)[..buckets], call.u32(3));
    call.f32_mut(4)
        .par_chunks_mut(BLOCK_ROWS * width)
        .enumerate()
        .for_each(|(block, dword)| {
            let first = block * BLOCK_ROWS;
            let from = ids.partition_point(|&id| (id as usize) < first);
            let to = ids.partition_point(|&id| (id as usize) < first + BLOCK_ROWS);
            vectorised(
                #[inline(always)]
                || {
                    for bucket in from..to {
                        let dword = &mut dword[(ids[bucket] as usize - first) * width..][..width];
                        let rows = offsets[bucket] as usize..offsets[bucket + 1] as usize;
                        for &row in &sorted_rows[rows] {
                            add(dword, &dy[row as usize * width..][..width]);
                        }
                    }
                },
            );
        });
}

pub(super) fn position_backward(call: &Call) {
    let width = call.dims().size("width");
    let (dy, bounds) = (call.f32(0), call.u32(1));
    let bounds = &bounds[..bounds.len().min(call.step().sequences as usize + 1)];
    let accumulate = call.dims().flag("accumulate_dposition");
    call.f32_mut(2)
        .par_chunks_mut(width)
        .enumerate()
        .for_each(|(position, dposition)| {
            vectorised(
                #[inline(always)]
                || {
                    if !accumulate {
                        dposition.fill(0.0);
                    }
                    for sequence in bounds.windows(2) {
                        let row = sequence[0] as usize + position;
                        if row < sequence[1] as usize {
                            add(dposition, &dy[row * width..][..width]);
                        }
                    }
                },
            );
        });
}

#[inline(always)]
fn add(sum: &mut [f32], term: &[f32]) {
    for (sum, term) in sum.iter_mut().zip(term) {
        *sum += term;
    }
}
