//! The innermost tile: up to MR rows by NR columns of C in registers.

/// Shape and strides of one tile.
pub struct Tile {
    /// Rows, 1 to MR.
    pub rows: usize,
    /// Columns that are stored, 1 to NR.
    pub columns: usize,
    /// Steps of the sum.
    pub depths: usize,
    /// Distance between rows of A.
    pub a_row: usize,
    /// Distance between steps of A.
    pub a_step: usize,
    /// Distance between rows of C.
    pub ldc: usize,
}

/// A tile for one instruction set.
pub trait Micro {
    /// Rows of a full tile.
    const MR: usize;
    /// Columns of a full tile.
    const NR: usize;

    /// `C (+)= A B` for one tile; `b` is a packed panel `[depth][NR]`.
    ///
    /// # Safety
    /// `a` and `c` cover the tile's shape, `b` covers `depths * NR`, nobody else touches the tile of C, and the processor
    /// has the instruction set.
    unsafe fn tile(tile: &Tile, a: *const f32, b: *const f32, c: *mut f32, accumulate: bool);

    /// Transposes a square.
    ///
    /// # Safety
    /// The processor has the instruction set.
    #[inline(always)]
    unsafe fn transpose(square: &mut [[f32; 16]; 16]) {
        let from = *square;
        for (row, line) in square.iter_mut().enumerate() {
            for (column, word) in line.iter_mut().enumerate() {
                *word = from[column][row];
            }
        }
    }
}

/// Which tiles the processor runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tiles {
    /// [`Avx512`].
    Avx512,
    /// [`Avx2`].
    Avx2,
    /// [`Portable`].
    Portable,
}

/// Those of this processor.
pub fn tiles() -> Tiles {
    match crate::device::cpu::instruction_set() {
        "AVX-512" => Tiles::Avx512,
        "AVX2" => Tiles::Avx2,
        _ => Tiles::Portable,
    }
}

/// Asks for `words` words from `start` on, where they exist, to be brought into L1.
#[inline(always)]
pub fn prefetch(data: &[f32], start: usize, words: usize) {
    #[cfg(target_arch = "x86_64")]
    for word in (start..(start + words).min(data.len())).step_by(16) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch of any address is harmless, and SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(data.as_ptr().wrapping_add(word).cast::<i8>()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (data, start, words);
}

/// 12 x 32 in AVX-512.
pub struct Avx512;

/// 6 x 16 in AVX2 with FMA.
pub struct Avx2;

/// 4 x 16 in plain loops, which the compiler turns into what the processor has.
pub struct Portable;

impl Micro for Portable {
    const MR: usize = 4;
    const NR: usize = 16;

    #[inline(always)]
    unsafe fn tile(tile: &Tile, a: *const f32, b: *const f32, c: *mut f32, accumulate: bool) {
        // SAFETY: the caller's contract is that of `portable`.
        unsafe {
            match tile.rows {
                1 => portable::<1>(tile, a, b, c, accumulate),
                2 => portable::<2>(tile, a, b, c, accumulate),
                3 => portable::<3>(tile, a, b, c, accumulate),
                _ => portable::<4>(tile, a, b, c, accumulate),
            }
        }
    }
}

#[inline(always)]
unsafe fn portable<const R: usize>(tile: &Tile, a: *const f32, b: *const f32, c: *mut f32, accumulate: bool) {
    let mut sums = [[0.0f32; 16]; R];
    for depth in 0..tile.depths {
        // SAFETY: the panel holds `depths` rows of 16.
        let b = unsafe { &*b.add(depth * 16).cast::<[f32; 16]>() };
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: A covers rows x depths at these strides.
            let a = unsafe { *a.add(row * tile.a_row + depth * tile.a_step) };
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = a.mul_add(*b, *sum);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        // SAFETY: C covers rows x columns, and this tile is ours.
        let c = unsafe { std::slice::from_raw_parts_mut(c.add(row * tile.ldc), tile.columns) };
        for (c, sum) in c.iter_mut().zip(sums) {
            *c = if accumulate { *c + sum } else { *sum };
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Micro for Avx512 {
    const MR: usize = Portable::MR;
    const NR: usize = Portable::NR;

    #[inline(always)]
    unsafe fn tile(tile: &Tile, a: *const f32, b: *const f32, c: *mut f32, accumulate: bool) {
        // SAFETY: the same contract.
        unsafe { Portable::tile(tile, a, b, c, accumulate) }
    }
}

#[cfg(target_arch = "x86_64")]
impl Micro for Avx512 {
    const MR: usize = 12;
    const NR: usize = 32;

    #[inline(always)]
    unsafe fn tile(tile: &Tile, a: *const f32, b: *const f32, c: *mut f32, accumulate: bool) {
        // SAFETY: the caller's contract is that of `avx512`.
        unsafe {
            match tile.rows {
                1 => avx512::<1>(tile, a, b, c, accumulate),
                2 => avx512::<2>(tile, a, b, c, accumulate),
                3 => avx512::<3>(tile, a, b, c, accumulate),
                4 => avx512::<4>(tile, a, b, c, accumulate),
                5 => avx512::<5>(tile, a, b, c, accumulate),
                6 => avx512::<6>(tile, a, b, c, accumulate),
                7 => avx512::<7>(tile, a, b, c, accumulate),
                8 => avx512::<8>(tile, a, b, c, accumulate),
                9 => avx512::<9>(tile, a, b, c, accumulate),
                10 => avx512::<10>(tile, a, b, c, accumulate),
                11 => avx512::<11>(tile, a, b, c, accumulate),
                _ => avx512::<12>(tile, a, b, c, accumulate),
            }
        }
    }

    #[inline(always)]
    unsafe fn transpose(square: &mut [[f32; 16]; 16]) {
        // SAFETY: the same contract.
        unsafe { transpose_avx512(square) }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const R: usize>(tile: &Tile, a: *const f32, b: *const f32, c: *mut f32, accumulate: bool) {
    use std::arch::x86_64::{
        _MM_HINT_T0, _mm_prefetch, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps,
        _mm512_maskz_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
    };
    // The tile of C is on its way while the sum is computed: its stores would otherwise wait for memory one by one.
    for row in 0..R {
        // A prefetch of any address is harmless.
        let line = c.wrapping_add(row * tile.ldc).cast::<i8>();
        _mm_prefetch::<_MM_HINT_T0>(line);
        _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(64));
        _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(127));
    }
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    let (mut a, mut b) = (a, b);
    for _ in 0..tile.depths {
        // SAFETY: the panel holds `depths` rows of 32; A covers rows x depths at these strides.
        unsafe {
            let b0 = _mm512_loadu_ps(b);
            let b1 = _mm512_loadu_ps(b.add(16));
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = _mm512_set1_ps(*a.add(row * tile.a_row));
                sums[0] = _mm512_fmadd_ps(a, b0, sums[0]);
                sums[1] = _mm512_fmadd_ps(a, b1, sums[1]);
            }
            a = a.add(tile.a_step);
            b = b.add(32);
        }
    }
    let live = (1u64 << tile.columns) - 1;
    let masks = [live as u16, (live >> 16) as u16];
    for (row, sums) in sums.iter().enumerate() {
        for (half, (sum, mask)) in sums.iter().zip(masks).enumerate() {
            // SAFETY: C covers rows x columns; masked lanes are not touched.
            unsafe {
                let c = c.add(row * tile.ldc + 16 * half);
                let value = if accumulate {
                    _mm512_add_ps(*sum, _mm512_maskz_loadu_ps(mask, c))
                } else {
                    *sum
                };
                _mm512_mask_storeu_ps(c, mask, value);
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Micro for Avx2 {
    const MR: usize = Portable::MR;
    const NR: usize = Portable::NR;

    #[inline(always)]
    unsafe fn tile(tile: &Tile, a: *const f32, b: *const f32, c: *mut f32, accumulate: bool) {
        // SAFETY: the same contract.
        unsafe { Portable::tile(tile, a, b, c, accumulate) }
    }
}

#[cfg(target_arch = "x86_64")]
impl Micro for Avx2 {
    const MR: usize = 6;
    const NR: usize = 16;

    #[inline(always)]
    unsafe fn tile(tile: &Tile, a: *const f32, b: *const f32, c: *mut f32, accumulate: bool) {
        // SAFETY: the caller's contract is that of `avx2`.
        unsafe {
            match tile.rows {
                1 => avx2::<1>(tile, a, b, c, accumulate),
                2 => avx2::<2>(tile, a, b, c, accumulate),
                3 => avx2::<3>(tile, a, b, c, accumulate),
                4 => avx2::<4>(tile, a, b, c, accumulate),
                5 => avx2::<5>(tile, a, b, c, accumulate),
                _ => avx2::<6>(tile, a, b, c, accumulate),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const R: usize>(tile: &Tile, a: *const f32, b: *const f32, c: *mut f32, accumulate: bool) {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps};
    let mut sums = [[_mm256_setzero_ps(); 2]; R];
    let (mut a, mut b) = (a, b);
    for _ in 0..tile.depths {
        // SAFETY: the panel holds `depths` rows of 16; A covers rows x depths at these strides.
        unsafe {
            let b0 = _mm256_loadu_ps(b);
            let b1 = _mm256_loadu_ps(b.add(8));
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = _mm256_set1_ps(*a.add(row * tile.a_row));
                sums[0] = _mm256_fmadd_ps(a, b0, sums[0]);
                sums[1] = _mm256_fmadd_ps(a, b1, sums[1]);
            }
            a = a.add(tile.a_step);
            b = b.add(16);
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        let mut line = [0.0f32; 16];
        // SAFETY: 16 floats.
        unsafe {
            _mm256_storeu_ps(line.as_mut_ptr(), sums[0]);
            _mm256_storeu_ps(line.as_mut_ptr().add(8), sums[1]);
        }
        // SAFETY: C covers rows x columns, and this tile is ours.
        let c = unsafe { std::slice::from_raw_parts_mut(c.add(row * tile.ldc), tile.columns) };
        for (c, sum) in c.iter_mut().zip(line) {
            *c = if accumulate { *c + sum } else { sum };
        }
    }
}

/// Four stages: pairs, quads within 128-bit lanes, then 128-bit lanes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn transpose_avx512(square: &mut [[f32; 16]; 16]) {
    use std::arch::x86_64::{
        __m512, _mm512_castpd_ps, _mm512_castps_pd, _mm512_loadu_ps, _mm512_setzero_ps, _mm512_shuffle_f32x4,
        _mm512_storeu_ps, _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
    };
    let mut rows = [_mm512_setzero_ps(); 16];
    for (row, line) in rows.iter_mut().zip(square.iter()) {
        // SAFETY: 16 floats.
        *row = unsafe { _mm512_loadu_ps(line.as_ptr()) };
    }
    let lo = |a: __m512, b: __m512| _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    let hi = |a: __m512, b: __m512| _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    let mut quads = [_mm512_setzero_ps(); 16];
    for group in 0..4 {
        let [a, b, c, d] = [
            rows[4 * group],
            rows[4 * group + 1],
            rows[4 * group + 2],
            rows[4 * group + 3],
        ];
        let (ab0, ab1) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        let (cd0, cd1) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        quads[4 * group] = lo(ab0, cd0);
        quads[4 * group + 1] = hi(ab0, cd0);
        quads[4 * group + 2] = lo(ab1, cd1);
        quads[4 * group + 3] = hi(ab1, cd1);
    }
    for column in 0..4 {
        let [a, b, c, d] = [quads[column], quads[4 + column], quads[8 + column], quads[12 + column]];
        let ab_even = _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
        let ab_odd = _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b);
        let cd_even = _mm512_shuffle_f32x4::<0b10_00_10_00>(c, d);
        let cd_odd = _mm512_shuffle_f32x4::<0b11_01_11_01>(c, d);
        let columns = [
            _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_even, cd_even),
            _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_odd, cd_odd),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_even, cd_even),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_odd, cd_odd),
        ];
        for (lane, value) in columns.into_iter().enumerate() {
            // SAFETY: 16 floats.
            unsafe { _mm512_storeu_ps(square[4 * lane + column].as_mut_ptr(), value) };
        }
    }
}
