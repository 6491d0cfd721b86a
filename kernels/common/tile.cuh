// Tiles of elements of two bytes in shared memory, made of chunks of 8 elements (16 bytes), and the fragments of mma.cuh in
// them. The chunks of 8 neighbouring rows at one column lie in different banks, and so do 8 neighbouring chunks, so that
// neither ldmatrix nor the copies that fill a tile have conflicts.
#pragma once

#include "common/mma.cuh"

constexpr u32 CHUNK = 8;

// A matrix in global memory, row by row; its parts outside `rows` and `columns` are taken as zero and never read. Chunks are
// aligned where pitch and columns (and the first element's offset) are multiples of 8.
struct Matrix {
    const Stored* data;
    u32 rows;
    u32 columns;
    u32 pitch; // elements from a row to the next
};

// Copies a chunk of a matrix whose chunks are not aligned: pairs where its rows begin at them, else single elements.
__device__ __forceinline__ void copy_loose_chunk(uint4* to, const Matrix& matrix, u32 row, u32 column) {
    const Stored* from = matrix.data + static_cast<size_t>(row) * matrix.pitch + column;
    const bool inside = row < matrix.rows;
    if ((matrix.columns | matrix.pitch) % 2 == 0) {
#pragma unroll
        for (u32 i = 0; i < CHUNK; i += 2) {
            copy_async<4>(reinterpret_cast<u32*>(to) + i / 2, from + i, inside && column + i < matrix.columns);
        }
    } else {
        u32 words[CHUNK / 2] = {};
#pragma unroll
        for (u32 i = 0; i < CHUNK; i += 1) {
            if (inside && column + i < matrix.columns) {
                words[i / 2] |= static_cast<u32>(from[i].bits) << (16 * (i % 2));
            }
        }
        *to = make_uint4(words[0], words[1], words[2], words[3]);
    }
}

// A tile of ROWS rows of CHUNKS chunks.
template <u32 ROWS, u32 CHUNKS>
struct Tile {
    static constexpr u32 PITCH = CHUNKS == 4 || CHUNKS % 8 == 0 ? CHUNKS : CHUNKS | 1; // chunks from a row to the next
    static constexpr u32 SIZE = ROWS * PITCH;                                          // chunks

    uint4* data;

    // Where a chunk lies.
    __device__ __forceinline__ uint4* at(u32 row, u32 chunk) const {
        if constexpr (CHUNKS == 4) {
            return data + row * PITCH + (chunk ^ (row / 2 % 4));
        } else if constexpr (CHUNKS % 8 == 0) {
            return data + row * PITCH + (chunk ^ (row % 8));
        } else {
            return data + row * PITCH + chunk;
        }
    }

    // Copies the part of a matrix that begins at row and column, as a part of the current group of copies.
    __device__ __forceinline__ void copy(const Matrix& matrix, u32 row, u32 column) const {
        if ((matrix.columns | matrix.pitch) % CHUNK == 0) {
            copy_aligned(matrix, row, column);
        } else {
            copy_loose(matrix, row, column);
        }
    }

    // The same of a matrix whose chunks are aligned.
    __device__ __forceinline__ void copy_aligned(const Matrix& matrix, u32 row, u32 column) const {
#pragma unroll
        for (u32 i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
            const u32 from_row = row + i / CHUNKS;
            const u32 from_column = column + i % CHUNKS * CHUNK;
            const Stored* from = matrix.data + static_cast<size_t>(from_row) * matrix.pitch + from_column;
            const bool inside = from_row < matrix.rows && from_column < matrix.columns;
            copy_async<16>(at(i / CHUNKS, i % CHUNKS), from, inside);
        }
    }

    // The same of any matrix.
    __device__ __forceinline__ void copy_loose(const Matrix& matrix, u32 row, u32 column) const {
#pragma unroll 1
        for (u32 i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
            copy_loose_chunk(at(i / CHUNKS, i % CHUNKS), matrix, row + i / CHUNKS, column + i % CHUNKS * CHUNK);
        }
    }

    // Fragments; lengths along the depth are in chunks. A tile whose rows run along the depth holds a as [rows][depth] and b
    // as [columns][depth]; a turned one holds them as [depth][rows] and [depth][columns].

    // a: rows row .. row + 16, depth chunk and the next.
    __device__ __forceinline__ void load_a(u32 (&a)[4], u32 row, u32 chunk) const {
        const u32 lane = threadIdx.x % 32;
        load_blocks(a, at(row + lane % 16, chunk + lane / 16));
    }

    // a: 16 rows from row chunk `chunk` on, depth .. depth + 16.
    __device__ __forceinline__ void load_a_turned(u32 (&a)[4], u32 depth, u32 chunk) const {
        const u32 lane = threadIdx.x % 32;
        load_blocks_turned(a, at(depth + lane % 8 + lane / 16 * 8, chunk + lane / 8 % 2));
    }

    // Two neighbouring b: columns column .. column + 16, depth chunk and the next. The first is b[0], b[1].
    __device__ __forceinline__ void load_b(u32 (&b)[4], u32 column, u32 chunk) const {
        const u32 lane = threadIdx.x % 32;
        load_blocks(b, at(column + lane % 8 + lane / 16 * 8, chunk + lane / 8 % 2));
    }

    // Two neighbouring b: 16 columns from column chunk `chunk` on, depth .. depth + 16.
    __device__ __forceinline__ void load_b_turned(u32 (&b)[4], u32 depth, u32 chunk) const {
        const u32 lane = threadIdx.x % 32;
        load_blocks_turned(b, at(depth + lane % 16, chunk + lane / 16));
    }
};
