// Elements of tensors of the plan's precision: STORED is f32, f16 or bf16. All arithmetic is f32; what is stored is rounded
// to nearest, ties to even.
//
// Alignment: a tensor begins at a multiple of 256 bytes, so that runs of N elements counted from its beginning are aligned;
// a row of it begins at a multiple of N elements only where its width is one. `load` and `store` need aligned runs;
// `load_row` and `store_row` fall back to single elements for other widths, `load_range` for the ends of a range.
#pragma once

#include "common/step.cuh"

using f32 = float;

// IEEE binary16.
struct f16 {
    unsigned short bits;
};

// The upper half of a binary32.
struct bf16 {
    unsigned short bits;
};

using Stored = STORED;

// Elements of an access of 16 bytes.
constexpr u32 VECTOR = 16 / sizeof(Stored);

// Neighbouring elements, as they are in registers.
template <u32 N>
struct Run {
    float at[N];
};

__device__ __forceinline__ float widen(float x) {
    return x;
}

__device__ __forceinline__ float widen(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

__device__ __forceinline__ float widen(bf16 x) {
    return __uint_as_float(static_cast<u32>(x.bits) << 16);
}

__device__ __forceinline__ void narrow(float x, float& y) {
    y = x;
}

__device__ __forceinline__ void narrow(float x, f16& y) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
}

__device__ __forceinline__ void narrow(float x, bf16& y) {
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
}

// An element as it is stored.
template <typename T = Stored>
__device__ __forceinline__ T stored(float x) {
    T y;
    narrow(x, y);
    return y;
}

// What storing leaves of a number.
__device__ __forceinline__ float rounded(float x) {
    return widen(stored(x));
}

// Two elements of two bytes in a word, the first in the lower half.
template <typename T>
__device__ __forceinline__ u32 narrow_pair(float low, float high);

template <>
__device__ __forceinline__ u32 narrow_pair<f16>(float low, float high) {
#if __CUDA_ARCH__ >= 800
    u32 word;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
#else
    return static_cast<u32>(stored<f16>(high).bits) << 16 | stored<f16>(low).bits;
#endif
}

template <>
__device__ __forceinline__ u32 narrow_pair<bf16>(float low, float high) {
    u32 word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}

template <typename T>
__device__ __forceinline__ float2 widen_pair(u32 word) {
    const T low = {static_cast<unsigned short>(word)};
    const T high = {static_cast<unsigned short>(word >> 16)};
    return make_float2(widen(low), widen(high));
}

// N elements at p, which is a multiple of N elements.

template <u32 N>
__device__ __forceinline__ Run<N> load(const float* p) {
    Run<N> run;
#pragma unroll
    for (u32 i = 0; i < N; i += 4) {
        const float4 quad = *reinterpret_cast<const float4*>(p + i);
        run.at[i] = quad.x;
        run.at[i + 1] = quad.y;
        run.at[i + 2] = quad.z;
        run.at[i + 3] = quad.w;
    }
    return run;
}

template <u32 N, typename T>
__device__ __forceinline__ Run<N> load(const T* p) {
    static_assert(N == 4 || N == 8, "accesses of 8 and 16 bytes");
    u32 words[N / 2];
    if constexpr (N == 8) {
        const uint4 all = *reinterpret_cast<const uint4*>(p);
        words[0] = all.x;
        words[1] = all.y;
        words[2] = all.z;
        words[3] = all.w;
    } else {
        const uint2 all = *reinterpret_cast<const uint2*>(p);
        words[0] = all.x;
        words[1] = all.y;
    }
    Run<N> run;
#pragma unroll
    for (u32 i = 0; i < N / 2; i += 1) {
        const float2 pair = widen_pair<T>(words[i]);
        run.at[2 * i] = pair.x;
        run.at[2 * i + 1] = pair.y;
    }
    return run;
}

template <u32 N>
__device__ __forceinline__ void store(float* p, const Run<N>& run) {
#pragma unroll
    for (u32 i = 0; i < N; i += 4) {
        *reinterpret_cast<float4*>(p + i) = make_float4(run.at[i], run.at[i + 1], run.at[i + 2], run.at[i + 3]);
    }
}

template <u32 N, typename T>
__device__ __forceinline__ void store(T* p, const Run<N>& run) {
    static_assert(N == 4 || N == 8, "accesses of 8 and 16 bytes");
    u32 words[N / 2];
#pragma unroll
    for (u32 i = 0; i < N / 2; i += 1) {
        words[i] = narrow_pair<T>(run.at[2 * i], run.at[2 * i + 1]);
    }
    if constexpr (N == 8) {
        *reinterpret_cast<uint4*>(p) = make_uint4(words[0], words[1], words[2], words[3]);
    } else {
        *reinterpret_cast<uint2*>(p) = make_uint2(words[0], words[1]);
    }
}

// Elements at .. at + N of a tensor, of which begin .. end are read; zero outside. at is a multiple of N.
template <u32 N, typename T>
__device__ __forceinline__ Run<N> load_range(const T* tensor, u32 at, u32 begin, u32 end) {
    if (at >= begin && at + N <= end) {
        return load<N>(tensor + at);
    }
    Run<N> run = {};
#pragma unroll
    for (u32 i = 0; i < N; i += 1) {
        if (at + i >= begin && at + i < end) {
            run.at[i] = widen(tensor[at + i]);
        }
    }
    return run;
}

template <u32 N, typename T>
__device__ __forceinline__ Run<N> load_range(const T* tensor, u32 at, u32 end) {
    return load_range<N>(tensor, at, 0, end);
}

template <u32 N, typename T>
__device__ __forceinline__ void store_range(T* tensor, u32 at, u32 begin, u32 end, const Run<N>& run) {
    if (at >= begin && at + N <= end) {
        store(tensor + at, run);
        return;
    }
#pragma unroll
    for (u32 i = 0; i < N; i += 1) {
        if (at + i >= begin && at + i < end) {
            narrow(run.at[i], tensor[at + i]);
        }
    }
}

template <u32 N, typename T>
__device__ __forceinline__ void store_range(T* tensor, u32 at, u32 end, const Run<N>& run) {
    store_range(tensor, at, 0, end, run);
}

// Columns column .. column + N of a row of `width`; zero beyond its end. column is a multiple of N.
template <u32 N, typename T>
__device__ __forceinline__ Run<N> load_row(const T* row, u32 column, u32 width) {
    Run<N> run = {};
    if (width % N == 0) {
        if (column < width) {
            run = load<N>(row + column);
        }
        return run;
    }
#pragma unroll
    for (u32 i = 0; i < N; i += 1) {
        if (column + i < width) {
            run.at[i] = widen(row[column + i]);
        }
    }
    return run;
}

template <u32 N, typename T>
__device__ __forceinline__ void store_row(T* row, u32 column, u32 width, const Run<N>& run) {
    if (width % N == 0) {
        if (column < width) {
            store(row + column, run);
        }
        return;
    }
#pragma unroll
    for (u32 i = 0; i < N; i += 1) {
        if (column + i < width) {
            narrow(run.at[i], row[column + i]);
        }
    }
}
