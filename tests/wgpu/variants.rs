//! The choice among a kernel's variants.

use super::*;

/// A product of 70 rows with the bits that it leaves.
fn product(adapter: &Adapter, variants: &Variants) -> Result<(Option<String>, &'static str, Vec<u32>), DeviceError> {
    let params = no_params();
    let mut r = Recorder::new("product", &params);
    let rows = Extent::counted(Count::Tokens, 70);
    let (x, w) = (
        r.input("x", rows, 36, DType::F32),
        r.input("w", Extent::fixed(65), 36, DType::F32),
    );
    let b = r.input("b", Extent::fixed(1), 65, DType::F32);
    let y = r.output("y", rows, 65);
    r.launch(&gemm::FORWARD, &[x, w, b, y], &[]).unwrap();
    let plan = r.finish();
    let mut device = WgpuDevice::new(adapter, Sizes::of(0, false, &[&plan]), variants)?;
    let program = device.load(&plan)?;
    let numbers: Vec<f32> = (0..plan.input_words()).map(|index| (index as f32).sin()).collect();
    device.write(Space::Inputs, 0, &bits(&numbers))?;
    let step = StepParams {
        tokens: 70,
        ..StepParams::default()
    };
    device.write(Space::Inputs, 0, step.words())?;
    device.run(program)?;
    let y = bits(&read(&mut device, &plan, "y"));
    Ok((device.remark(), device.variants(program)[0], y))
}

#[test]
fn the_fastest_variant_is_measured_once_and_what_the_file_says_is_taken() {
    let Some(adapter) = adapter() else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cache/variants.json");
    let measured = Variants::parse("measured", Some(file.clone())).unwrap();
    let (remark, fastest, expected) = product(&adapter, &measured).unwrap();
    assert!(
        remark
            .unwrap()
            .contains("1 launches measured now, 0 as measured before")
    );
    let text = std::fs::read_to_string(&file).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&text).unwrap();
    let entries = kept.as_object().unwrap().values().next().unwrap().as_object().unwrap();
    let (key, entry) = entries.iter().next().unwrap();
    assert!(key.starts_with("gemm.forward rows=128 k=36 n=65 #"), "{key}");
    let times = entry["microseconds"].as_object().unwrap();
    let least = times
        .iter()
        .min_by(|a, b| a.1.as_f64().unwrap().total_cmp(&b.1.as_f64().unwrap()));
    assert_eq!(times.len(), gemm::FORWARD.wgsl.unwrap().variants.len());
    assert_eq!(
        (least.unwrap().0.as_str(), entry["variant"].as_str().unwrap()),
        (fastest, fastest)
    );

    let (remark, again, y) = product(&adapter, &measured).unwrap();
    assert!(remark.unwrap().contains("1 launches as measured before"));
    assert!(again == fastest && y == expected);

    let other = if fastest == "32x32" { "64x64" } else { "32x32" };
    let edited = text.replace(
        &format!("\"variant\": \"{fastest}\""),
        &format!("\"variant\": \"{other}\""),
    );
    std::fs::write(&file, edited).unwrap();
    let (_, edited, y) = product(&adapter, &measured).unwrap();
    assert!(edited == other && y == expected);
    let pinned = Variants::parse("gemm=128x64", Some(file.clone())).unwrap();
    let (_, pinned, y) = product(&adapter, &pinned).unwrap();
    assert!(pinned == "128x64" && y == expected);

    std::fs::write(&file, "{").unwrap();
    let error = product(&adapter, &measured).err().unwrap().to_string();
    assert!(
        error.contains("variants.json") && error.contains("delete the file"),
        "{error}"
    );
}
