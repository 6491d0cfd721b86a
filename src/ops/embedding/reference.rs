//! The embedding's reference, which knows no buckets, and test cases.

use super::{Ids, Tables, embedding};
use crate::kernel::{Count, Extent, StepParams};
use crate::ops::case::{Case, Expected, Given, Real, Reference, Role, Tensor, counted};

/// Sizes of a case; `times` says how often the same batch is embedded.
#[derive(Clone, Copy)]
struct Shape {
    tokens: usize,
    vocabulary: usize,
    longest: usize,
    segments: usize,
    width: usize,
    times: usize,
}

/// Tensors 0, 1: ids, positions; 6, 7, 8: word, position, segment.
fn reference<R: Real>(shape: Shape) -> Reference<R> {
    Box::new(move |given: &Given<R>, upstream: &[Vec<R>]| {
        let (t, width) = (given.tensors, shape.width);
        let row = |token: usize| (given.index(0, token) * width, given.index(1, token) * width);
        let element = |index: usize| {
            let ((id, position), column) = (row(index / width), index % width);
            t[6][id + column] + t[7][position + column] + t[8][column]
        };
        let output: Vec<R> = (0..shape.tokens * width).map(element).collect();
        let zeros = |rows: usize| vec![R::from_f64(0.0); rows * width];
        let (mut word, mut positions) = (zeros(shape.vocabulary), zeros(shape.longest));
        let mut segment = zeros(shape.segments);
        for dy in upstream {
            for (index, &dy) in dy.iter().take(shape.tokens * width).enumerate() {
                let ((id, position), column) = (row(index / width), index % width);
                for (table, at) in [(&mut word, id), (&mut positions, position), (&mut segment, 0)] {
                    table[at + column] = table[at + column] + dy;
                }
            }
        }
        let mut gradients = vec![Vec::new(); 6];
        gradients.extend([word, positions, segment]);
        Expected {
            outputs: vec![output; shape.times],
            gradients,
        }
    })
}

fn case(lengths: &[u32], spare: u32, vocabulary: u32, segments: u32, width: u32, times: usize) -> Case {
    let tokens: u32 = lengths.iter().sum();
    let ids: Vec<u32> = (0..tokens).map(|row| row * row % 7 * 29 % vocabulary).collect();
    let positions: Vec<u32> = lengths.iter().flat_map(|&length| 0..length).collect();
    let mut bounds = vec![0];
    for &length in lengths {
        bounds.push(bounds[bounds.len() - 1] + length);
    }
    let mut sorted: Vec<u32> = (0..tokens).collect();
    sorted.sort_by_key(|&row| ids[row as usize]);
    let mut distinct: Vec<u32> = ids.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let below = |id: &u32| ids.iter().filter(|other| *other < id).count() as u32;
    let mut offsets: Vec<u32> = distinct.iter().map(below).collect();
    offsets.push(tokens);

    let mut step = StepParams::default();
    let sequences = lengths.len() as u32;
    let n = counted(Count::Tokens, tokens, tokens + spare, &mut step);
    let buckets = counted(
        Count::Buckets,
        distinct.len() as u32,
        distinct.len() as u32 + spare,
        &mut step,
    );
    counted(Count::Sequences, sequences, sequences + spare, &mut step);
    let longest = lengths.iter().max().map_or(1, |&length| length.max(1)) + spare;
    let table = |name, rows| Tensor::random(name, Role::Param, Extent::fixed(rows), width);
    let tensors = vec![
        Tensor::index("ids", n, 1, &ids),
        Tensor::index("positions", n, 1, &positions),
        Tensor::index("cu_seqlens", Extent::fixed(sequences + spare + 1), 1, &bounds),
        Tensor::index("sorted_rows", n, 1, &sorted),
        Tensor::index("bucket_ids", buckets, 1, &distinct),
        Tensor::index("bucket_offsets", Extent::fixed(buckets.capacity + 1), 1, &offsets),
        table("word", vocabulary),
        table("position", longest),
        table("segment", segments),
    ];
    let shape = Shape {
        tokens: tokens as usize,
        vocabulary: vocabulary as usize,
        longest: longest as usize,
        segments: segments as usize,
        width: width as usize,
        times,
    };
    Case {
        name: format!("embedding of sequences {lengths:?}, vocabulary {vocabulary}, width {width}, {times} times"),
        tensors,
        step,
        record: Box::new(move |r, v| {
            let batch = Ids {
                ids: v[0],
                positions: v[1],
                cu_seqlens: v[2],
                sorted_rows: v[3],
                bucket_ids: v[4],
                bucket_offsets: v[5],
            };
            let tables = Tables {
                word: v[6],
                position: v[7],
                segment: v[8],
            };
            (0..times).map(|_| embedding(r, &batch, &tables)).collect()
        }),
        upstream: vec![true; times],
        truth: reference(shape),
        naive: reference(shape),
        naive_f16: reference(shape),
        naive_bf16: reference(shape),
    }
}

/// An empty batch, one token, sequences without tokens at every place, more ids than a block of the CPU, tables that get a
/// second contribution.
pub fn cases() -> Vec<Case> {
    vec![
        case(&[], 2, 9, 2, 4, 1),
        case(&[0], 0, 1, 1, 1, 1),
        case(&[1], 0, 1, 1, 1, 1),
        case(&[0, 5, 0, 3, 0], 3, 40, 2, 17, 1),
        case(&[0, 5, 0, 3, 0], 3, 40, 2, 17, 2),
        case(&[64, 1, 65], 1, 130, 1, 33, 1),
        case(&[20, 20, 7, 64, 30], 9, 25, 2, 64, 2),
    ]
}
