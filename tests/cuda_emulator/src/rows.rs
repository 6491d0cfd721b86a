//! Rows: one register of the 32 lanes of a warp, and functions over them.
//!
//! Every register is a row of 32 words of 64 bits. Narrower values stand in the low bits, and the bits above are zero,
//! so that a value can be read at any width. What an instruction computes is a [`RowFunction`], made when a module is
//! loaded: a loop over 32 lanes that the compiler turns into vector instructions, in a copy for AVX2 with FMA where the
//! processor has them. Lanes that do not take part are computed too and dropped; such functions must accept anything.

use std::sync::OnceLock;

/// Threads of a warp.
pub const LANES: usize = 32;

/// A register of a warp.
pub type Row = [u64; LANES];

/// What an instruction computes from up to three registers.
pub type RowFunction = Box<dyn Fn(&Row, &Row, &Row, &mut Row) + Send + Sync>;

/// What a comparison finds: a bit per lane.
pub type MaskFunction = Box<dyn Fn(&Row, &Row) -> u32 + Send + Sync>;

/// A function of a lane's three values and its carry bit to a value and a carry bit.
pub type CarryFunction = fn(u64, u64, u64, bool) -> (u64, bool);

/// `f` in every lane.
pub fn unary(f: impl Fn(u64) -> u64 + Copy + Send + Sync + 'static) -> RowFunction {
    Box::new(move |a, _, _, out| {
        vectorised(
            #[inline(always)]
            || {
                for lane in 0..LANES {
                    out[lane] = f(a[lane]);
                }
            },
        );
    })
}

/// `f` in every lane.
pub fn binary(f: impl Fn(u64, u64) -> u64 + Copy + Send + Sync + 'static) -> RowFunction {
    Box::new(move |a, b, _, out| {
        vectorised(
            #[inline(always)]
            || {
                for lane in 0..LANES {
                    out[lane] = f(a[lane], b[lane]);
                }
            },
        );
    })
}

/// `f` in every lane.
pub fn ternary(f: impl Fn(u64, u64, u64) -> u64 + Copy + Send + Sync + 'static) -> RowFunction {
    Box::new(move |a, b, c, out| {
        vectorised(
            #[inline(always)]
            || {
                for lane in 0..LANES {
                    out[lane] = f(a[lane], b[lane], c[lane]);
                }
            },
        );
    })
}

/// `f` in every lane.
pub fn comparison(f: impl Fn(u64, u64) -> bool + Copy + Send + Sync + 'static) -> MaskFunction {
    Box::new(move |a, b| {
        let mut mask = 0;
        vectorised(
            #[inline(always)]
            || {
                for lane in 0..LANES {
                    mask |= u32::from(f(a[lane], b[lane])) << lane;
                }
            },
        );
        mask
    })
}

/// The lanes of a mask, lowest first.
pub fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let lane = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        Some(lane)
    })
}

/// Runs `body` compiled for AVX2 with FMA where the processor has them; fused multiply-adds are exact either way.
#[inline(always)]
pub fn vectorised<T>(body: impl FnOnce() -> T) -> T {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        // SAFETY: the processor has the features.
        return unsafe { avx2(body) };
    }
    body()
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn has_avx2() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<T>(body: impl FnOnce() -> T) -> T {
    body()
}
