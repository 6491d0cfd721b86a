//! Matrix products on the CPU: `C (+)= A B` with strided operands and an epilogue while the tile is in L1.
//!
//! ```text
//! for each slab of B (at most 4 MB):           pack it into panels [K][NR]            all threads
//!   for each block of rows of C (one task):    (A with distant lines: copy [MC x KC], transposed into strips [K][MR])
//!     for each KC of the slab, panel of B, MR rows:   MR x NR tile in registers over KC steps
//! ```
//!
//! AVX-512: MR x NR = 12 x 32, 24 accumulators; each step loads two vectors of B and broadcasts 12 elements of A, which
//! for a row-major A come straight from its rows. Elsewhere 4 x 16 from plain loops. Every element of C is one chain of
//! fused multiply-adds per KC block, blocks in order, whatever the partition: the bits depend on shapes alone.
//!
//! Why not a library: the products must not allocate, must carry bias, GELU and GELU's derivative, and must give the same
//! bits for any number of threads. `benches/gemm.rs` compares with crate `gemm`.

mod micro;
mod pack;

use std::cell::RefCell;

use rayon::prelude::*;

use crate::device::cpu::vectorised;
use crate::ops::gelu::{gelu, gelu_derivative};
use pack::{grown, pack_b, pack_rows, pack_strips};

/// Depth of a block: a panel of B of this depth is 32 KiB.
const KC: usize = 256;
/// Words of packed B that all threads share at a time.
const SLAB: usize = 1 << 20;
/// Distance of lines of A from which they are copied side by side: lines a multiple of 4 KiB apart compete for the same few
/// lines of L1.
const FAR: usize = 512;
/// Rows of C in one task, at most.
const MC: usize = 192;

/// A strided operand.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    /// Elements.
    pub data: &'a [f32],
    /// Distance between neighbours along the result's side (rows of A, columns of B).
    pub outer: usize,
    /// Distance between neighbours along the summed side.
    pub inner: usize,
}

/// What happens to a tile of C after its last step.
#[derive(Clone, Copy)]
pub enum Epilogue<'a> {
    /// Nothing.
    None,
    /// `c + bias[column]`
    Bias(&'a [f32]),
    /// `c = c + bias[column]`, and `gelu(c)` to a second matrix of the same layout.
    BiasGelu(&'a [f32], Output<'a>),
    /// `c * gelu'(z)`
    GeluDerivative(&'a [f32]),
}

/// A matrix that tasks write in disjoint tiles.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    start: *mut f32,
    len: usize,
    owner: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: tasks write disjoint tiles; `Output` borrows the slice mutably for its lifetime.
unsafe impl Send for Output<'_> {}
// SAFETY: as above.
unsafe impl Sync for Output<'_> {}

impl<'a> Output<'a> {
    /// Takes the slice for the duration of a product.
    pub fn new(data: &'a mut [f32]) -> Output<'a> {
        Output {
            start: data.as_mut_ptr(),
            len: data.len(),
            owner: std::marker::PhantomData,
        }
    }

    /// The part of a row that a task owns.
    ///
    /// # Safety
    /// No other reference to these elements exists while the result lives.
    #[inline(always)]
    unsafe fn row(&self, start: usize, len: usize) -> &'a mut [f32] {
        debug_assert!(start + len <= self.len);
        // SAFETY: inside the slice; exclusivity is the caller's.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

/// One product `C[m x n] (+)= A[m x k] B[k x n]`.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// Summed side.
    pub k: usize,
    /// Left operand.
    pub a: Operand<'a>,
    /// Right operand.
    pub b: Operand<'a>,
    /// Distance between rows of C.
    pub ldc: usize,
    /// Whether C is added to.
    pub accumulate: bool,
    /// Epilogue.
    pub epilogue: Epilogue<'a>,
}

thread_local! {
    static PACKED_B: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    static PACKED_A: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Takes the calling thread's working memory for products up to `m x n`, summed over up to `k`: none of them allocates on
/// it afterwards.
pub fn reserve(m: usize, n: usize, k: usize) {
    match micro::tiles() {
        micro::Tiles::Avx512 => reserve_for::<micro::Avx512>(m, n, k),
        micro::Tiles::Avx2 => reserve_for::<micro::Avx2>(m, n, k),
        micro::Tiles::Portable => reserve_for::<micro::Portable>(m, n, k),
    }
}

fn reserve_for<M: micro::Micro>(m: usize, n: usize, k: usize) {
    // A slab is cut from B so that its depth is a multiple of KC or all of k: see `slabs`.
    let slab = (n.next_multiple_of(M::NR) * k).min(SLAB + M::NR * KC);
    PACKED_B.with_borrow_mut(|packed| grown(packed, slab).len());
    PACKED_A.with_borrow_mut(|packed| grown(packed, MC.min(m).next_multiple_of(M::MR) * KC).len());
}

/// Computes the product with all threads of the current pool.
///
/// # Panics
/// If an operand or C is shorter than its shape says.
pub fn multiply(product: &Product, c: &mut [f32]) {
    product.check(c.len());
    if product.is_empty(c) {
        return;
    }
    let c = Output::new(c);
    match micro::tiles() {
        micro::Tiles::Avx512 => parallel::<micro::Avx512>(product, c),
        micro::Tiles::Avx2 => parallel::<micro::Avx2>(product, c),
        micro::Tiles::Portable => parallel::<micro::Portable>(product, c),
    }
}

/// Computes a small product on the calling thread.
///
/// # Panics
/// As [`multiply`].
pub fn multiply_here(product: &Product, c: &mut [f32]) {
    product.check(c.len());
    if product.is_empty(c) {
        return;
    }
    let c = Output::new(c);
    match micro::tiles() {
        micro::Tiles::Avx512 => sequential::<micro::Avx512>(product, c),
        micro::Tiles::Avx2 => sequential::<micro::Avx2>(product, c),
        micro::Tiles::Portable => sequential::<micro::Portable>(product, c),
    }
}

impl Product<'_> {
    /// Whether there is nothing to multiply; an empty sum is zero.
    fn is_empty(&self, c: &mut [f32]) -> bool {
        if self.k == 0 && !self.accumulate {
            for row in 0..self.m {
                c[row * self.ldc..][..self.n].fill(0.0);
            }
        }
        self.m == 0 || self.n == 0 || self.k == 0
    }

    fn check(&self, c: usize) {
        let spans = |operand: &Operand, outer: usize| {
            outer == 0 || self.k == 0 || (outer - 1) * operand.outer + (self.k - 1) * operand.inner < operand.data.len()
        };
        // Rows apart, too: tasks write rows of C as their own.
        let covers =
            |len: usize| self.m == 0 || self.n == 0 || (self.n <= self.ldc && (self.m - 1) * self.ldc + self.n <= len);
        assert!(
            spans(&self.a, self.m) && spans(&self.b, self.n) && covers(c),
            "operand shorter than its shape"
        );
        assert!(
            self.k > 0 || self.accumulate || matches!(self.epilogue, Epilogue::None),
            "empty sum with an epilogue"
        );
        let epilogue = match self.epilogue {
            Epilogue::None => true,
            Epilogue::Bias(bias) => bias.len() >= self.n,
            Epilogue::BiasGelu(bias, activation) => bias.len() >= self.n && covers(activation.len),
            Epilogue::GeluDerivative(z) => covers(z.len()),
        };
        assert!(epilogue, "epilogue operand shorter than the result");
    }
}

/// A range of the product that is computed against one packed slab of B.
#[derive(Clone, Copy)]
struct Slab {
    column: usize,
    columns: usize,
    depth: usize,
    depths: usize,
}

fn slabs<M: micro::Micro>(product: &Product) -> impl Iterator<Item = Slab> {
    let (n, k) = (product.n, product.k);
    let columns = n.min((SLAB / KC.min(k)).next_multiple_of(M::NR));
    let depths = (SLAB / columns.next_multiple_of(M::NR) / KC).max(1) * KC;
    (0..n).step_by(columns).flat_map(move |column| {
        (0..k).step_by(depths).map(move |depth| Slab {
            column,
            columns: columns.min(n - column),
            depth,
            depths: depths.min(k - depth),
        })
    })
}

fn parallel<M: micro::Micro>(product: &Product, c: Output) {
    let threads = rayon::current_num_threads();
    PACKED_B.with_borrow_mut(|packed| {
        for slab in slabs::<M>(product) {
            let panels = slab.columns.div_ceil(M::NR);
            let panel_words = slab.depths * M::NR;
            let packed = grown(packed, panels * panel_words);
            packed
                .par_chunks_mut(panel_words)
                .enumerate()
                .with_min_len(4)
                .for_each(|(panel, words)| {
                    vectorised(
                        #[inline(always)]
                        || pack_b::<M>(product, &slab, panel, words),
                    );
                });
            let packed: &[f32] = packed;
            // Tasks: blocks of rows, cut in columns too where there are too few rows for all threads.
            let rows = MC.min(product.m.div_ceil(4 * threads).next_multiple_of(M::MR));
            let row_tasks = product.m.div_ceil(rows);
            let column_tasks = (4 * threads).div_ceil(row_tasks).min(panels);
            let span = panels.div_ceil(column_tasks);
            (0..row_tasks * column_tasks)
                .into_par_iter()
                .with_max_len(1)
                .for_each(|task| {
                    let row = task % row_tasks * rows;
                    let first = task / row_tasks * span;
                    let block = Block {
                        row,
                        rows: rows.min(product.m - row),
                        panels: first..(first + span).min(panels),
                    };
                    compute::<M>(product, &slab, packed, block, c);
                });
        }
    });
}

fn sequential<M: micro::Micro>(product: &Product, c: Output) {
    PACKED_B.with_borrow_mut(|packed| {
        for slab in slabs::<M>(product) {
            let panels = slab.columns.div_ceil(M::NR);
            let panel_words = slab.depths * M::NR;
            let packed = grown(packed, panels * panel_words);
            vectorised(
                #[inline(always)]
                || {
                    for (panel, words) in packed.chunks_exact_mut(panel_words).enumerate() {
                        pack_b::<M>(product, &slab, panel, words);
                    }
                },
            );
            for row in (0..product.m).step_by(MC) {
                let block = Block {
                    row,
                    rows: MC.min(product.m - row),
                    panels: 0..panels,
                };
                compute::<M>(product, &slab, packed, block, c);
            }
        }
    });
}

struct Block {
    row: usize,
    rows: usize,
    panels: std::ops::Range<usize>,
}

/// A block of C against a packed slab of B.
fn compute<M: micro::Micro>(product: &Product, slab: &Slab, packed: &[f32], block: Block, c: Output) {
    let pack_a = product.a.outer.max(product.a.inner) >= FAR;
    let words = if pack_a {
        block.rows.next_multiple_of(M::MR) * KC
    } else {
        0
    };
    PACKED_A.with_borrow_mut(|scratch| {
        let scratch = grown(scratch, words);
        // Inside, not around: only what is inlined into `vectorised` is compiled for the processor.
        vectorised(
            #[inline(always)]
            || tiles::<M>(product, slab, packed, &block, c, scratch),
        );
    });
}

#[inline(always)]
fn tiles<M: micro::Micro>(
    product: &Product,
    slab: &Slab,
    packed: &[f32],
    block: &Block,
    c: Output,
    scratch: &mut [f32],
) {
    let transposed = product.a.inner != 1;
    let pack_a = !scratch.is_empty();
    let strips = block.rows.div_ceil(M::MR);
    for depth in (0..slab.depths).step_by(KC) {
        let depths = KC.min(slab.depths - depth);
        let at = slab.depth + depth;
        if transposed && pack_a {
            pack_strips::<M>(product, block, at, depths, scratch);
        } else if pack_a {
            pack_rows(product, block, at, depths, scratch);
        }
        let first = at == 0;
        let last = at + depths >= product.k;
        for panel in block.panels.clone() {
            let b = &packed[panel * slab.depths * M::NR + depth * M::NR..];
            let column = slab.column + panel * M::NR;
            let columns = M::NR.min(slab.column + slab.columns - column);
            for strip in 0..strips {
                let row = block.row + strip * M::MR;
                let rows = M::MR.min(block.row + block.rows - row);
                let (a, a_row, a_step) = if transposed && pack_a {
                    (&scratch[strip * M::MR * depths..], 1, M::MR)
                } else if pack_a {
                    (&scratch[strip * M::MR * depths..], depths, 1)
                } else {
                    let Operand { data, outer, inner } = product.a;
                    (&data[row * outer + at * inner..], outer, inner)
                };
                let tile = micro::Tile {
                    rows,
                    columns,
                    depths,
                    a_row,
                    a_step,
                    ldc: product.ldc,
                };
                let start = row * product.ldc + column;
                // SAFETY: `check` proved the operands long enough; this task alone owns the tile's rows and columns.
                unsafe {
                    M::tile(
                        &tile,
                        a.as_ptr(),
                        b.as_ptr(),
                        c.start.add(start),
                        !first || product.accumulate,
                    );
                }
                if last {
                    for row in 0..rows {
                        finish(product, c, start + row * product.ldc, column, columns);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn finish(product: &Product, c: Output, start: usize, column: usize, columns: usize) {
    if matches!(product.epilogue, Epilogue::None) {
        return;
    }
    // SAFETY: the calling task owns the tile.
    let row = unsafe { c.row(start, columns) };
    match product.epilogue {
        Epilogue::None => {}
        Epilogue::Bias(bias) => {
            for (c, bias) in row.iter_mut().zip(&bias[column..column + columns]) {
                *c += bias;
            }
        }
        Epilogue::BiasGelu(bias, activation) => {
            // SAFETY: the same tile of a matrix of the same layout.
            let activation = unsafe { activation.row(start, columns) };
            for ((c, a), bias) in row.iter_mut().zip(activation).zip(&bias[column..column + columns]) {
                *c += bias;
                *a = gelu(*c);
            }
        }
        Epilogue::GeluDerivative(z) => {
            for (c, z) in row.iter_mut().zip(&z[start..start + columns]) {
                *c *= gelu_derivative(*z);
            }
        }
    }
}
