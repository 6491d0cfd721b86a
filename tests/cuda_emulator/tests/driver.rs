//! The driver's interface as cudarc uses it: graphs, streams, events, limits and refusals.

mod harness;

use cudarc::driver::sys::{CUdevice_attribute, CUevent_flags, CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use harness::{Arg, compile, device};

const SCALE: &str = r#"extern "C" __global__ void scale(float* x, float by, unsigned n) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        x[i] = x[i] * by + 0.1f;
    }
}
"#;

const FLAGS: CUgraphInstantiate_flags = CUgraphInstantiate_flags(0);

#[test]
fn the_device_does_not_call_itself_a_gpu() {
    let Some(device) = device() else { return };
    let context = &device.context;
    assert_eq!(CudaContext::device_count().unwrap(), 1);
    assert_eq!(context.name().unwrap(), "PTX interpreter (not a GPU)");
    assert_eq!(context.compute_capability().unwrap(), (8, 0));
    let attribute = |which| context.attribute(which).unwrap();
    assert_eq!(
        attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK),
        48 << 10
    );
    assert_eq!(
        attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN),
        163 << 10
    );
    assert_eq!(attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_WARP_SIZE), 32);
    assert!(CudaContext::new(1).is_err());
}

#[test]
fn a_graph_does_what_its_launches_do() {
    let Some(device) = device() else { return };
    let kernel = device.kernel("scale.cu", SCALE, "scale");
    // SAFETY: everything happens on one stream.
    unsafe { device.context.disable_event_tracking() };
    let stream = device.context.new_stream().unwrap();
    let data: Vec<f32> = (0..100).map(|at| at as f32).collect();
    let step = |x: &mut cudarc::driver::CudaSlice<f32>, spare: &mut cudarc::driver::CudaSlice<f32>| {
        for by in [0.5f32, 1.25] {
            // SAFETY: the emulator checks every access.
            unsafe {
                let config = LaunchConfig::for_num_elems(100);
                stream
                    .launch_builder(&kernel)
                    .arg(&mut *x)
                    .arg(&by)
                    .arg(&100u32)
                    .launch(config)
                    .unwrap();
            }
        }
        stream.memset_zeros(spare).unwrap();
        stream.memcpy_dtod(&*x, spare).unwrap();
    };
    for lazy in [false, true] {
        device.control.set_lazy(lazy);
        let (mut eager, mut eager_copy) = (stream.clone_htod(&data).unwrap(), stream.clone_htod(&data).unwrap());
        for _ in 0..3 {
            step(&mut eager, &mut eager_copy);
        }
        let (mut x, mut copy) = (stream.clone_htod(&data).unwrap(), stream.clone_htod(&data).unwrap());
        stream.synchronize().unwrap();
        stream
            .begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
            .unwrap();
        step(&mut x, &mut copy);
        let graph = stream.end_capture(FLAGS).unwrap().unwrap();
        assert_eq!(stream.clone_dtoh(&x).unwrap(), data, "capturing runs nothing");
        for _ in 0..3 {
            graph.launch().unwrap();
        }
        let expected = stream.clone_dtoh(&eager_copy).unwrap();
        assert_ne!(expected, data);
        assert_eq!(stream.clone_dtoh(&copy).unwrap(), expected);
        assert_eq!(stream.clone_dtoh(&x).unwrap(), expected);
    }
    // SAFETY: as before.
    unsafe { device.context.enable_event_tracking() };
}

#[test]
fn a_synchronisation_ends_a_capture() {
    let Some(device) = device() else { return };
    let stream = device.context.new_stream().unwrap();
    stream
        .begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL)
        .unwrap();
    let error = stream.synchronize().unwrap_err().to_string();
    assert!(error.contains("CAPTURE_UNSUPPORTED"), "{error}");
    let error = stream
        .end_capture(FLAGS)
        .err()
        .expect("the capture is invalid")
        .to_string();
    assert!(error.contains("CAPTURE_INVALIDATED"), "{error}");
    stream.synchronize().unwrap();
}

#[test]
fn streams_that_are_not_ordered_by_an_event_run_late() {
    let Some(device) = device() else { return };
    let kernel = device.kernel("scale.cu", SCALE, "scale");
    // SAFETY: what is missing is the test.
    unsafe { device.context.disable_event_tracking() };
    let (first, second) = (
        device.context.new_stream().unwrap(),
        device.context.new_stream().unwrap(),
    );
    let x = first.clone_htod(&[1.0f32; 32]).unwrap();
    first.synchronize().unwrap();
    device.control.set_lazy(true);
    let launch = || {
        // SAFETY: the emulator checks every access.
        unsafe {
            let config = LaunchConfig::for_num_elems(32);
            first
                .launch_builder(&kernel)
                .arg(&x)
                .arg(&0f32)
                .arg(&32u32)
                .launch(config)
                .unwrap();
        }
    };
    launch();
    assert_eq!(second.clone_dtoh(&x).unwrap()[0], 1.0, "nothing orders the streams");
    let event = first.record_event(None).unwrap();
    second.wait(&event).unwrap();
    assert_eq!(second.clone_dtoh(&x).unwrap()[0], 0.1);
    device.control.set_lazy(false);
    // SAFETY: as before.
    unsafe { device.context.enable_event_tracking() };
}

#[test]
fn events_measure_the_time_of_the_host() {
    let Some(device) = device() else { return };
    let flags = Some(CUevent_flags::CU_EVENT_DEFAULT);
    let start = device.stream.record_event(flags).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let end = device.stream.record_event(flags).unwrap();
    end.synchronize().unwrap();
    assert!((15.0..5000.0).contains(&start.elapsed_ms(&end).unwrap()));
}

#[test]
fn seeds_and_threads_of_the_host_change_no_bit() {
    let Some(device) = device() else { return };
    let source = r#"extern "C" __global__ void sums(const float* x, float* y) {
    __shared__ float tile[128];
    float sum = 0.0f;
    for (unsigned i = threadIdx.x; i < 1000; i += 128) {
        if ((i + blockIdx.x) % 3 == 0) {
            sum += x[i] * 1.7f;
        } else {
            sum -= x[i] / 3.3f;
        }
    }
    tile[threadIdx.x] = sum;
    for (unsigned half = 64; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) tile[threadIdx.x] += tile[threadIdx.x + half];
    }
    if (threadIdx.x == 0) {
        y[blockIdx.x] = tile[0];
        atomicAdd(&y[40], tile[0]);
    }
}
"#;
    let kernel = device.kernel("sums.cu", source, "sums");
    let x: Vec<f32> = (0..1000).map(|at| (at as f32).sin()).collect();
    let mut results = Vec::new();
    for (seed, threads) in [(0, 1), (0, 2), (1, 1), (77, 3)] {
        device.control.set_seed(seed);
        device.control.set_threads(threads);
        let (input, output) = (device.floats(&x), device.floats(&[0.0; 41]));
        device
            .launch(&kernel, 40, 128, &[Arg::F32(&input), Arg::F32(&output)])
            .unwrap();
        results.push(device.read(&output).into_iter().map(f32::to_bits).collect::<Vec<_>>());
    }
    device.control.set_threads(2);
    assert!(results.iter().all(|result| *result == results[0]));
}

#[test]
fn launches_beyond_the_limits_are_refused() {
    let Some(device) = device() else { return };
    let kernel = device.kernel("scale.cu", SCALE, "scale");
    let x = device.floats(&[0.0; 32]);
    let args = || [Arg::F32(&x), Arg::Float(1.0), Arg::Number(32)];
    let error = device.launch(&kernel, 1, 2048, &args()).unwrap_err();
    assert!(error.contains("INVALID_VALUE") && error.contains("2048"), "{error}");
    let error = device.launch(&kernel, 0, 32, &args()).unwrap_err();
    assert!(error.contains("INVALID_VALUE"), "{error}");
    let error = device
        .launch_shared(&kernel, (1, 1, 1), 32, 100_000, &args())
        .unwrap_err();
    assert!(error.contains("dynamic shared memory"), "{error}");
    let which = cudarc::driver::sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    kernel.set_attribute(which, 100_000).unwrap();
    device.launch_shared(&kernel, (1, 1, 1), 32, 100_000, &args()).unwrap();
    assert!(kernel.set_attribute(which, 200_000).is_err());
    assert_eq!(
        kernel
            .occupancy_max_active_blocks_per_multiprocessor(256, 0, None)
            .unwrap(),
        8
    );
}

#[test]
fn what_does_not_load_says_why() {
    let Some(device) = device() else { return };
    let load = |ptx: Ptx| match device.context.load_module(ptx) {
        Ok(_) => panic!("it loads"),
        Err(error) => error.to_string(),
    };
    let error = load(Ptx::from_src("\u{7f}ELF..."));
    assert!(
        error.contains("NO_BINARY_FOR_GPU") && error.contains("cubin"),
        "{error}"
    );
    let ptx = compile("scale.cu", SCALE, &[]);
    let error = load(Ptx::from_src(ptx.replace("fma.rn.f32", "fma.odd.f32")));
    assert!(
        error.contains("INVALID_PTX") && error.contains("fma.odd.f32"),
        "{error}"
    );
    let error = load(Ptx::from_src(ptx.replace(".target sm_80", ".target sm_90")));
    assert!(error.contains("sm_90"), "{error}");
    let module = device.context.load_module(Ptx::from_src(ptx)).unwrap();
    let error = module
        .load_function("shrink")
        .expect_err("there is no such kernel")
        .to_string();
    assert!(error.contains("no kernel shrink; there are scale"), "{error}");
}

#[test]
fn memory_with_a_name_is_reported_by_it() {
    let Some(device) = device() else { return };
    let source = "extern \"C\" __global__ void all(float* x) {\n    x[0] = blockIdx.x;\n}\n";
    let kernel = device.kernel("all.cu", source, "all");
    let x = device.floats(&[0.0; 32]);
    let address = {
        use cudarc::driver::DevicePtr;
        x.device_ptr(&device.stream).0
    };
    device.control.name_memory(address, 128, "weights");
    let error = device.launch(&kernel, 2, 1, &[Arg::F32(&x)]).unwrap_err();
    assert!(error.contains("byte 0 of weights"), "{error}");
    device.control.reset();
}
