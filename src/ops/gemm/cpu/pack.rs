//! Packing: parts of the operands copied into the order in which the tiles read them.

use super::micro::{self, Micro};
use super::{Block, Operand, Product, Slab};

/// Steps of a transposed A that are fetched before they are packed.
const AHEAD: usize = 8;

/// The first `words` words of a thread's scratch memory, which grows if it is too small.
pub(super) fn grown(scratch: &mut Vec<f32>, words: usize) -> &mut [f32] {
    if scratch.len() < words {
        scratch.resize(words, 0.0);
    }
    &mut scratch[..words]
}

/// Panel `panel` of the slab as `[depth][NR]`, columns beyond the matrix zero.
#[inline(always)]
pub(super) fn pack_b<M: Micro>(product: &Product, slab: &Slab, panel: usize, words: &mut [f32]) {
    let Operand { data, outer, inner } = product.b;
    let column = panel * M::NR;
    let live = M::NR.min(slab.columns - column);
    let start = (slab.column + column) * outer + slab.depth * inner;
    if outer == 1 {
        for (depth, row) in words.chunks_exact_mut(M::NR).enumerate() {
            let from = start + depth * inner;
            if live == M::NR {
                row.copy_from_slice(&data[from..from + M::NR]);
            } else {
                row[..live].copy_from_slice(&data[from..from + live]);
                row[live..].fill(0.0);
            }
        }
        return;
    }
    const EDGE: usize = 16; // transposed in squares that stay in registers
    let mut depth = 0;
    while inner == 1 && depth + EDGE <= slab.depths {
        for group in (0..M::NR).step_by(EDGE) {
            let mut square = [[0.0f32; EDGE]; EDGE];
            for (column, row) in square.iter_mut().enumerate().take(live.saturating_sub(group)) {
                let from = start + (group + column) * outer + depth;
                row.copy_from_slice(&data[from..from + EDGE]);
            }
            // SAFETY: `M` was chosen for this processor.
            unsafe { M::transpose(&mut square) };
            for (index, row) in square.iter().enumerate() {
                let to = (depth + index) * M::NR + group;
                words[to..to + EDGE].copy_from_slice(row);
            }
        }
        depth += EDGE;
    }
    for (depth, row) in words.chunks_exact_mut(M::NR).enumerate().skip(depth) {
        for (column, word) in row.iter_mut().enumerate() {
            *word = if column < live {
                data[start + column * outer + depth * inner]
            } else {
                0.0
            };
        }
    }
}

/// `[MC x KC]` of a row-major A, row after row.
#[inline(always)]
pub(super) fn pack_rows(product: &Product, block: &Block, at: usize, depths: usize, scratch: &mut [f32]) {
    for (row, line) in scratch.chunks_exact_mut(depths).take(block.rows).enumerate() {
        let from = (block.row + row) * product.a.outer + at;
        line.copy_from_slice(&product.a.data[from..from + depths]);
    }
}

/// `[MC x KC]` of a transposed A into strips `[depth][MR]`.
#[inline(always)]
pub(super) fn pack_strips<M: Micro>(product: &Product, block: &Block, at: usize, depths: usize, scratch: &mut [f32]) {
    let Operand { data, outer, inner } = product.a;
    for depth in 0..depths {
        let from = (at + depth) * inner + block.row * outer;
        if outer == 1 {
            // Every step begins on another page, where the processor does not look ahead by itself.
            micro::prefetch(data, from + AHEAD * inner, block.rows);
        }
        for strip in 0..block.rows.div_ceil(M::MR) {
            let to = (strip * depths + depth) * M::MR;
            let live = M::MR.min(block.rows - strip * M::MR);
            let from = from + strip * M::MR * outer;
            if outer == 1 && live == M::MR {
                scratch[to..to + M::MR].copy_from_slice(&data[from..from + M::MR]);
            } else {
                for index in 0..live {
                    scratch[to + index] = data[from + index * outer];
                }
            }
        }
    }
}
