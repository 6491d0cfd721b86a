//! Sizes of an encoder and its parameters.

use serde::Serialize;

use crate::hub::BertConfig;

/// Sizes of a BERT-like encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Encoder {
    /// Layers L.
    pub layers: u64,
    /// Width h.
    pub hidden: u64,
    /// Width f of the feed-forward blocks.
    pub intermediate: u64,
    /// Attention heads A.
    pub heads: u64,
    /// Word pieces V.
    pub vocabulary: u64,
    /// Width e of the embeddings; where it is not h, a matrix leads from one to the other.
    pub embedding: u64,
    /// Rows of the table of positions.
    pub positions: u64,
    /// Rows of the table of segments.
    pub segments: u64,
}

impl Encoder {
    /// BERT-Base.
    pub const BERT_BASE: Encoder = Encoder::bert(12, 768);
    /// BERT-Large.
    pub const BERT_LARGE: Encoder = Encoder::bert(24, 1024);
    /// RoBERTa-Base.
    pub const ROBERTA_BASE: Encoder = Encoder::roberta(12, 768);
    /// RoBERTa-Large.
    pub const ROBERTA_LARGE: Encoder = Encoder::roberta(24, 1024);

    /// BERT's layout: 30,522 word pieces, heads of 64, feed-forward 4 h, 512 positions, two segments.
    pub const fn bert(layers: u64, hidden: u64) -> Encoder {
        Encoder {
            layers,
            hidden,
            intermediate: 4 * hidden,
            heads: if hidden < 64 { 1 } else { hidden / 64 },
            vocabulary: 30_522,
            embedding: hidden,
            positions: 512,
            segments: 2,
        }
    }

    /// RoBERTa's: 50,265 byte pieces, positions that begin behind the padding's, one segment.
    pub const fn roberta(layers: u64, hidden: u64) -> Encoder {
        Encoder {
            positions: 514,
            segments: 1,
            vocabulary: 50_265,
            ..Encoder::bert(layers, hidden)
        }
    }

    /// The same with embeddings of another width.
    pub const fn embedding(self, embedding: u64) -> Encoder {
        Encoder { embedding, ..self }
    }

    /// Of a configuration.
    pub fn of(config: &BertConfig) -> Encoder {
        Encoder {
            layers: config.num_hidden_layers as u64,
            hidden: config.hidden_size as u64,
            intermediate: config.intermediate_size as u64,
            heads: config.num_attention_heads as u64,
            vocabulary: config.vocab_size as u64,
            embedding: config.hidden_size as u64,
            positions: config.max_position_embeddings as u64,
            segments: config.type_vocab_size as u64,
        }
    }

    /// Parameters of the embeddings with their LayerNorm and, where e is not h, the projection.
    pub fn embedding_parameters(&self) -> u64 {
        let (e, h) = (self.embedding, self.hidden);
        let projection = if e == h { 0 } else { e * h + h };
        (self.vocabulary + self.positions + self.segments + 2) * e + projection
    }

    /// Parameters of the layers.
    pub fn layer_parameters(&self) -> u64 {
        let (h, f) = (self.hidden, self.intermediate);
        self.layers * (4 * (h * h + h) + 2 * h * f + f + h + 4 * h)
    }

    /// Parameters of the head of masked language modelling, whose decoder is the word embedding.
    pub fn mlm_parameters(&self) -> u64 {
        let e = self.embedding;
        self.hidden * e + e + 2 * e + self.vocabulary
    }

    /// Embeddings, layers and the head of masked language modelling; no pooler, no task head.
    pub fn parameters(&self) -> u64 {
        self.embedding_parameters() + self.layer_parameters() + self.mlm_parameters()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bert;

    // 109,514,298 and 335,174,458: BertForMaskedLM of Hugging Face transformers with the published configurations;
    // 124,697,433 and 355,412,057: RobertaForMaskedLM.
    #[test]
    fn parameters_are_those_of_the_published_models() {
        let found = [
            Encoder::BERT_BASE,
            Encoder::BERT_LARGE,
            Encoder::ROBERTA_BASE,
            Encoder::ROBERTA_LARGE,
        ]
        .map(|encoder| encoder.parameters());
        assert_eq!(found, [109_514_298, 335_174_458, 124_697_433, 355_412_057]);
    }

    #[test]
    fn parameters_are_those_of_the_trained_table_without_its_task_head() {
        let config = BertConfig {
            vocab_size: 300,
            hidden_size: 128,
            num_hidden_layers: 3,
            num_attention_heads: 2,
            intermediate_size: 200,
            max_position_embeddings: 64,
            labels: vec!["a".to_owned(), "b".to_owned()],
            ..BertConfig::default()
        };
        let head = 128 * 128 + 128 + 2 * 128 + 2;
        let table = bert::parameters(&config).parameters() as u64;
        assert_eq!(Encoder::of(&config).parameters() + head, table);
    }
}
