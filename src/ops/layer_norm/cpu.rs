//! LayerNorm on the CPU: rows in parallel, each row three passes inside L1.

use rayon::prelude::*;

use super::{BLOCK_ROWS, WIDEST};
use crate::device::cpu::{LANES, vectorised};
use crate::kernel::Call;
use crate::ops::dropout::{Dropout, GROUP};
use crate::ops::math::{sum_of, tree};

pub(super) fn forward(call: &Call) {
    let (rows, width, epsilon) = (
        call.live("rows"),
        call.dims().size("width"),
        call.dims().float("epsilon"),
    );
    let dropout = Dropout::new(call.dims(), call.step());
    let (x, gamma, beta) = (call.f32(0), call.f32(1), call.f32(2));
    let (y, stats) = (&mut call.f32_mut(3)[..rows * width], &mut call.f32_mut(4)[..rows * 2]);
    let blocks = y
        .par_chunks_mut(BLOCK_ROWS * width)
        .zip(stats.par_chunks_mut(BLOCK_ROWS * 2))
        .enumerate();
    blocks.for_each(|(block, (y, stats))| {
        vectorised(
            #[inline(always)]
            || {
                let first = block * BLOCK_ROWS;
                for (row, (y, stats)) in y.chunks_exact_mut(width).zip(stats.chunks_exact_mut(2)).enumerate() {
                    let start = (first + row) * width;
                    let x = &x[start..start + width];
                    let (mean, rstd) = moments(x, epsilon);
                    stats.copy_from_slice(&[mean, rstd]);
                    normalise(x, mean, rstd, gamma, beta, y);
                    dropout.apply(start, y);
                }
            },
        );
    });
}

pub(super) fn residual_forward(call: &Call) {
    let (rows, width, epsilon) = (
        call.live("rows"),
        call.dims().size("width"),
        call.dims().float("epsilon"),
    );
    let dropout = Dropout::new(call.dims(), call.step());
    let (residual, gamma, beta) = (call.f32(1), call.f32(2), call.f32(3));
    let sum = &mut call.f32_mut(0)[..rows * width];
    let (y, stats) = (&mut call.f32_mut(4)[..rows * width], &mut call.f32_mut(5)[..rows * 2]);
    let size = BLOCK_ROWS * width;
    let blocks = sum
        .par_chunks_mut(size)
        .zip(y.par_chunks_mut(size))
        .zip(stats.par_chunks_mut(BLOCK_ROWS * 2));
    blocks.enumerate().for_each(|(block, ((sum, y), stats))| {
        vectorised(
            #[inline(always)]
            || {
                let first = block * BLOCK_ROWS;
                let rows = sum
                    .chunks_exact_mut(width)
                    .zip(y.chunks_exact_mut(width))
                    .zip(stats.chunks_exact_mut(2));
                for (row, ((sum, y), stats)) in rows.enumerate() {
                    let start = (first + row) * width;
                    dropout.apply(start, sum);
                    for (sum, residual) in sum.iter_mut().zip(&residual[start..start + width]) {
                        *sum += residual;
                    }
                    let (mean, rstd) = moments(sum, epsilon);
                    stats.copy_from_slice(&[mean, rstd]);
                    normalise(sum, mean, rstd, gamma, beta, y);
                }
            },
        );
    });
}

pub(super) fn backward(call: &Call) {
    let (rows, width) = (call.live("rows"), call.dims().size("width"));
    let dropout = Dropout::new(call.dims(), call.step());
    let accumulate = call.dims().flag("accumulate_dx");
    let (dy, x, stats, gamma) = (call.f32(0), call.f32(1), call.f32(2), call.f32(3));
    let (dx, dgamma, dbeta) = (call.f32_mut(4), call.f32_mut(5), call.f32_mut(6));
    let partials = dgamma.par_chunks_mut(width).zip(dbeta.par_chunks_mut(width));
    let blocks = dx.par_chunks_mut(BLOCK_ROWS * width).zip(partials).enumerate();
    blocks.for_each(|(block, (dx, (dgamma, dbeta)))| {
        vectorised(
            #[inline(always)]
            || {
                dgamma.fill(0.0);
                dbeta.fill(0.0);
                let first = block * BLOCK_ROWS;
                let live = BLOCK_ROWS.min(rows.saturating_sub(first));
                for (row, dx) in dx.chunks_exact_mut(width).take(live).enumerate() {
                    let row = first + row;
                    let range = row * width..(row + 1) * width;
                    let line = Line {
                        dy: &dy[range.clone()],
                        x: &x[range.clone()],
                        gamma,
                        mean: stats[2 * row],
                        rstd: stats[2 * row + 1],
                    };
                    if dropout.active() {
                        line.with_dropout(&dropout, range.start, accumulate, dx, dgamma, dbeta);
                    } else {
                        line.backward(accumulate, dx, dgamma, dbeta);
                    }
                }
            },
        );
    });
}

pub(super) fn residual_backward(call: &Call) {
    let (rows, width) = (call.live("rows"), call.dims().size("width"));
    let dropout = Dropout::new(call.dims(), call.step());
    let accumulate = call.dims().flag("accumulate_dresidual");
    let (dy, sum, stats, gamma) = (call.f32(0), call.f32(1), call.f32(2), call.f32(3));
    let (dresidual, dx, dgamma, dbeta) = (call.f32_mut(4), call.f32_mut(5), call.f32_mut(6), call.f32_mut(7));
    let size = BLOCK_ROWS * width;
    let partials = dgamma.par_chunks_mut(width).zip(dbeta.par_chunks_mut(width));
    let blocks = dresidual
        .par_chunks_mut(size)
        .zip(dx.par_chunks_mut(size))
        .zip(partials)
        .enumerate();
    blocks.for_each(|(block, ((dresidual, dx), (dgamma, dbeta)))| {
        vectorised(
            #[inline(always)]
            || {
                dgamma.fill(0.0);
                dbeta.fill(0.0);
                let first = block * BLOCK_ROWS;
                let live = BLOCK_ROWS.min(rows.saturating_sub(first));
                let lines = dresidual.chunks_exact_mut(width).zip(dx.chunks_exact_mut(width));
                for (row, (dresidual, dx)) in lines.take(live).enumerate() {
                    let row = first + row;
                    let range = row * width..(row + 1) * width;
                    let line = Line {
                        dy: &dy[range.clone()],
                        x: &sum[range.clone()],
                        gamma,
                        mean: stats[2 * row],
                        rstd: stats[2 * row + 1],
                    };
                    line.backward(false, dx, dgamma, dbeta);
                    if accumulate {
                        for (d, ds) in dresidual.iter_mut().zip(dx.iter()) {
                            *d += ds;
                        }
                    } else {
                        dresidual.copy_from_slice(dx);
                    }
                    dropout.apply(range.start, dx);
                }
            },
        );
    });
}

/// Mean and reciprocal standard deviation, two passes, [`LANES`] partial sums.
#[inline(always)]
fn moments(x: &[f32], epsilon: f32) -> (f32, f32) {
    let width = x.len() as f32;
    let mean = sum_of(x, |x| x) / width;
    let variance = sum_of(x, |x| (x - mean) * (x - mean)) / width;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

#[inline(always)]
fn normalise(x: &[f32], mean: f32, rstd: f32, gamma: &[f32], beta: &[f32], y: &mut [f32]) {
    for (((y, x), gamma), beta) in y.iter_mut().zip(x).zip(gamma).zip(beta) {
        *y = ((x - mean) * rstd).mul_add(*gamma, *beta);
    }
}

/// One row of the backward.
struct Line<'a> {
    dy: &'a [f32],
    x: &'a [f32],
    gamma: &'a [f32],
    mean: f32,
    rstd: f32,
}

impl Line<'_> {
    /// The forward dropped elements of `y`: the same elements of `dy` are dropped first, in a scratch row on the stack. Rows are
    /// at most [`WIDEST`] wide when they are recorded.
    #[inline(always)]
    fn with_dropout(
        &self,
        dropout: &Dropout,
        first: usize,
        accumulate: bool,
        dx: &mut [f32],
        dgamma: &mut [f32],
        dbeta: &mut [f32],
    ) {
        let mut scratch = [0.0f32; WIDEST];
        let scratch = &mut scratch[..self.dy.len()];
        let mut factors = [0.0; GROUP];
        for (group, (out, dy)) in scratch.chunks_mut(GROUP).zip(self.dy.chunks(GROUP)).enumerate() {
            dropout.factors(first + group * GROUP, &mut factors);
            for ((out, dy), factor) in out.iter_mut().zip(dy).zip(&factors) {
                *out = dy * factor;
            }
        }
        Line { dy: scratch, ..*self }.backward(accumulate, dx, dgamma, dbeta);
    }

    #[inline(always)]
    fn backward(&self, accumulate: bool, dx: &mut [f32], dgamma: &mut [f32], dbeta: &mut [f32]) {
        let mut sums = [[0.0f32; LANES]; 2];
        let width = self.dy.len();
        let whole = width / LANES * LANES;
        for start in (0..whole).step_by(LANES) {
            self.add(start, LANES, dgamma, dbeta, &mut sums);
        }
        self.add(whole, width - whole, dgamma, dbeta, &mut sums);
        let [of_g, of_gx] = sums;
        let mean = |lanes| tree(lanes, |a, b| a + b) / width as f32;
        let (mean_g, mean_gx) = (mean(of_g), mean(of_gx));
        for (((dx, dy), x), gamma) in dx.iter_mut().zip(self.dy).zip(self.x).zip(self.gamma) {
            let xhat = (x - self.mean) * self.rstd;
            let ds = self.rstd * (dy * gamma - mean_g - xhat * mean_gx);
            *dx = if accumulate { *dx + ds } else { ds };
        }
    }

    /// Adds `len` columns to the column sums and, by lanes, to the row's sums of `g` and `g xhat`.
    #[inline(always)]
    fn add(&self, start: usize, len: usize, dgamma: &mut [f32], dbeta: &mut [f32], sums: &mut [[f32; LANES]; 2]) {
        let range = start..start + len;
        let [of_g, of_gx] = sums;
        let inputs = self.dy[range.clone()]
            .iter()
            .zip(&self.x[range.clone()])
            .zip(&self.gamma[range.clone()]);
        let columns = dgamma[range.clone()].iter_mut().zip(&mut dbeta[range]);
        let lanes = of_g.iter_mut().zip(of_gx);
        for ((((dy, x), gamma), (dgamma, dbeta)), (of_g, of_gx)) in inputs.zip(columns).zip(lanes) {
            let xhat = (x - self.mean) * self.rstd;
            *dgamma += dy * xhat;
            *dbeta += dy;
            *of_g += dy * gamma;
            *of_gx += dy * gamma * xhat;
        }
    }
}
