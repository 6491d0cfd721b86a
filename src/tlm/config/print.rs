//! The complete configuration as commented TOML, and the comparison of two.

use std::fmt::Write;

use toml::{Table, Value};

use super::Config;
use super::schema::{KEYS, Key, SECTIONS};

/// See [`Config::to_toml`].
pub(super) fn to_toml(config: &Config) -> String {
    let values = table(config);
    let mut out = String::from(
        "# Complete configuration. A key that is commented out has no value of its own: it follows from others,\n\
         # and the comment shows what it is now.\n",
    );
    for (section, meaning) in SECTIONS {
        // Writing into a String cannot fail.
        let _ = write!(out, "\n# {meaning}\n[{section}]\n");
        for key in KEYS.iter().filter(|key| key.section == *section) {
            let _ = writeln!(out, "# {}", key.doc);
            let _ = match own_value(&values, key, config) {
                Some(value) => writeln!(out, "{} = {value}", key.name),
                None => writeln!(out, "# {} = {}", key.name, derived(config, key)),
            };
        }
    }
    out
}

/// See [`Config::differences`].
pub(super) fn differences(here: &Config, there: &Config) -> Vec<(String, String, String)> {
    let (left, right) = (table(here), table(there));
    let shown = |values: &Table, key: &Key, config: &Config| {
        own_value(values, key, config).map_or_else(|| derived(config, key), Value::to_string)
    };
    KEYS.iter()
        .map(|key| (key.path(), shown(&left, key, here), shown(&right, key, there)))
        .filter(|(_, here, there)| here != there)
        .collect()
}

fn table(config: &Config) -> Table {
    Table::try_from(config).expect("a configuration is made of tables, texts and numbers")
}

/// The key's value where it has one of its own. Empty lists and a vocabulary size beside a given vocabulary have none.
fn own_value<'a>(values: &'a Table, key: &Key, config: &Config) -> Option<&'a Value> {
    if key.path() == "tokenizer.vocab_size" && config.tokenizer.file.is_some() {
        return None;
    }
    let value = values.get(key.section)?.get(key.name)?;
    if value.as_array().is_some_and(Vec::is_empty) {
        None
    } else {
        Some(value)
    }
}

/// What a key without a value of its own stands for now.
fn derived(config: &Config, key: &Key) -> String {
    let shape = config.shape();
    match (key.section, key.name) {
        ("select", "rank_cut") => config.rank_cut().to_string(),
        ("model", "layers") => shape.layers.to_string(),
        ("model", "hidden") => shape.hidden.to_string(),
        ("model", "heads") => shape.heads.to_string(),
        ("model", "intermediate") => shape.intermediate.to_string(),
        ("model", "max_positions") => shape.max_positions.to_string(),
        ("stage1", "external_length") => config.external_length().to_string(),
        ("stage1", "warmup") => config.stage1_schedule().warmup.to_string(),
        ("stage2", "warmup") => config.stage2_schedule().warmup.to_string(),
        ("tokenizer", "vocab_size") => "(that of the file)".to_owned(),
        _ => "(none)".to_owned(),
    }
}
