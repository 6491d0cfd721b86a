//! `config.json`: what transformers' `BertConfig` holds, and `tlm_max_length`.
//!
//! A field that a foreign file leaves out has the value that `BertConfig` gives it. Values that would change what the
//! model computes in a way that is not built here (another activation, relative positions, a decoder) are refused.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::HubError;

/// Sizes and labels of a model directory.
#[derive(Clone, Debug, PartialEq)]
pub struct BertConfig {
    /// Rows of the word embeddings.
    pub vocab_size: usize,
    /// Width H.
    pub hidden_size: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Rows of the position embeddings.
    pub max_position_embeddings: usize,
    /// Rows of the segment embeddings; only row 0 is ever used.
    pub type_vocab_size: usize,
    /// Id of the padding token.
    pub pad_token_id: u32,
    /// Dropout after embeddings and sublayers.
    pub hidden_dropout_prob: f64,
    /// Dropout of the attention probabilities.
    pub attention_probs_dropout_prob: f64,
    /// Epsilon of every LayerNorm.
    pub layer_norm_eps: f64,
    /// Names of the classes by index; empty for a bare encoder.
    pub labels: Vec<String>,
    /// Longest input in tokens, with \[CLS\] and \[SEP\]; `max_position_embeddings` where a file does not say.
    pub max_length: usize,
}

impl Default for BertConfig {
    /// BERT-base without labels, as `BertConfig()` of transformers.
    fn default() -> BertConfig {
        BertConfig {
            vocab_size: 30_522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            pad_token_id: 0,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            layer_norm_eps: 1e-12,
            labels: Vec::new(),
            max_length: 512,
        }
    }
}

impl BertConfig {
    /// The text of `config.json`.
    pub fn to_json(&self) -> String {
        let id2label: Map<String, Value> = self
            .labels
            .iter()
            .enumerate()
            .map(|(id, label)| (id.to_string(), label.clone().into()))
            .collect();
        let label2id: Map<String, Value> = self
            .labels
            .iter()
            .enumerate()
            .map(|(id, label)| (label.clone(), id.into()))
            .collect();
        let value = json!({
            "architectures": ["BertForMaskedLM"],
            "model_type": "bert",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "intermediate_size": self.intermediate_size,
            "hidden_act": "gelu",
            "hidden_dropout_prob": self.hidden_dropout_prob,
            "attention_probs_dropout_prob": self.attention_probs_dropout_prob,
            "max_position_embeddings": self.max_position_embeddings,
            "type_vocab_size": self.type_vocab_size,
            "initializer_range": 0.02,
            "layer_norm_eps": self.layer_norm_eps,
            "pad_token_id": self.pad_token_id,
            "position_embedding_type": "absolute",
            "tie_word_embeddings": true,
            "id2label": id2label,
            "label2id": label2id,
            "tlm_max_length": self.max_length,
        });
        format!("{value:#}\n")
    }

    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`HubError::Read`], or [`HubError::Config`] with the key, what stands there and what would be right.
    pub fn read(path: &Path) -> Result<BertConfig, HubError> {
        let text = std::fs::read_to_string(path).map_err(|source| HubError::Read {
            path: path.to_path_buf(),
            source,
        })?;
        let value: Value = serde_json::from_str(&text).map_err(|error| HubError::Config {
            path: path.to_path_buf(),
            key: format!("line {} column {}", error.line(), error.column()),
            found: error.to_string(),
            expected: "JSON".to_owned(),
        })?;
        let fields = Fields { path, value: &value };
        fields.must_be("model_type", &["bert"])?;
        fields.must_be("hidden_act", &["gelu"])?;
        fields.must_be("position_embedding_type", &["absolute"])?;
        fields.must_be_false("is_decoder")?;
        let bert = BertConfig::default();
        let max_position_embeddings = fields.size("max_position_embeddings", bert.max_position_embeddings)?;
        let config = BertConfig {
            vocab_size: fields.size("vocab_size", bert.vocab_size)?,
            hidden_size: fields.size("hidden_size", bert.hidden_size)?,
            num_hidden_layers: fields.size("num_hidden_layers", bert.num_hidden_layers)?,
            num_attention_heads: fields.size("num_attention_heads", bert.num_attention_heads)?,
            intermediate_size: fields.size("intermediate_size", bert.intermediate_size)?,
            max_position_embeddings,
            type_vocab_size: fields.size("type_vocab_size", bert.type_vocab_size)?,
            pad_token_id: fields.token("pad_token_id", bert.pad_token_id)?,
            hidden_dropout_prob: fields.rate("hidden_dropout_prob", bert.hidden_dropout_prob)?,
            attention_probs_dropout_prob: fields
                .rate("attention_probs_dropout_prob", bert.attention_probs_dropout_prob)?,
            layer_norm_eps: fields.rate("layer_norm_eps", bert.layer_norm_eps)?,
            labels: fields.labels()?,
            max_length: fields.size("tlm_max_length", max_position_embeddings)?,
        };
        if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            let expected = format!("a divisor of hidden_size = {}", config.hidden_size);
            return Err(fields.bad("num_attention_heads", &expected));
        }
        if config.max_length > config.max_position_embeddings {
            let expected = format!("at most max_position_embeddings = {}", config.max_position_embeddings);
            return Err(fields.bad("tlm_max_length", &expected));
        }
        Ok(config)
    }
}

struct Fields<'a> {
    path: &'a Path,
    value: &'a Value,
}

impl Fields<'_> {
    fn bad(&self, key: &str, expected: &str) -> HubError {
        HubError::Config {
            path: self.path.to_path_buf(),
            key: key.to_owned(),
            found: self.value[key].to_string(),
            expected: expected.to_owned(),
        }
    }

    /// The value of `key`; none where it is absent or null.
    fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    fn size(&self, key: &str, default: usize) -> Result<usize, HubError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let size = value
            .as_u64()
            .and_then(|size| usize::try_from(size).ok())
            .filter(|&size| size > 0);
        size.ok_or_else(|| self.bad(key, "a whole number above 0"))
    }

    fn token(&self, key: &str, default: u32) -> Result<u32, HubError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| self.bad(key, "a token id"))
    }

    fn rate(&self, key: &str, default: f64) -> Result<f64, HubError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let rate = value.as_f64().filter(|rate| (0.0..1.0).contains(rate));
        rate.ok_or_else(|| self.bad(key, "a number from 0 to below 1"))
    }

    fn must_be(&self, key: &str, allowed: &[&str]) -> Result<(), HubError> {
        match self.get(key) {
            Some(value) if !value.as_str().is_some_and(|word| allowed.contains(&word)) => {
                Err(self.bad(key, &format!("\"{}\"", allowed.join("\" or \""))))
            }
            _ => Ok(()),
        }
    }

    fn must_be_false(&self, key: &str) -> Result<(), HubError> {
        match self.get(key) {
            Some(value) if *value != Value::Bool(false) => Err(self.bad(key, "false")),
            _ => Ok(()),
        }
    }

    /// `id2label` as a list; its keys must be 0, 1, ... without gaps.
    fn labels(&self) -> Result<Vec<String>, HubError> {
        let Some(value) = self.get("id2label") else {
            return Ok(Vec::new());
        };
        let bad = || {
            self.bad(
                "id2label",
                "an object {\"0\": \"first label\", \"1\": ...} without gaps",
            )
        };
        let map = value.as_object().ok_or_else(bad)?;
        (0..map.len())
            .map(|id| {
                map.get(&id.to_string())
                    .and_then(Value::as_str)
                    .map(str::to_owned)
                    .ok_or_else(bad)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BertConfig, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        BertConfig::read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_written_configuration_is_read_back_the_same() {
        let labels: Vec<String> = (0..12).map(|class| format!("class \"{class}\"")).collect();
        let config = BertConfig {
            labels,
            max_length: 128,
            type_vocab_size: 1,
            ..BertConfig::default()
        };
        assert_eq!(read(&config.to_json()).unwrap(), config);
    }

    // The configuration that ships with google-bert/bert-base-uncased.
    #[test]
    fn the_published_bert_base_configuration_is_read() {
        let text = r#"{"architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": 0.1,
            "gradient_checkpointing": false, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768,
            "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-12,
            "max_position_embeddings": 512, "model_type": "bert", "num_attention_heads": 12, "num_hidden_layers": 12,
            "pad_token_id": 0, "position_embedding_type": "absolute", "transformers_version": "4.6.0.dev0",
            "type_vocab_size": 2, "use_cache": true, "vocab_size": 30522}"#;
        assert_eq!(read(text).unwrap(), BertConfig::default());
    }

    #[test]
    fn what_would_compute_something_else_is_refused() {
        let refused = |text: &str, parts: [&str; 2]| {
            let message = read(text).unwrap_err();
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        };
        refused(
            r#"{"hidden_act": "gelu_new"}"#,
            ["hidden_act: found \"gelu_new\"", "expected \"gelu\""],
        );
        refused(r#"{"model_type": "roberta"}"#, ["\"roberta\"", "\"bert\""]);
        refused(r#"{"is_decoder": true}"#, ["is_decoder", "false"]);
        refused(
            r#"{"hidden_size": 100, "num_attention_heads": 7}"#,
            ["num_attention_heads: found 7", "hidden_size = 100"],
        );
        refused(r#"{"vocab_size": "many"}"#, ["vocab_size: found \"many\"", "above 0"]);
        refused(r#"{"id2label": {"0": "a", "2": "b"}}"#, ["id2label", "without gaps"]);
        refused(r#"{"tlm_max_length": 513}"#, ["tlm_max_length: found 513", "512"]);
        refused("{\n\"hidden_size\": }", ["line 2", "JSON"]);
    }
}
