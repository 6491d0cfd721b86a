//! One code path, compiled for several instruction sets, chosen at run time.
//!
//! Kernels are written as plain loops over groups of [`LANES`] elements; [`vectorised`] runs such a loop in a copy of
//! itself compiled for AVX-512 or AVX2 with FMA where the processor has them. Sums over a row keep [`LANES`] partial
//! sums, so the order of additions, and with it every bit, is the same whatever the instruction set, except where a
//! processor without fused multiply-add computes `mul_add` in software (the same bits, slowly).

use std::sync::OnceLock;

/// Elements that kernels process as one group.
pub const LANES: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Baseline,
}

fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx512 && avx2 {
                return Level::Avx512;
            }
            if avx2 {
                return Level::Avx2;
            }
        }
        Level::Baseline
    })
}

/// Name of the instruction set in use.
pub fn instruction_set() -> &'static str {
    match level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => "AVX-512",
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => "AVX2",
        Level::Baseline => "baseline instructions",
    }
}

/// Runs `body` compiled for the best instruction set. `body` must be an `#[inline(always)]` closure, or it stays
/// compiled for the baseline.
#[inline]
pub fn vectorised<T>(body: impl FnOnce() -> T) -> T {
    match level() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `level` found these features on this processor.
        Level::Avx512 => unsafe { avx512(body) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 => unsafe { avx2(body) },
        Level::Baseline => body(),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn avx512<T>(body: impl FnOnce() -> T) -> T {
    body()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<T>(body: impl FnOnce() -> T) -> T {
    body()
}
