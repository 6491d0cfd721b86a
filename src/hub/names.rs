//! The parameters of the model: Hugging Face names and shapes, in the order in which a forward pass meets them.
//!
//! With vocabulary V, width H, positions P, segments S, feed-forward F, classes C; a linear layer's weight is
//! `[outputs, inputs]`:
//!
//! ```text
//! bert.embeddings.{word,position,token_type}_embeddings.weight   [V, H] [P, H] [S, H]
//! bert.embeddings.LayerNorm.{weight,bias}                        [H]
//! bert.encoder.layer.N.attention.self.{query,key,value}          [H, H] + [H] each
//! bert.encoder.layer.N.attention.output.{dense,LayerNorm}        [H, H] + [H], [H] + [H]
//! bert.encoder.layer.N.intermediate.dense                        [F, H] + [F]
//! bert.encoder.layer.N.output.{dense,LayerNorm}                  [H, F] + [H], [H] + [H]
//! cls.predictions.transform.{dense,LayerNorm}                    [H, H] + [H], [H] + [H]
//! cls.predictions.bias                                           [V]   (decoder: the word embeddings)
//! classifier.{dense,out_proj}                                    [H, H] + [H], [C, H] + [C]
//! ```

use super::BertConfig;

/// Name and shape of a parameter.
pub type Parameter = (String, Vec<usize>);

/// Embeddings and encoder layers.
pub fn encoder(config: &BertConfig) -> Vec<Parameter> {
    let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
    let mut list = vec![
        (
            "bert.embeddings.word_embeddings.weight".to_owned(),
            vec![config.vocab_size, hidden],
        ),
        (
            "bert.embeddings.position_embeddings.weight".to_owned(),
            vec![config.max_position_embeddings, hidden],
        ),
        (
            "bert.embeddings.token_type_embeddings.weight".to_owned(),
            vec![config.type_vocab_size, hidden],
        ),
    ];
    layer_norm(&mut list, "bert.embeddings.LayerNorm", hidden);
    for layer in 0..config.num_hidden_layers {
        let layer = format!("bert.encoder.layer.{layer}");
        for projection in ["query", "key", "value"] {
            linear(
                &mut list,
                &format!("{layer}.attention.self.{projection}"),
                hidden,
                hidden,
            );
        }
        linear(&mut list, &format!("{layer}.attention.output.dense"), hidden, hidden);
        layer_norm(&mut list, &format!("{layer}.attention.output.LayerNorm"), hidden);
        linear(&mut list, &format!("{layer}.intermediate.dense"), intermediate, hidden);
        linear(&mut list, &format!("{layer}.output.dense"), hidden, intermediate);
        layer_norm(&mut list, &format!("{layer}.output.LayerNorm"), hidden);
    }
    list
}

/// The head of masked language modelling without its decoder's weight, which is the word embeddings.
pub fn mlm_head(config: &BertConfig) -> Vec<Parameter> {
    let mut list = Vec::new();
    linear(
        &mut list,
        "cls.predictions.transform.dense",
        config.hidden_size,
        config.hidden_size,
    );
    layer_norm(&mut list, "cls.predictions.transform.LayerNorm", config.hidden_size);
    list.push(("cls.predictions.bias".to_owned(), vec![config.vocab_size]));
    list
}

/// The classification head on the \[CLS\] row.
pub fn task_head(config: &BertConfig) -> Vec<Parameter> {
    let mut list = Vec::new();
    linear(&mut list, "classifier.dense", config.hidden_size, config.hidden_size);
    linear(
        &mut list,
        "classifier.out_proj",
        config.labels.len(),
        config.hidden_size,
    );
    list
}

/// All of them.
pub fn all(config: &BertConfig) -> Vec<Parameter> {
    [encoder(config), mlm_head(config), task_head(config)].concat()
}

/// Names under which others store the parameter `name`, most usual first: older BERTs call LayerNorm's parameters gamma
/// and beta, and bare encoders leave the prefix out.
pub fn aliases(name: &str) -> Vec<String> {
    let mut names = vec![name.to_owned()];
    if let Some(layer) = name.strip_suffix("LayerNorm.weight") {
        names.push(format!("{layer}LayerNorm.gamma"));
    }
    if let Some(layer) = name.strip_suffix("LayerNorm.bias") {
        names.push(format!("{layer}LayerNorm.beta"));
    }
    let bare: Vec<String> = names
        .iter()
        .filter_map(|name| name.strip_prefix("bert."))
        .map(str::to_owned)
        .collect();
    names.extend(bare);
    names
}

fn linear(list: &mut Vec<Parameter>, name: &str, outputs: usize, inputs: usize) {
    list.push((format!("{name}.weight"), vec![outputs, inputs]));
    list.push((format!("{name}.bias"), vec![outputs]));
}

fn layer_norm(list: &mut Vec<Parameter>, name: &str, width: usize) {
    list.push((format!("{name}.weight"), vec![width]));
    list.push((format!("{name}.bias"), vec![width]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn bert(layers: usize, hidden: usize, classes: usize) -> BertConfig {
        BertConfig {
            vocab_size: 30_522,
            hidden_size: hidden,
            num_hidden_layers: layers,
            num_attention_heads: hidden / 64,
            intermediate_size: 4 * hidden,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            labels: (0..classes).map(|class| class.to_string()).collect(),
            ..BertConfig::default()
        }
    }

    fn count(parameters: &[Parameter]) -> usize {
        parameters
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum()
    }

    // sum(p.numel() for p in transformers.BertForMaskedLM(transformers.BertConfig()).parameters()), and for the large
    // configuration: 109,514,298 and 335,174,458. Both have two segment rows.
    #[test]
    fn base_and_large_have_the_published_numbers_of_parameters() {
        let without_task = |config: &BertConfig| count(&[encoder(config), mlm_head(config)].concat());
        assert_eq!(without_task(&bert(12, 768, 0)), 109_514_298);
        assert_eq!(without_task(&bert(24, 1024, 0)), 335_174_458);
    }

    #[test]
    fn the_task_head_has_two_linear_layers() {
        let (hidden, classes) = (768, 13);
        assert_eq!(
            count(&task_head(&bert(12, hidden, classes))),
            hidden * hidden + hidden + hidden * classes + classes
        );
    }

    #[test]
    fn no_name_occurs_twice_not_even_as_an_alias() {
        let all = all(&bert(3, 128, 4));
        let names: HashSet<String> = all.iter().flat_map(|(name, _)| aliases(name)).collect();
        assert_eq!(
            names.len(),
            all.iter().map(|(name, _)| aliases(name).len()).sum::<usize>()
        );
    }

    #[test]
    fn a_bare_old_encoder_is_found_by_its_aliases() {
        let found = aliases("bert.encoder.layer.0.output.LayerNorm.bias");
        assert!(
            found.contains(&"encoder.layer.0.output.LayerNorm.beta".to_owned()),
            "{found:?}"
        );
        assert_eq!(aliases("cls.predictions.bias"), ["cls.predictions.bias"]);
    }
}
