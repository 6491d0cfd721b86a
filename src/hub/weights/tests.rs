use super::*;
use std::fs;

struct File {
    directory: tempfile::TempDir,
}

impl File {
    fn path(&self) -> PathBuf {
        self.directory.path().join("model.safetensors")
    }

    fn error(&self, bytes: &[u8]) -> String {
        fs::write(self.path(), bytes).unwrap();
        WeightsFile::open(&self.path()).unwrap_err().to_string()
    }
}

fn sample() -> (File, Vec<u8>) {
    let file = File {
        directory: tempfile::tempdir().unwrap(),
    };
    let a: Vec<f32> = (0..6).map(|i| i as f32 - 2.5).collect();
    let tensors = [
        Tensor {
            name: "b.bias",
            shape: &[3],
            data: &[f32::MIN_POSITIVE, f32::MAX, -0.0],
        },
        Tensor {
            name: "a.weight",
            shape: &[2, 3],
            data: &a,
        },
    ];
    write(&file.path(), &tensors, &[("step", "17")]).unwrap();
    let bytes = fs::read(file.path()).unwrap();
    (file, bytes)
}

#[test]
fn tensors_and_notes_come_back_and_the_reference_reader_agrees() {
    let (file, bytes) = sample();
    let read = WeightsFile::open(&file.path()).unwrap();
    assert_eq!(
        read.read("a.weight", &[2, 3]).unwrap(),
        [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]
    );
    assert_eq!(read.note("step"), Some("17"));
    let reference = SafeTensors::deserialize(&bytes).unwrap();
    let bias: Vec<u32> = reference
        .tensor("b.bias")
        .unwrap()
        .data()
        .chunks(4)
        .map(|x| u32::from_le_bytes(x.try_into().unwrap()))
        .collect();
    assert_eq!(bias, [0x0080_0000, 0x7f7f_ffff, 0x8000_0000]);
}

// python3 -c "import zlib, struct; print(hex(zlib.crc32(struct.pack('<9f', -2.5, -1.5, -.5, .5, 1.5, 2.5,
//             2.0**-126, (2 - 2.0**-23) * 2.0**127, -0.0))))"
#[test]
fn the_checksum_is_zlibs_crc32_of_the_data_in_order_of_names() {
    let (file, _) = sample();
    assert_eq!(WeightsFile::open(&file.path()).unwrap().note("crc32"), Some("d273dd11"));
}

#[test]
fn every_truncation_is_noticed() {
    let (file, bytes) = sample();
    for length in 0..bytes.len() {
        let message = file.error(&bytes[..length]);
        assert!(
            message.contains("is damaged") && message.contains("copy it again"),
            "{length}: {message}"
        );
    }
    assert!(file.error(&bytes[..bytes.len() - 4]).contains("announces another size"));
}

#[test]
fn every_flipped_bit_of_the_data_is_noticed() {
    let (file, bytes) = sample();
    let data_start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for bit in data_start * 8..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(file.error(&flipped).contains("checksum"), "bit {bit}");
    }
}

#[test]
fn a_missing_tensor_and_a_wrong_shape_are_named() {
    let (file, _) = sample();
    let read = WeightsFile::open(&file.path()).unwrap();
    let message = read.read("a.weights", &[2, 3]).unwrap_err().to_string();
    assert!(
        message.contains("no tensor \"a.weights\"") && message.contains("\"a.weight\""),
        "{message}"
    );
    let message = read.read("a.weight", &[3, 2]).unwrap_err().to_string();
    assert!(
        message.contains("F32 [2, 3]") && message.contains("[3, 2]"),
        "{message}"
    );
}

#[test]
fn half_and_double_precision_become_f32_under_older_names() {
    let file = File {
        directory: tempfile::tempdir().unwrap(),
    };
    let views = [
        (
            "embeddings.LayerNorm.gamma",
            Dtype::F16,
            [0x00, 0x3e, 0x00, 0xc0].as_slice(),
        ), // 1.5, -2
        (
            "embeddings.LayerNorm.beta",
            Dtype::BF16,
            [0xc0, 0x3f, 0x00, 0xc0].as_slice(),
        ), // 1.5, -2
    ]
    .map(|(name, dtype, data)| {
        (
            name,
            safetensors::tensor::TensorView::new(dtype, vec![2], data).unwrap(),
        )
    });
    safetensors::serialize_to_file(views, None, &file.path()).unwrap();
    let read = WeightsFile::open(&file.path()).unwrap();
    assert_eq!(
        read.read("bert.embeddings.LayerNorm.weight", &[2]).unwrap(),
        [1.5, -2.0]
    );
    assert_eq!(read.read("bert.embeddings.LayerNorm.bias", &[2]).unwrap(), [1.5, -2.0]);
    assert!(!read.contains("bert.pooler.dense.weight"));
}

#[test]
fn unusable_tensors_are_refused_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let short = [Tensor {
        name: "a",
        shape: &[2, 2],
        data: &[1.0; 3],
    }];
    assert!(
        write(&path, &short, &[])
            .unwrap_err()
            .to_string()
            .contains("4 elements, the data 3")
    );
    let twice = [Tensor {
        name: "a",
        shape: &[1],
        data: &[1.0],
    }; 2];
    assert!(
        write(&path, &twice, &[])
            .unwrap_err()
            .to_string()
            .contains("occurs twice")
    );
    assert!(!path.exists());
}

#[test]
fn the_same_tensors_give_the_same_bytes_in_any_order() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (directory.path().join("1"), directory.path().join("2"));
    let (a, b) = (
        Tensor {
            name: "a",
            shape: &[1],
            data: &[1.0],
        },
        Tensor {
            name: "b",
            shape: &[1],
            data: &[2.0],
        },
    );
    write(&one, &[a, b], &[("x", "1"), ("y", "2")]).unwrap();
    write(&two, &[b, a], &[("x", "1"), ("y", "2")]).unwrap();
    assert_eq!(fs::read(one).unwrap(), fs::read(two).unwrap());
}
