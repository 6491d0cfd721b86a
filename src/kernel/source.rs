//! Sources of the GPU backends: one file per op stem and language, preceded by that language's shared files.
//!
//! A variant's defines become constants before the file, so that tile sizes can size arrays and unroll loops; every
//! combination is a module of its own.
//!
//! Every WGSL module is the files of `shaders/common/` followed by the op's file: WGSL has no include. Every CUDA program
//! can `#include` the files of `kernels/common/`, which are compiled into the crate like the ops' own.

use super::{Dims, Kernel, Precision, Product};

/// A text with its name.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// Path below the crate's root, for messages; CUDA's shared files by the name that `#include` says.
    pub name: &'static str,
    /// Contents.
    pub text: &'static str,
}

/// What precedes the files of [`WGSL_COMMON`]: exchange inside a subgroup, for variants that do it and for all others.
pub static WGSL_LANES: [File; 2] = [
    File {
        name: "shaders/common/lanes.wgsl",
        text: include_str!("../../shaders/common/lanes.wgsl"),
    },
    File {
        name: "shaders/common/subgroup_lanes.wgsl",
        text: include_str!("../../shaders/common/subgroup_lanes.wgsl"),
    },
];

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
    File {
        name: "common/stored.cuh",
        text: include_str!("../../kernels/common/stored.cuh"),
    },
    File {
        name: "common/async.cuh",
        text: include_str!("../../kernels/common/async.cuh"),
    },
    File {
        name: "common/mma.cuh",
        text: include_str!("../../kernels/common/mma.cuh"),
    },
    File {
        name: "common/tile.cuh",
        text: include_str!("../../kernels/common/tile.cuh"),
    },
];

/// A kernel's source for one GPU backend.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The op's file.
    pub file: File,
    /// Entry points, one in almost every case. A launch runs them one after the other with the same grid and arguments,
    /// of which each may leave some alone.
    pub entries: &'static [&'static str],
    /// Ways to run it; `[0]` runs on every device.
    pub variants: &'static [Variant],
    /// Launch constants and sizes whose values are compiled in, because they size arrays or unroll loops: `head_size` is
    /// `HEAD_SIZE` in the file.
    pub compiled: &'static [&'static str],
    /// What runs in its place where elements are stored in two bytes, if that is another program: products on matrix units.
    pub half: Option<&'static Source>,
    /// Workgroups, where this source cuts the work in another way than [`Kernel::grid`] says.
    pub grid: Option<fn(&Dims, &Variant) -> Grid>,
    /// Bytes of shared memory that a launch asks for beyond what the file declares (CUDA).
    pub shared: Option<fn(&Dims, &Variant) -> u32>,
    /// The product that it is, if a vendor's library may compute it: as variant [`Source::vendor`], which only a pin takes.
    pub product: Option<&'static Product>,
}

/// Name of the variant that is a product of NVIDIA's library. It sums in another order than the variants of the tables and
/// so gives other bits; nothing takes it but a pin.
pub const VENDOR: &str = "cublaslt";

/// One way to run a kernel on a backend. All variants of a kernel give the same bits: they differ in which thread computes
/// what, not in the order of a sum.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Name in profiles and tests.
    pub name: &'static str,
    /// Threads of one workgroup (block); `THREADS` in the file.
    pub threads: u32,
    /// Tile sizes and the like: `const` (WGSL) or `#define` (CUDA) before the file.
    pub defines: &'static [(&'static str, u32)],
    /// Whether it exchanges values inside subgroups, which not every WebGPU adapter can.
    pub subgroups: bool,
}

/// Threads of a workgroup unless a kernel says otherwise: what every WebGPU adapter allows.
pub const THREADS: u32 = 256;

impl Source {
    /// The entry points of `file` with workgroups of [`THREADS`] and nothing to choose.
    pub const fn new(file: File, entries: &'static [&'static str]) -> Source {
        Source {
            file,
            entries,
            variants: PLAIN,
            compiled: &[],
            half: None,
            grid: None,
            shared: None,
            product: None,
        }
    }

    /// The same with these variants.
    pub const fn with_variants(self, variants: &'static [Variant]) -> Source {
        Source { variants, ..self }
    }

    /// The same with these launch constants compiled in.
    pub const fn with_compiled(self, compiled: &'static [&'static str]) -> Source {
        Source { compiled, ..self }
    }

    /// The same with another program for elements of two bytes.
    pub const fn with_half(self, half: &'static Source) -> Source {
        Source {
            half: Some(half),
            ..self
        }
    }

    /// The same with a grid of its own.
    pub const fn with_grid(self, grid: fn(&Dims, &Variant) -> Grid) -> Source {
        Source {
            grid: Some(grid),
            ..self
        }
    }

    /// The same with shared memory that the launch asks for.
    pub const fn with_shared(self, shared: fn(&Dims, &Variant) -> u32) -> Source {
        Source {
            shared: Some(shared),
            ..self
        }
    }

    /// The same for a kernel that is a product.
    pub const fn with_product(self, product: &'static Product) -> Source {
        Source {
            product: Some(product),
            ..self
        }
    }

    /// The number that stands for the vendor's library, after those of the variants.
    pub fn vendor(&self) -> usize {
        self.variants.len()
    }

    /// The number of the variant with a name.
    pub fn variant(&self, name: &str) -> Option<usize> {
        match name {
            VENDOR if self.product.is_some() => Some(self.vendor()),
            name => self.variants.iter().position(|variant| variant.name == name),
        }
    }

    /// Names of all variants in the order of their numbers.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let vendor = self.product.map(|_| VENDOR);
        self.variants.iter().map(|variant| variant.name).chain(vendor)
    }

    /// What runs where elements are stored like this.
    pub fn storing(&self, precision: Precision) -> &Source {
        match (self.half, precision) {
            (Some(half), Precision::F16 | Precision::Bf16) => half,
            _ => self,
        }
    }

    /// Workgroups of a launch.
    pub fn workgroups(&self, kernel: &Kernel, dims: &Dims, variant: &Variant) -> Grid {
        self.grid.unwrap_or(kernel.grid)(dims, variant)
    }

    /// Bytes of shared memory that a launch asks for beyond what the file declares.
    pub fn shared_bytes(&self, dims: &Dims, variant: &Variant) -> u32 {
        self.shared.map_or(0, |bytes| bytes(dims, variant))
    }

    /// Everything that is defined before the file for a variant at a launch's sizes.
    pub fn defines(&self, variant: &Variant, dims: &Dims) -> Vec<(String, u32)> {
        let fixed = [("THREADS", variant.threads)];
        let fixed = fixed
            .iter()
            .chain(variant.defines)
            .map(|&(name, value)| (name.to_owned(), value));
        let word = |name| {
            dims.device_word(name)
                .expect("what is compiled in is a constant or a symbol of the kernel's table")
        };
        let compiled = self.compiled.iter().map(|name| (name.to_uppercase(), word(name)));
        fixed.chain(compiled).collect()
    }
}

impl Variant {
    /// A variant that needs nothing special.
    pub const fn new(name: &'static str, threads: u32, defines: &'static [(&'static str, u32)]) -> Variant {
        Variant {
            name,
            threads,
            defines,
            subgroups: false,
        }
    }

    /// The same for a shader that exchanges values inside subgroups.
    pub const fn in_subgroups(self) -> Variant {
        Variant {
            subgroups: true,
            ..self
        }
    }

    /// A value of this variant's defines.
    ///
    /// # Panics
    /// If it has none of this name: a mistake in the kernel's table.
    pub fn define(&self, name: &str) -> u32 {
        let found = self.defines.iter().find(|(define, _)| *define == name);
        found.expect("grids ask for defines of their own table").1
    }
}

/// The only variant of a kernel that has nothing to choose.
pub const PLAIN: &[Variant] = &[Variant::new("plain", THREADS, &[])];

/// WGSL variants of a kernel that adds up over a workgroup.
pub const REDUCING: &[Variant] = &[
    Variant::new("plain", THREADS, &[]),
    Variant::new("subgroup", THREADS, &[]).in_subgroups(),
];

/// Workgroups (blocks) of a launch in x, y, z.
pub type Grid = [u32; 3];

/// At least `count` workgroups; a grid has at most 65,535 in each direction, so they continue in y. Kernels count
/// `y * workgroups in x + x`, and those beyond their work do nothing.
pub const fn workgroups(count: usize) -> Grid {
    const MOST: usize = 65_535;
    let rows = count.div_ceil(MOST);
    if rows <= 1 {
        return [count as u32, 1, 1];
    }
    [count.div_ceil(rows) as u32, rows as u32, 1]
}

/// [`workgroups`] of [`THREADS`] threads that give each of `elements` a thread.
pub const fn cover(elements: usize) -> Grid {
    workgroups(elements.div_ceil(THREADS as usize))
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
