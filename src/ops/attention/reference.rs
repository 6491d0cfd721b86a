//! Attention's reference and test cases.

use super::{Attention, attention, stride};
use crate::kernel::{Count, Extent, StepParams};
use crate::ops::case::{Case, Expected, Given, Real, Reference, Role, Tensor, counted, keeps};

/// The first op of a plan.
const OP: u32 = 1;

#[derive(Clone)]
struct Shape {
    lengths: Vec<usize>,
    heads: usize,
    d: usize,
    max_length: usize,
    probability: f32,
}

/// Tensors: qkv, cu_seqlens.
fn reference<R: Real>(shape: Shape) -> Reference<R> {
    Box::new(move |given: &Given<R>, upstream: &[Vec<R>]| {
        let Shape {
            lengths,
            heads,
            d,
            max_length,
            probability,
        } = &shape;
        let (heads, d, h) = (*heads, *d, heads * d);
        let zero = R::from_f64(0.0);
        let tokens: usize = lengths.iter().sum();
        let threshold = crate::rng::threshold(f64::from(*probability));
        let keep = R::from_f64(f64::from(1.0 / (1.0 - probability)));
        let scale = R::from_f64(1.0 / (d as f64).sqrt());
        let at = |row: usize, part: usize, head: usize, i: usize| row * 3 * h + part * h + head * d + i;
        let qkv = &given.tensors[0];
        let mut out = vec![zero; tokens * h];
        let mut dqkv = vec![zero; tokens * 3 * h];
        let mut start = 0;
        for &len in lengths {
            for head in 0..heads {
                for i in start..start + len {
                    let dot = |j: usize| {
                        (0..d)
                            .map(|c| qkv[at(i, 0, head, c)] * qkv[at(j, 1, head, c)])
                            .sum::<R>()
                    };
                    let scores: Vec<R> = (start..start + len).map(|j| dot(j) * scale).collect();
                    let most = scores.iter().copied().fold(scores[0], |a, b| if b > a { b } else { a });
                    let weights: Vec<R> = scores.iter().map(|&s| (s - most).exp()).collect();
                    let sum: R = weights.iter().copied().sum();
                    let p: Vec<R> = weights.iter().map(|&w| w / sum).collect();
                    let factor: Vec<R> = (0..len)
                        .map(|j| {
                            let element = (i * heads + head) * stride(*max_length) + j;
                            let one = R::from_f64(1.0);
                            match *probability == 0.0 {
                                true => one,
                                false if keeps(&given.step, OP, threshold, element) => keep,
                                false => zero,
                            }
                        })
                        .collect();
                    let dropped: Vec<R> = (0..len).map(|j| (p[j] * factor[j]).stored()).collect();
                    for c in 0..d {
                        let value = |j: usize| dropped[j] * qkv[at(start + j, 2, head, c)];
                        out[i * h + head * d + c] = (0..len).map(value).sum();
                    }
                    let Some(dout) = upstream.first() else { continue };
                    let dout = &dout[i * h + head * d..][..d];
                    let dp: Vec<R> = (0..len)
                        .map(|j| {
                            let dot: R = (0..d).map(|c| dout[c] * qkv[at(start + j, 2, head, c)]).sum();
                            dot * factor[j]
                        })
                        .collect();
                    // The sum over the keys of p dp, as the kernels have it from the stored output.
                    let out = &out[i * h + head * d..][..d];
                    let mean: R = out.iter().zip(dout).map(|(&out, &dout)| out.stored() * dout).sum();
                    for j in 0..len {
                        let ds = (p[j] * (dp[j] - mean) * scale).stored();
                        for (c, &dout) in dout.iter().enumerate() {
                            let (q, k) = (at(i, 0, head, c), at(start + j, 1, head, c));
                            let v = at(start + j, 2, head, c);
                            dqkv[q] = dqkv[q] + ds * qkv[k];
                            dqkv[k] = dqkv[k] + ds * qkv[q];
                            dqkv[v] = dqkv[v] + dropped[j] * dout;
                        }
                    }
                }
            }
            start += len;
        }
        Expected {
            outputs: vec![out],
            gradients: vec![dqkv, Vec::new()],
        }
    })
}

/// One token; sequences without tokens; lengths around the GPU kernels' blocks (8 rows that stream; 16, 32 or 64 that stay)
/// at the head sizes that models have, with dropout and without; head sizes that fill no quad and no team.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let shapes: [(&[usize], usize, usize, usize, f32); 11] = [
        (&[1], 1, 4, 4, 0.0),
        (&[3, 0, 5], 2, 5, 7, 0.1),
        (&[9, 20], 2, 80, 20, 0.1),
        (&[7, 8, 9], 2, 32, 12, 0.0),
        (&[63, 64, 65], 1, 32, 68, 0.1),
        (&[31, 32, 33], 2, 64, 36, 0.1),
        (&[65, 63, 1], 1, 64, 65, 0.0),
        (&[15, 16, 17], 1, 128, 20, 0.0),
        (&[33, 12, 70], 1, 128, 72, 0.25),
        (&[], 2, 8, 8, 0.1),
        (&[0, 0], 1, 8, 8, 0.0),
    ];
    for (lengths, heads, d, max_length, probability) in shapes {
        let mut step = StepParams {
            step: 5,
            seed: [21, 22],
            ..StepParams::default()
        };
        let live: usize = lengths.iter().sum();
        let tokens = counted(Count::Tokens, live as u32, live as u32 + 3, &mut step);
        step.sequences = lengths.len() as u32;
        step.squared_lengths = lengths.iter().map(|len| (len * len) as u32).sum();
        let offsets = Extent::counted(Count::Sequences, lengths.len() as u32 + 2);
        let mut cu_seqlens = vec![0u32];
        for len in lengths {
            cu_seqlens.push(cu_seqlens[cu_seqlens.len() - 1] + *len as u32);
        }
        let shape = Shape {
            lengths: lengths.to_vec(),
            heads,
            d,
            max_length,
            probability,
        };
        cases.push(Case {
            name: format!("attention lengths {lengths:?}, {heads} heads of {d}, dropout {probability}"),
            tensors: vec![
                Tensor::random("qkv", Role::Input, tokens, 3 * (heads * d) as u32),
                Tensor::index("cu_seqlens", offsets, 1, &cu_seqlens),
            ],
            step,
            record: Box::new(move |r, v| {
                let shape = Attention {
                    heads: heads as u32,
                    max_length: max_length as u32,
                    dropout: probability,
                };
                Ok(vec![attention(r, v[0], v[1], shape)?])
            }),
            upstream: vec![true],
            truth: reference(shape.clone()),
            naive: reference(shape.clone()),
            naive_f16: reference(shape.clone()),
            naive_bf16: reference(shape),
        });
    }
    cases
}
