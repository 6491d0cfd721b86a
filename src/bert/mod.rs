//! BERT (Devlin et al. 2019) as plain functions over a [`Recorder`], and the plans of a run.
//!
//! ```text
//! embeddings   x = dropout(LN(word[id] + position[p] + segment[0]))                         [tokens, H]
//! layer        a = attention(x Wqkv^T + b);  y = LN(x + dropout(a Wo^T + b))
//!              z = gelu(y W1^T + b1) W2^T + b2;  x = LN(y + dropout(z))                     L times, post-norm
//! MLM head     h = LN(gelu(x[masked] W^T + b));  logits = h E^T + b      E: the word embeddings
//! task head    logits = gelu(x[cls] W^T + b) V^T + c                      no pooler, no dropout
//! ```
//!
//! What TLM leaves out of BERT: the next-sentence loss, segments, the pooler. See [`plans`] for the programs of a run.

mod init;
pub mod plans;

use crate::hub::{BertConfig, names};
use crate::kernel::{Count, DType, Extent};
use crate::ops::attention::{Attention, attention};
use crate::ops::class_cross_entropy::class_cross_entropy;
use crate::ops::embedding::{self, embedding};
use crate::ops::gather::gather;
use crate::ops::gemm::{Layer, feed_forward, linear, linear_gelu};
use crate::ops::layer_norm::{Norm, layer_norm, residual_layer_norm};
use crate::ops::masked_cross_entropy::{Masked, masked_cross_entropy};
use crate::plan::{Init, ParamSpec, ParamTable, PlanError, Recorder, Value};

pub use init::initial_values;

/// Largest number of words of MLM logits that exist at a time.
const LOGITS_WORDS: usize = 16 << 20;

/// The most that a batch of a plan holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Packed tokens.
    pub tokens: u32,
    /// Sequences.
    pub sequences: u32,
    /// Masked rows.
    pub masked: u32,
    /// Longest sequence.
    pub max_length: u32,
}

/// Dropout rates of a plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// After the embeddings and every sublayer.
    pub hidden: f32,
    /// On the attention probabilities.
    pub attention: f32,
}

impl Dropout {
    /// None: evaluation.
    pub const OFF: Dropout = Dropout {
        hidden: 0.0,
        attention: 0.0,
    };

    /// The rates of a configuration.
    pub fn of(config: &BertConfig) -> Dropout {
        Dropout {
            hidden: config.hidden_dropout_prob as f32,
            attention: config.attention_probs_dropout_prob as f32,
        }
    }
}

/// Lays out the parameters of a model: from the heads down to the embeddings, the order in which gradients complete.
pub fn parameters(config: &BertConfig) -> ParamTable {
    let encoder = names::encoder(config);
    let (embeddings, layers): (Vec<_>, Vec<_>) = encoder
        .into_iter()
        .partition(|(name, _)| name.starts_with("bert.embeddings."));
    let mut order = names::task_head(config);
    order.extend(names::mlm_head(config));
    for layer in (0..config.num_hidden_layers).rev() {
        let prefix = format!("bert.encoder.layer.{layer}.");
        order.extend(layers.iter().filter(|(name, _)| name.starts_with(&prefix)).cloned());
    }
    order.extend(embeddings);
    ParamTable::new(
        order
            .into_iter()
            .map(|(name, shape)| spec(config, name, &shape))
            .collect(),
    )
}

fn spec(config: &BertConfig, name: String, shape: &[usize]) -> ParamSpec {
    const SIGMA: f32 = 0.02;
    let vector = shape.len() == 1;
    let head = name.starts_with("classifier.");
    let init = match name.as_str() {
        _ if head => Init::Uniform {
            inputs: config.hidden_size as u32,
        },
        name if name.contains("word_embeddings") => Init::NormalZeroFirstRow(SIGMA),
        name if name.ends_with("LayerNorm.weight") => Init::Ones,
        _ if vector => Init::Zeros,
        _ => Init::Normal(SIGMA),
    };
    let (rows, width) = if vector { (1, shape[0]) } else { (shape[0], shape[1]) };
    ParamSpec {
        name,
        rows: rows as u32,
        width: width as u32,
        decay: !vector,
        head,
        init,
        vector,
    }
}

/// The inputs that every plan over a batch has. Names are those of the batch's fields.
struct Inputs {
    ids: embedding::Ids,
    cls_rows: Value,
}

impl Inputs {
    fn record(r: &mut Recorder, capacity: &Capacity) -> Inputs {
        let tokens = Extent::counted(Count::Tokens, capacity.tokens);
        let offsets = Extent::counted(Count::Sequences, capacity.sequences + 1);
        let buckets = Extent::counted(Count::Buckets, capacity.tokens);
        let bucket_offsets = Extent::counted(Count::Buckets, capacity.tokens + 1);
        let cu_seqlens = r.input("cu_seqlens", offsets, 1, DType::U32);
        let ids = embedding::Ids {
            ids: r.input("ids", tokens, 1, DType::U32),
            positions: r.input("positions", tokens, 1, DType::U32),
            cu_seqlens,
            sorted_rows: r.input("sorted_rows", tokens, 1, DType::U32),
            bucket_ids: r.input("bucket_ids", buckets, 1, DType::U32),
            bucket_offsets: r.input("bucket_offsets", bucket_offsets, 1, DType::U32),
        };
        // The first row of a sequence is its [CLS] row, so the offsets without the last one are the rows to gather.
        Inputs {
            ids,
            cls_rows: r.view(cu_seqlens, 0, capacity.sequences),
        }
    }
}

/// Embeddings and layers: `[tokens, H]`; with `recompute`, a layer keeps nothing but its input for the backward.
fn encoder(
    r: &mut Recorder,
    config: &BertConfig,
    capacity: &Capacity,
    dropout: Dropout,
    inputs: &Inputs,
    recompute: bool,
) -> Result<Value, PlanError> {
    let epsilon = config.layer_norm_eps as f32;
    let mut x = r.scope("embeddings", |r| {
        let tables = embedding::Tables {
            word: r.param("bert.embeddings.word_embeddings.weight")?,
            position: r.param("bert.embeddings.position_embeddings.weight")?,
            segment: r.param("bert.embeddings.token_type_embeddings.weight")?,
        };
        let sum = embedding(r, &inputs.ids, &tables)?;
        let norm = Norm::named(r, "bert.embeddings.LayerNorm", epsilon)?;
        layer_norm(r, sum, norm, dropout.hidden)
    })?;
    let shape = Attention {
        heads: config.num_attention_heads as u32,
        max_length: capacity.max_length,
        dropout: dropout.attention,
    };
    for index in 0..config.num_hidden_layers {
        let scope = format!("layer{index}");
        let name = format!("bert.encoder.layer.{index}");
        let body = |r: &mut Recorder| layer(r, &name, x, inputs.ids.cu_seqlens, shape, dropout.hidden, epsilon);
        x = if recompute {
            r.recomputed(&scope, body)?
        } else {
            r.scope(&scope, body)?
        };
    }
    Ok(x)
}

/// One layer: `[tokens, H]` to `[tokens, H]`.
fn layer(
    r: &mut Recorder,
    name: &str,
    x: Value,
    cu_seqlens: Value,
    shape: Attention,
    dropout: f32,
    epsilon: f32,
) -> Result<Value, PlanError> {
    let y = r.scope("attention", |r| {
        let part = |part: &str, kind: &str| format!("{name}.attention.self.{part}.{kind}");
        let joined = |r: &mut Recorder, kind: &str| {
            let names = [part("query", kind), part("key", kind), part("value", kind)];
            r.joined(&names.each_ref().map(String::as_str))
        };
        let layer = Layer {
            weight: joined(r, "weight")?,
            bias: joined(r, "bias")?,
        };
        let qkv = linear(r, x, layer)?;
        let mixed = attention(r, qkv, cu_seqlens, shape)?;
        let output = Layer::named(r, &format!("{name}.attention.output.dense"))?;
        let projected = linear(r, mixed, output)?;
        let norm = Norm::named(r, &format!("{name}.attention.output.LayerNorm"), epsilon)?;
        residual_layer_norm(r, projected, x, norm, dropout)
    })?;
    r.scope("feed_forward", |r| {
        let inner = Layer::named(r, &format!("{name}.intermediate.dense"))?;
        let outer = Layer::named(r, &format!("{name}.output.dense"))?;
        let z = feed_forward(r, y, inner, outer)?;
        let norm = Norm::named(r, &format!("{name}.output.LayerNorm"), epsilon)?;
        residual_layer_norm(r, z, y, norm, dropout)
    })
}

/// The MLM head on the masked rows; returns each row's loss `[masked, 1]`.
fn mlm_head(
    r: &mut Recorder,
    config: &BertConfig,
    capacity: &Capacity,
    hidden: Value,
    train: bool,
) -> Result<Value, PlanError> {
    r.scope("mlm_head", |r| {
        let masked = Extent::counted(Count::Masked, capacity.masked);
        let rows = r.input("masked_rows", masked, 1, DType::U32);
        let labels = r.input("masked_labels", masked, 1, DType::U32);
        let weights = r.input("masked_weights", masked, 1, DType::F32);
        let x = gather(r, hidden, rows)?;
        let dense = Layer::named(r, "cls.predictions.transform.dense")?;
        let x = linear_gelu(r, x, dense)?;
        let norm = Norm::named(r, "cls.predictions.transform.LayerNorm", config.layer_norm_eps as f32)?;
        let x = layer_norm(r, x, norm, 0.0)?;
        let decoder = r.param("bert.embeddings.word_embeddings.weight")?;
        let bias = r.param("cls.predictions.bias")?;
        let unit = r.view_unit(); // a chunk's rows are views
        let chunk = (LOGITS_WORDS / config.vocab_size.max(1)) as u32 / unit * unit;
        let rows = Masked {
            hidden: x,
            decoder: Layer { weight: decoder, bias },
            labels,
            weights,
        };
        masked_cross_entropy(r, &rows, chunk.max(unit), train)
    })
}

/// The task head on the \[CLS\] rows: logits `[sequences, C]`.
fn task_head(r: &mut Recorder, inputs: &Inputs, hidden: Value) -> Result<Value, PlanError> {
    let cls = gather(r, hidden, inputs.cls_rows)?;
    let inner = Layer::named(r, "classifier.dense")?;
    let outer = Layer::named(r, "classifier.out_proj")?;
    feed_forward(r, cls, inner, outer)
}

/// The task's loss of each sequence `[sequences, 1]`.
fn task_loss(r: &mut Recorder, capacity: &Capacity, logits: Value) -> Result<Value, PlanError> {
    let sequences = Extent::counted(Count::Sequences, capacity.sequences);
    let labels = r.input("labels", sequences, 1, DType::U32);
    let weights = r.input("label_weights", sequences, 1, DType::F32);
    class_cross_entropy(r, logits, labels, weights, true)
}
