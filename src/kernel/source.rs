//! Sources of the GPU backends: one file per op stem and language, preceded by that language's shared files.
//!
//! Every WGSL module is the files of `shaders/common/` followed by the op's file: WGSL has no include. Every CUDA program
//! can `#include` the files of `kernels/common/`, which are compiled into the crate like the ops' own.

/// A text with its name.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// Path below the crate's root, for messages; CUDA's shared files by the name that `#include` says.
    pub name: &'static str,
    /// Contents.
    pub text: &'static str,
}

/// `shaders/common/`, in the order in which they precede every op's file.
pub static WGSL_COMMON: &[File] = &[
    File {
        name: "shaders/common/step.wgsl",
        text: include_str!("../../shaders/common/step.wgsl"),
    },
    File {
        name: "shaders/common/sum.wgsl",
        text: include_str!("../../shaders/common/sum.wgsl"),
    },
    File {
        name: "shaders/common/dropout.wgsl",
        text: include_str!("../../shaders/common/dropout.wgsl"),
    },
    File {
        name: "shaders/common/math.wgsl",
        text: include_str!("../../shaders/common/math.wgsl"),
    },
];

/// `kernels/common/`.
pub static CUDA_COMMON: &[File] = &[
    File {
        name: "common/step.cuh",
        text: include_str!("../../kernels/common/step.cuh"),
    },
    File {
        name: "common/sum.cuh",
        text: include_str!("../../kernels/common/sum.cuh"),
    },
    File {
        name: "common/dropout.cuh",
        text: include_str!("../../kernels/common/dropout.cuh"),
    },
    File {
        name: "common/math.cuh",
        text: include_str!("../../kernels/common/math.cuh"),
    },
];

/// A kernel's source for one GPU backend.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The op's file.
    pub file: File,
    /// Entry point.
    pub entry: &'static str,
    /// Threads of one workgroup (block).
    pub threads: u32,
    /// Values for the `override` constants (WGSL) or `#define`s (CUDA) that select this kernel among those of the file.
    pub defines: &'static [(&'static str, u32)],
}

/// Threads of a workgroup unless a kernel says otherwise: what every WebGPU adapter allows.
pub const THREADS: u32 = 256;

impl Source {
    /// Entry point `entry` of `file` with workgroups of [`THREADS`].
    pub const fn new(file: File, entry: &'static str) -> Source {
        Source {
            file,
            entry,
            threads: THREADS,
            defines: &[],
        }
    }
}

/// Workgroups (blocks) of a launch in x, y, z.
pub type Grid = [u32; 3];

/// Workgroups of [`THREADS`] threads that give each of `elements` a thread; a grid has at most 65,535 in each direction,
/// so they continue in y. Kernels count `(y * workgroups in x + x) * THREADS + thread`.
pub const fn cover(elements: usize) -> Grid {
    const MOST: usize = 65_535;
    let groups = elements.div_ceil(THREADS as usize);
    let rows = groups.div_ceil(MOST);
    if rows <= 1 {
        return [groups as u32, 1, 1];
    }
    [groups.div_ceil(rows) as u32, rows as u32, 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_cover_every_element_within_the_limits_of_all_backends() {
        for elements in [
            0,
            1,
            256,
            257,
            65_535 * 256,
            65_535 * 256 + 1,
            32_768 * 3_072,
            500_000_000,
        ] {
            let [x, y, z] = cover(elements);
            assert!(x <= 65_535 && y <= 65_535 && z == 1, "{elements}: {x} x {y}");
            let groups = x as usize * y as usize;
            assert!(groups * 256 >= elements, "{elements}: {x} x {y}");
            assert!(
                groups * 256 < elements + 256 * (y as usize + 1),
                "{elements}: {x} x {y} is too many"
            );
        }
    }
}
