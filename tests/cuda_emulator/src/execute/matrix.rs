//! `mma.sync`: products of small matrices whose elements are spread over the registers of a warp.
//!
//! With `group` = lane / 4 and `member` = lane % 4, the fragments of `m16n8k16` with halves are
//!
//! ```text
//! a0, a1, a2, a3   rows group, group + 8, group, group + 8; columns 2 member + {0, 1}, the last two + 8
//! b0, b1           rows 2 member + {0, 1}, the last + 8; column group
//! c0, c1 | c2, c3  row group | group + 8; columns 2 member + {0, 1}; as f16 c0 and c1 share a register
//! ```
//!
//! and those of the other shapes likewise; with tf32 a register holds one element, in column `member` and `member + 4`.
//! Each element of the result is the sum of c and the products in the order of the depth, each product exact and each sum
//! rounded to f32, f16 results once more at the end. Hardware sums several products at once and drops bits below the
//! largest, in an order of its own: results differ from it in the last bits of an f32.

use std::sync::LazyLock;

use crate::ptx::{MatrixKind, Register, Type};
use crate::rows::{LANES, Row, vectorised};
use crate::semantics::{Rounding, decode, encode};

const ROWS: usize = 16;
const COLUMNS: usize = 8;
const DEPTH: usize = 16;

/// Registers of a, b and c.
pub fn fragment_sizes(kind: MatrixKind) -> (usize, usize, usize) {
    match kind {
        MatrixKind::F16 { depth, half_sums } => (depth / 4, depth / 8, if half_sums { 2 } else { 4 }),
        MatrixKind::Bf16 { depth } => (depth / 4, depth / 8, 4),
        MatrixKind::Tf32 { depth } => (depth / 2, depth / 4, 4),
    }
}

/// Values of f16 patterns.
static HALVES: LazyLock<Vec<f32>> =
    LazyLock::new(|| (0..0x1_0000).map(|pattern| decode(Type::F16, pattern) as f32).collect());

/// Row or depth and depth or column of an element of a register, for a lane: of a, from the register's number and the
/// element's number within it.
fn place_of_a(kind: MatrixKind, lane: usize, register: usize, element: usize) -> (usize, usize) {
    let (group, member) = (lane / 4, lane % 4);
    let row = group + 8 * (register % 2);
    match kind {
        MatrixKind::Tf32 { .. } => (row, member + 4 * (register / 2)),
        _ => (row, 2 * member + element + 8 * (register / 2)),
    }
}

fn place_of_b(kind: MatrixKind, lane: usize, register: usize, element: usize) -> (usize, usize) {
    let (group, member) = (lane / 4, lane % 4);
    match kind {
        MatrixKind::Tf32 { .. } => (member + 4 * register, group),
        _ => (2 * member + element + 8 * register, group),
    }
}

fn place_of_c(lane: usize, element: usize) -> (usize, usize) {
    (lane / 4 + 8 * (element / 2), 2 * (lane % 4) + element % 2)
}

/// The elements of a register, and how many there are.
fn elements(kind: MatrixKind, word: u64) -> ([f32; 2], usize) {
    match kind {
        MatrixKind::F16 { .. } => (
            [HALVES[word as usize & 0xffff], HALVES[word as usize >> 16 & 0xffff]],
            2,
        ),
        MatrixKind::Bf16 { .. } => {
            let word = word as u32;
            ([f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000)], 2)
        }
        // The low bits are not looked at.
        MatrixKind::Tf32 { .. } => ([f32::from_bits(word as u32 & 0xffff_e000), 0.0], 1),
    }
}

/// d = a b + c
pub fn multiply(
    registers: &mut [Row],
    kind: MatrixKind,
    d: &[Register],
    a: &[Register],
    b: &[Register],
    c: &[Register],
) {
    let half_sums = matches!(kind, MatrixKind::F16 { half_sums: true, .. });
    let depth = match kind {
        MatrixKind::F16 { depth, .. } | MatrixKind::Bf16 { depth } | MatrixKind::Tf32 { depth } => depth,
    };
    let mut left = [[0f32; DEPTH]; ROWS];
    let mut right = [[0f32; COLUMNS]; DEPTH];
    let mut sums = [[0f32; COLUMNS]; ROWS];
    let word = |register: Register, lane: usize| registers[register as usize][lane];
    for lane in 0..LANES {
        for (at, register) in a.iter().enumerate() {
            let (values, count) = elements(kind, word(*register, lane));
            for (element, value) in values.iter().enumerate().take(count) {
                let (row, k) = place_of_a(kind, lane, at, element);
                left[row][k] = *value;
            }
        }
        for (at, register) in b.iter().enumerate() {
            let (values, count) = elements(kind, word(*register, lane));
            for (element, value) in values.iter().enumerate().take(count) {
                let (k, column) = place_of_b(kind, lane, at, element);
                right[k][column] = *value;
            }
        }
        for element in 0..4 {
            let (row, column) = place_of_c(lane, element);
            sums[row][column] = if half_sums {
                let pair = word(c[element / 2], lane);
                HALVES[(pair >> (16 * (element % 2))) as usize & 0xffff]
            } else {
                f32::from_bits(word(c[element], lane) as u32)
            };
        }
    }
    vectorised(
        #[inline(always)]
        || {
            for (row, sums) in left.iter().zip(&mut sums) {
                for k in 0..depth {
                    for column in 0..COLUMNS {
                        sums[column] = row[k].mul_add(right[k][column], sums[column]);
                    }
                }
            }
        },
    );
    for (at, register) in d.iter().enumerate() {
        let value = |lane: usize, element: usize| {
            let (row, column) = place_of_c(lane, element);
            sums[row][column]
        };
        registers[*register as usize] = std::array::from_fn(|lane| {
            if half_sums {
                let half = |element: usize| encode(Type::F16, f64::from(value(lane, element)), Rounding::Nearest);
                half(2 * at) | half(2 * at + 1) << 16
            } else {
                encode(Type::F32, f64::from(value(lane, at)), Rounding::Nearest)
            }
        });
    }
}
