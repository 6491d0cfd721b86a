//! Batches against naive constructions, and resume equality.

use super::*;
use crate::data::SpecialIds;
use std::collections::BTreeMap;

const SPECIAL: SpecialIds = SpecialIds {
    pad: 0,
    unk: 1,
    cls: 2,
    sep: 3,
    mask: 4,
};

/// Sequence `i` is [CLS], `i % 7` ordinary tokens that name it, [SEP]; its label is `i % 3`.
fn sequences(count: u32, labelled: bool) -> Arc<Sequences> {
    let mut sequences = Sequences::default();
    for i in 0..count {
        let mut ids = vec![2];
        ids.extend((0..i % 7).map(|t| 5 + (i * 3 + t) % 50));
        ids.push(3);
        sequences.push(&ids);
    }
    if labelled {
        sequences.set_labels((0..count).map(|i| i % 3).collect()).unwrap();
    }
    Arc::new(sequences)
}

fn settings(batch: usize, masked: bool) -> BatchSettings {
    let capacity = BatchCapacity {
        tokens: batch * 8,
        sequences: batch,
        masked: batch * 8,
    };
    let masking = masked.then(|| Masking::new(0.15, SPECIAL, 60).unwrap());
    BatchSettings {
        seed: 11,
        stream: 1,
        batch,
        masking,
        capacity,
    }
}

fn fill(stream: &BatchStream, index: u64) -> Batch {
    let mut batch = Batch::new(stream.settings().capacity);
    stream.cursor().fill(index, &mut batch).unwrap();
    batch
}

#[test]
fn a_packed_batch_equals_a_padded_matrix_without_its_padding() {
    let data = sequences(40, true);
    let stream = BatchStream::new(data.clone(), settings(6, false)).unwrap();
    let mut order: Vec<u32> = (0..40).collect();
    Stream::new(11, purpose::SHUFFLE + 1, 0).shuffle(&mut order);
    for index in 0..6 {
        let rows: Vec<usize> = order[index * 6..index * 6 + 6].iter().map(|&i| i as usize).collect();
        let width = rows.iter().map(|&i| data.ids(i).len()).max().unwrap();
        // (6, width): id and position, or None where padded
        let mut padded = vec![vec![None; width]; 6];
        for (row, &i) in padded.iter_mut().zip(&rows) {
            for (t, &id) in data.ids(i).iter().enumerate() {
                row[t] = Some((id, t as u32));
            }
        }
        let packed: Vec<(u32, u32)> = padded.iter().flatten().copied().flatten().collect();
        let ends = padded.iter().scan(0, |end, row| {
            *end += row.iter().flatten().count() as u32;
            Some(*end)
        });
        let batch = fill(&stream, index as u64);
        assert_eq!(batch.ids, packed.iter().map(|&(id, _)| id).collect::<Vec<_>>());
        assert_eq!(batch.positions, packed.iter().map(|&(_, t)| t).collect::<Vec<_>>());
        assert_eq!(batch.cu_seqlens, std::iter::once(0).chain(ends).collect::<Vec<_>>());
        assert_eq!(batch.labels, rows.iter().map(|&i| i as u32 % 3).collect::<Vec<_>>());
        assert_eq!((batch.sequences(), batch.masked()), (6, 0));
    }
}

#[test]
fn buckets_list_the_rows_of_each_masked_input_id_in_order() {
    let stream = BatchStream::new(sequences(50, false), settings(20, true)).unwrap();
    for index in 0..10 {
        let batch = fill(&stream, index);
        let mut expected: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (row, &id) in (0..).zip(&batch.ids) {
            expected.entry(id).or_default().push(row);
        }
        assert!(batch.masked() > 0 && expected.contains_key(&SPECIAL.mask));
        assert_eq!(batch.bucket_ids, expected.keys().copied().collect::<Vec<_>>());
        assert_eq!(
            batch.sorted_rows,
            expected.values().flatten().copied().collect::<Vec<_>>()
        );
        let buckets = batch.bucket_offsets.windows(2).map(|w| (w[1] - w[0]) as usize);
        assert_eq!(
            buckets.collect::<Vec<_>>(),
            expected.values().map(Vec::len).collect::<Vec<_>>()
        );
        assert!(batch.labels.is_empty());
    }
}

#[test]
fn undoing_the_masks_gives_the_unmasked_batch() {
    let masked = BatchStream::new(sequences(50, true), settings(16, true)).unwrap();
    let plain = BatchStream::new(sequences(50, true), settings(16, false)).unwrap();
    for index in 0..20 {
        let (mut batch, plain) = (fill(&masked, index), fill(&plain, index));
        assert_ne!(batch.ids, plain.ids);
        for (&row, &label) in batch.masked_rows.iter().zip(&batch.masked_labels) {
            batch.ids[row as usize] = label;
        }
        assert_eq!(batch.ids, plain.ids);
        assert_eq!((&batch.cu_seqlens, &batch.labels), (&plain.cu_seqlens, &plain.labels));
    }
}

#[test]
fn a_resumed_stream_equals_the_tail_of_an_uninterrupted_one() {
    let stream = BatchStream::new(sequences(23, true), settings(5, true)).unwrap();
    let mut cursor = stream.cursor();
    let mut batch = Batch::new(stream.settings().capacity);
    let whole: Vec<Batch> = (0..30)
        .map(|index| {
            cursor.fill(index, &mut batch).unwrap();
            batch.clone()
        })
        .collect();
    for start in [1, 4, 5, 17, 29] {
        let mut resumed = stream.cursor();
        for index in start..30 {
            resumed.fill(index, &mut batch).unwrap();
            assert_eq!(batch, whole[index as usize], "batch {index} after a resume at {start}");
        }
    }
    assert_eq!(fill(&stream, 3), whole[3], "going back");
}

#[test]
fn each_epoch_holds_each_sequence_once_and_in_another_order() {
    let (count, size) = (20_u32, 6);
    // The label names the sequence.
    let mut data = Sequences::clone(&sequences(count, false));
    data.set_labels((0..count).collect()).unwrap();
    let stream = BatchStream::new(Arc::new(data), settings(size, false)).unwrap();
    let drawn: Vec<u32> = (0..30).flat_map(|index| fill(&stream, index).labels).collect();
    let epochs: Vec<&[u32]> = drawn.chunks(count as usize).collect();
    for (number, epoch) in epochs.iter().enumerate() {
        let mut sorted = epoch.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..count).collect::<Vec<_>>(), "epoch {number}");
    }
    assert!(epochs.windows(2).all(|pair| pair[0] != pair[1]));
    assert_eq!(stream.epoch(10), 3.0);
}

#[test]
fn data_smaller_than_a_batch_repeats_within_it() {
    let stream = BatchStream::new(sequences(3, true), settings(8, false)).unwrap();
    let labels: Vec<u32> = (0..3).flat_map(|index| fill(&stream, index).labels).collect();
    for label in 0..3 {
        assert_eq!(labels.iter().filter(|&&l| l == label).count(), 8);
    }
}

#[test]
fn buffers_are_never_reallocated() {
    let stream = BatchStream::new(sequences(40, true), settings(6, true)).unwrap();
    let mut batch = Batch::new(stream.settings().capacity);
    let mut cursor = stream.cursor();
    let places = |batch: &Batch| {
        [
            &batch.ids,
            &batch.positions,
            &batch.cu_seqlens,
            &batch.masked_rows,
            &batch.masked_labels,
            &batch.labels,
        ]
        .into_iter()
        .chain([&batch.sorted_rows, &batch.bucket_ids, &batch.bucket_offsets])
        .map(|buffer| (buffer.as_ptr(), buffer.capacity()))
        .collect::<Vec<_>>()
    };
    let before = places(&batch);
    for index in 0..100 {
        cursor.fill(index, &mut batch).unwrap();
    }
    assert_eq!(places(&batch), before);
}

#[test]
fn evaluation_reads_all_sequences_in_order_with_a_smaller_last_batch() {
    let data = sequences(20, true);
    let capacity = settings(6, false).capacity;
    let batches = EvaluationBatches::new(data.clone(), 6, capacity).unwrap();
    let mut batch = Batch::new(capacity);
    let mut ids = Vec::new();
    let mut sizes = Vec::new();
    for index in 0..batches.count() {
        batches.fill(index, &mut batch).unwrap();
        ids.extend_from_slice(&batch.ids);
        sizes.push(batch.sequences());
        assert_eq!(batch.masked(), 0);
    }
    assert_eq!(sizes, [6, 6, 6, 2]);
    assert_eq!(ids, (0..20).flat_map(|i| data.ids(i).to_vec()).collect::<Vec<_>>());
    batches.fill(4, &mut batch).unwrap();
    assert_eq!((batch.sequences(), batch.tokens()), (0, 0));
}

#[test]
fn bad_settings_and_overflowing_batches_are_errors() {
    let message = |result: Result<BatchStream, DataError>| result.unwrap_err().to_string();
    let data = sequences(20, true);
    assert!(message(BatchStream::new(Arc::default(), settings(2, false))).contains("is 0, expected between 1"));
    let mut bad = settings(2, false);
    bad.batch = 3;
    assert_eq!(
        message(BatchStream::new(data.clone(), bad)),
        "batch is 3, expected between 1 and the plan's 2 sequences"
    );
    bad = settings(2, false);
    bad.stream = 1 << 16;
    assert!(message(BatchStream::new(data.clone(), bad)).contains("below 65536"));

    let mut tight = settings(6, false);
    tight.capacity.tokens = 20;
    let stream = BatchStream::new(data, tight).unwrap();
    let mut batch = Batch::new(tight.capacity);
    let error = stream.cursor().fill(0, &mut batch).unwrap_err().to_string();
    assert!(
        error.starts_with("batch 0 needs ") && error.contains("tokens, but the plan holds 20"),
        "{error}"
    );
}
