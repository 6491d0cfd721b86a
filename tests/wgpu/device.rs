//! Transfers, and what an adapter refuses.

use super::*;

#[test]
fn transfers_longer_than_the_staging_buffer_arrive_whole() {
    let Some(adapter) = adapter() else { return };
    let sizes = Sizes {
        arena: 2_500_000,
        ..Sizes::default()
    };
    let mut device = device(&adapter, sizes);
    let sent: Vec<u32> = (0..2_400_000)
        .map(|index: u32| index.wrapping_mul(2_654_435_761))
        .collect();
    device.write(Space::Arena, 64, &sent).unwrap();
    let mut back = vec![0; sent.len()];
    device.read(Space::Arena, 64, &mut back).unwrap();
    assert!(
        back == sent,
        "first difference at {:?}",
        back.iter().zip(&sent).position(|(a, b)| a != b)
    );
    let mut zeros = vec![1; 64];
    device.read(Space::Arena, 0, &mut zeros).unwrap();
    assert_eq!(zeros, vec![0; 64], "buffers start as zero");
    assert!(matches!(
        device.read(Space::Arena, 2_499_999, &mut [0; 2]),
        Err(DeviceError::OutOfRange { .. })
    ));
}

/// A kernel without WGSL and one whose WGSL is wrong.
static MISSING: Kernel = Kernel {
    name: "missing",
    ..CODELESS
};
static BROKEN: Kernel = Kernel {
    name: "broken",
    wgsl: Some(Source::new(
        File {
            name: "tests/broken.wgsl",
            text: "\n\nfn f() -> u32 { return missing; }\n",
        },
        &["f"],
    )),
    ..CODELESS
};

/// The table of `copy` without its code.
const CODELESS: Kernel = Kernel {
    name: "copy",
    args: &[Arg::input("x", ["rows", "width"]), Arg::inout("y", ["rows", "width"])],
    constants: &["rows", "rows.count", "rows.start", "width", "accumulate_y"],
    cuda: None,
    wgsl: None,
    cpu: |_| (),
    reserve: None,
    grid: |_, _| [1, 1, 1],
    cost: |_| Cost::default(),
};

#[test]
fn what_an_adapter_cannot_do_is_refused_before_it_runs_with_the_reason() {
    let error = Adapter::open(Choice::Index(1_000), true).err().unwrap().to_string();
    assert!(error.contains("asked for adapter 1000"), "{error}");

    let Some(adapter) = adapter() else { return };
    let huge = Sizes {
        params: 1 << 50,
        ..Sizes::default()
    };
    let error = WgpuDevice::new(&adapter, huge, &Variants::First)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("Params needs 4503599627370496 bytes"), "{error}");

    let params = no_params();
    let load = |kernel: &'static Kernel, rows: u32, start: u32| {
        let mut r = Recorder::new("refused", &params);
        let x = r.input("x", Extent::fixed(rows + start), 8, DType::F32);
        let x = r.view(x, start, rows);
        let y = r.output("y", Extent::fixed(rows), 8);
        r.launch(kernel, &[x, y], &[("accumulate_y", 0)]).unwrap();
        let plan = r.finish();
        device(&adapter, Sizes::of(0, false, &[&plan]))
            .load(&plan)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert_eq!(load(&copy::COPY, 4, 8), Ok(()));
    let error = load(&copy::COPY, 4, 1).unwrap_err();
    assert!(error.contains("shows `x` from word 72 of Inputs on"), "{error}");
    let error = load(&MISSING, 4, 0).unwrap_err();
    assert!(error.contains("wgpu has no implementation of missing"), "{error}");
    let error = load(&BROKEN, 4, 0).unwrap_err();
    assert!(error.contains("tests/broken.wgsl:3:24"), "{error}");
    // 128 MiB and a little: more than WebGPU promises, less than most GPUs allow.
    match load(&copy::COPY, (1 << 22) + 64, 0) {
        Ok(()) => assert!(adapter.info().kind != AdapterKind::Software),
        Err(error) => assert!(
            error.contains("refused: copy, `x` needs 134219776 bytes in one tensor"),
            "{error}"
        ),
    }
}
