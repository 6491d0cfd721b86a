//! A reader of TensorBoard's event files that shares nothing with the writer: checksums bit by bit, messages field by
//! field.

use std::path::Path;

/// (seed, tag, step, value as f32 bits).
pub type Point = (u64, String, u64, u32);

/// Every point of a run's event files, sorted.
pub fn of_run(run: &Path) -> Vec<Point> {
    let mut points = Vec::new();
    for entry in std::fs::read_dir(run.join("tensorboard")).unwrap() {
        let directory = entry.unwrap().path();
        let seed = directory.file_name().unwrap().to_str().unwrap();
        let seed: u64 = seed.strip_prefix("seed-").unwrap().parse().unwrap();
        for file in std::fs::read_dir(&directory).unwrap() {
            let path = file.unwrap().path();
            assert!(path.to_str().unwrap().contains("tfevents"), "{}", path.display());
            let events = records(&std::fs::read(&path).unwrap());
            let version = fields(&events[0]).into_iter().find(|(number, _)| *number == 3).unwrap();
            assert_eq!(version.1, b"brain.Event:2");
            for event in &events[1..] {
                points.extend(
                    scalars(event)
                        .into_iter()
                        .map(|(tag, step, value)| (seed, tag, step, value)),
                );
            }
        }
    }
    points.sort();
    points
}

/// The points that the run's log demands, sorted.
pub fn of_log(run: &Path) -> Vec<Point> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let mut points = Vec::new();
    for line in text.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let (seed, step) = (row["seed"].as_u64().unwrap(), row["step"].as_u64().unwrap());
        for name in [
            "mlm_loss",
            "task_loss",
            "learning_rate",
            "gradient_norm",
            "tokens_per_second",
            "mfu",
            "speed_of_light",
            "packing_efficiency",
            "dev_score",
            "dev_loss",
        ] {
            let Some(value) = row[name].as_f64() else { continue };
            let kind = match (name, row["kind"].as_str()) {
                ("mlm_loss", Some(kind)) => format!("_{kind}"),
                _ => String::new(),
            };
            let tag = format!("stage{}/{name}{kind}", row["stage"]);
            points.push((seed, tag, step, (value as f32).to_bits()));
        }
    }
    points.sort();
    points
}

/// The data of every record; checksums and lengths must be right to the last byte.
fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_at(8);
        let (length_crc, rest) = rest.split_at(4);
        assert_eq!(length_crc, masked_crc(length).to_le_bytes());
        let (data, rest) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
        let (data_crc, rest) = rest.split_at(4);
        assert_eq!(data_crc, masked_crc(data).to_le_bytes());
        records.push(data.to_vec());
        bytes = rest;
    }
    records
}

/// CRC-32C by long division, masked.
fn masked_crc(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    (!crc).rotate_left(17).wrapping_add(0xa282_ead8)
}

/// Number and bytes of every field of a message.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = match key & 7 {
            0 => {
                let value = varint(&mut bytes);
                fields.push((key >> 3, value.to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            2 => varint(&mut bytes) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (value, rest) = bytes.split_at(length);
        fields.push((key >> 3, value.to_vec()));
        bytes = rest;
    }
    fields
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

fn scalars(event: &[u8]) -> Vec<(String, u64, u32)> {
    let event = fields(event);
    let field = |number: u64| &event.iter().find(|(found, _)| *found == number).unwrap().1;
    let time = f64::from_le_bytes(field(1).as_slice().try_into().unwrap());
    assert!(time > 1.5e9, "{time} is no time of this century");
    let step = u64::from_le_bytes(field(2).as_slice().try_into().unwrap());
    let values = fields(field(5)).into_iter().map(|(number, value)| {
        assert_eq!(number, 1);
        let value = fields(&value);
        let [(1, tag), (2, number)] = value.as_slice() else {
            panic!("{value:?}")
        };
        let number = u32::from_le_bytes(number.as_slice().try_into().unwrap());
        (String::from_utf8(tag.clone()).unwrap(), step, number)
    });
    values.collect()
}
