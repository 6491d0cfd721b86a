//! Copying a value: `y = x`, `dx (+)= dy`. For ops that work in place on an operand that must stay.

use rayon::prelude::*;

use crate::kernel::{Arg, Call, Cost, File, Kernel, PLAIN, Source, cover};
use crate::plan::{PlanError, Recorder, Value};

const WGSL: File = File {
    name: "shaders/copy.wgsl",
    text: include_str!("../../shaders/copy.wgsl"),
};

const CUDA: File = File {
    name: "kernels/copy.cu",
    text: include_str!("../../kernels/copy.cu"),
};

/// `y (+)= x`.
pub static COPY: Kernel = Kernel {
    name: "copy",
    args: &[Arg::input("x", ["rows", "width"]), Arg::inout("y", ["rows", "width"])],
    constants: &["rows", "rows.count", "rows.start", "width", "accumulate_y"],
    cuda: Some(Source::new(CUDA, "copy")),
    wgsl: Some(Source::new(WGSL, "copy")),
    cpu: run,
    grid: |dims, _| cover(dims.size("rows") * dims.size("width")),
    cost: |sizes| {
        let elements = sizes.get("rows") * sizes.get("width");
        Cost {
            flops: 0,
            read: 4 * elements,
            written: 4 * elements,
        }
    },
    variants: PLAIN,
};

/// All kernels of the room.
pub static KERNELS: &[&Kernel] = &[&COPY];

/// A copy of `x`.
///
/// # Errors
/// Shape mismatches, with the scope.
pub fn copy(r: &mut Recorder, x: Value) -> Result<Value, PlanError> {
    let info = r.info(x).clone();
    let y = r.value("copy", info.rows, info.width);
    r.launch(&COPY, &[x, y], &[("accumulate_y", 0)])?;
    r.backward(&[y], move |r| {
        let Some(dy) = r.incoming(y) else { return Ok(()) };
        let Some(dx) = r.outgoing(x)? else { return Ok(()) };
        r.launch(&COPY, &[dy, dx.value], &[("accumulate_y", dx.flag())])
    });
    Ok(y)
}

fn run(call: &Call) {
    let words = call.live("rows") * call.dims().size("width");
    let accumulate = call.dims().flag("accumulate_y");
    let (x, y) = (&call.f32(0)[..words], &mut call.f32_mut(1)[..words]);
    const CHUNK: usize = 16384;
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| {
        if accumulate {
            for (y, x) in y.iter_mut().zip(x) {
                *y += x;
            }
        } else {
            y.copy_from_slice(x);
        }
    });
}
