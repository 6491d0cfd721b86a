//! Mistakes that must be found, each in a kernel of `broken/` beside the same kernel without it, which must be clean.

mod harness;

use harness::{Arg, Device, Pinned, device};

/// The line that a source marks.
fn marked_line(source: &str) -> usize {
    source
        .lines()
        .position(|line| line.contains("// BUG"))
        .expect("a line is marked")
        + 1
}

/// Runs both kernels of a file; the message about the broken one must have these parts, and its line.
fn check(device: &Device, name: &str, grid: u32, n: u32, parts: &[&str]) {
    let path = harness::workspace().join(format!("tests/cuda_emulator/broken/{name}.cu"));
    let source = std::fs::read_to_string(path).unwrap();
    let place = format!("{name}.cu:{}", marked_line(&source));
    for seed in [0, 1, 2] {
        device.control.set_seed(seed);
        for entry in ["broken", "fixed"] {
            device.control.reset();
            let kernel = device.kernel(&format!("{name}.cu"), &source, entry);
            let x = device.floats(&[1.0; 64]);
            let y = device.floats(&[0.0; 64]);
            let result = device.launch(&kernel, grid, 64, &[Arg::F32(&x), Arg::F32(&y), Arg::Number(n)]);
            let findings = device.control.findings();
            device.control.reset();
            if entry == "fixed" {
                assert_eq!((result, findings), (Ok(()), Vec::new()), "{name}, seed {seed}");
                continue;
            }
            let error = result.expect_err(name);
            assert_eq!(findings.len(), 1, "{name}, seed {seed}: {findings:?}");
            assert!(
                error.contains(&findings[0]),
                "{name}: the error has the finding: {error}"
            );
            for part in parts.iter().chain([&place.as_str(), &"kernel broken"]) {
                assert!(
                    findings[0].contains(part),
                    "{name}, seed {seed}: no {part:?} in {:?}",
                    findings[0]
                );
            }
        }
    }
}

macro_rules! broken {
    ($name:ident, $grid:expr, $n:expr, $parts:expr) => {
        #[test]
        fn $name() {
            let Some(device) = device() else { return };
            check(&device, stringify!($name), $grid, $n, &$parts);
        }
    };
}

broken!(
    out_of_bounds_read,
    1,
    64,
    [
        "out of bounds: ",
        "reads 4 bytes at 0 bytes past the end of allocation",
        "(256 bytes)",
        "thread (63, 0, 0)"
    ]
);
broken!(
    out_of_bounds_write,
    2,
    64,
    [
        "out of bounds: ",
        "writes 4 bytes at ",
        " bytes past the end of allocation",
        "block (1, 0, 0)"
    ]
);
broken!(
    out_of_bounds_shared,
    1,
    3,
    ["out of bounds: ", "byte 256 of 256 bytes of shared memory"]
);
broken!(uninitialised_shared, 1, 0, ["uninitialised shared memory: ", "of tile"]);
broken!(
    missing_barrier,
    1,
    0,
    [
        "race: in shared memory: ",
        "missing_barrier.cu:7 (thread ",
        "writes",
        "reads",
        "of tile"
    ]
);
broken!(
    missing_warp_barrier,
    1,
    0,
    [
        "race: in shared memory: missing_warp_barrier.cu:5 ",
        "writes, ",
        "reads "
    ]
);
broken!(
    missing_second_barrier,
    1,
    3,
    ["race: in shared memory: ", "missing_second_barrier.cu:9 ", "of tile"]
);
broken!(
    divergent_barrier,
    1,
    40,
    ["divergent barrier: ", "waits, thread 40 has exited"]
);
broken!(
    exited_lane,
    1,
    20,
    ["warp mask: ", "names lanes that have exited (0xfff00000)"]
);
broken!(
    misaligned,
    1,
    0,
    ["misaligned address: ", "16 bytes at address", "no multiple of 16"]
);
broken!(
    missing_copy_wait,
    1,
    0,
    ["copy not awaited: ", "of tile while cp.async is still writing it"]
);
broken!(
    global_race,
    3,
    0,
    [
        "race: in global memory: global_race.cu:5 (block ",
        "byte 0 of allocation"
    ]
);
broken!(
    deadlock,
    1,
    0,
    [
        "deadlock: ",
        "wait for the lanes 0xffffffff of their warp",
        "at barrier 0 for all threads"
    ]
);

#[test]
fn endless_loop() {
    let Some(device) = device() else { return };
    device.control.set_step_limit(1_000_000);
    check(
        &device,
        "endless_loop",
        1,
        0,
        &["timeout: ", "more than 1000000 instructions"],
    );
    device.control.set_step_limit(2_000_000_000);
}

#[test]
fn kinds_have_the_error_codes_of_the_driver() {
    let Some(device) = device() else { return };
    for (name, n, code) in [
        ("out_of_bounds_read", 64, "CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("misaligned", 0, "CUDA_ERROR_MISALIGNED_ADDRESS"),
        ("missing_barrier", 0, "CUDA_ERROR_LAUNCH_FAILED"),
    ] {
        let path = harness::workspace().join(format!("tests/cuda_emulator/broken/{name}.cu"));
        let kernel = device.kernel(name, &std::fs::read_to_string(path).unwrap(), "broken");
        let (x, y) = (device.floats(&[1.0; 64]), device.floats(&[0.0; 64]));
        let args = [Arg::F32(&x), Arg::F32(&y), Arg::Number(n)];
        let error = device.launch(&kernel, 1, 64, &args).unwrap_err();
        assert!(error.contains(code), "{error}");
        // It stays until it is reset.
        let again = device.stream.synchronize().unwrap_err().to_string();
        assert!(again.contains(code), "{again}");
        device.control.reset();
        device.stream.synchronize().unwrap();
    }
}

#[test]
fn use_after_free_is_found() {
    let Some(device) = device() else { return };
    let source = "extern \"C\" __global__ void late(float* x) {\n    x[threadIdx.x] = 1.0f;\n}\n";
    let kernel = device.kernel("late.cu", source, "late");
    let x = device.floats(&[0.0; 32]);
    let address = {
        use cudarc::driver::DevicePtr;
        x.device_ptr(&device.stream).0
    };
    device.launch(&kernel, 1, 32, &[Arg::Address(address)]).unwrap();
    drop(x);
    let error = device.launch(&kernel, 1, 32, &[Arg::Address(address)]).unwrap_err();
    assert!(
        error.contains("use after free: late.cu:2: writes 4 bytes at byte 0 of allocation"),
        "{error}"
    );
    device.control.reset();
}

#[test]
fn a_missing_synchronisation_of_the_host_shows_in_lazy_mode() {
    let Some(device) = device() else { return };
    let source = "extern \"C\" __global__ void ones(float* x) {\n    x[threadIdx.x] = 1.0f;\n}\n";
    let kernel = device.kernel("ones.cu", source, "ones");
    let x = device.floats(&[0.0; 32]);
    let host = Pinned::new(32, 7.0);
    device.control.set_lazy(true);
    let address = {
        use cudarc::driver::DevicePtr;
        x.device_ptr(&device.stream).0
    };
    let launch = |wait: bool| {
        // SAFETY: the memory is pinned and stays until the end of the test.
        unsafe {
            let config = cudarc::driver::LaunchConfig {
                grid_dim: (1, 1, 1),
                block_dim: (32, 1, 1),
                shared_mem_bytes: 0,
            };
            use cudarc::driver::PushKernelArg;
            device
                .stream
                .launch_builder(&kernel)
                .arg(&address)
                .launch(config)
                .unwrap();
            let target = std::slice::from_raw_parts_mut(host.address, 32);
            cudarc::driver::result::memcpy_dtoh_async(target, address, device.stream.cu_stream()).unwrap();
        }
        if wait {
            device.stream.synchronize().unwrap();
        }
        host.read()
    };
    assert_eq!(launch(false), [7.0; 32], "nothing is done before somebody waits");
    assert_eq!(device.control.pending(), 2);
    assert_eq!(launch(true), [1.0; 32]);
    assert_eq!(device.control.pending(), 0);
    device.control.set_lazy(false);
}
