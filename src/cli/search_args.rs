//! Arguments that the commands which search have in common.

use std::path::Path;

use clap::Args;

use super::{CliError, GlobalArgs};
use crate::device::choice::DeviceChoice;
use crate::retrieval::{
    Bm25, DEFAULT_MEMORY, DocumentLength, LEAST_MEMORY, NLTK_STOP_WORDS, STOP_WORDS, SearchSettings, Variant,
};
use crate::tlm::config::Query;

/// How many passages are found for a query, and how.
#[derive(Debug, Args)]
pub(super) struct SettingsArgs {
    /// Passages per query.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top_k: u32,
    /// What of a text is the query: text, the whole of it; rake, its 20 best key phrases; tfidf:N, its N terms with the
    /// largest tf x idf.
    #[arg(long, default_value = "text")]
    query: Query,
    /// lucene, robertson, atire, bm25l or bm25+.
    #[arg(long, default_value = "lucene")]
    variant: Variant,
    /// BM25's saturation of the term frequency.
    #[arg(long, default_value_t = 1.2, value_name = "X")]
    k1: f64,
    /// BM25's strength of the length normalisation.
    #[arg(long, default_value_t = 0.75, value_name = "Y")]
    b: f64,
    /// Document length: exact, or lucene (rounded to one byte).
    #[arg(long, default_value = "exact")]
    length: DocumentLength,
    /// Words of queries that do not count: none, lucene (33 words, which the analyzer english drops anyway), nltk (179
    /// words), or a file with one a line.
    #[arg(long, default_value = "none", value_name = "LIST")]
    stop_words: String,
    /// Memory for the search: 256M, 2G. The queries' texts come on top.
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = memory)]
    memory: u64,
}

impl SettingsArgs {
    /// The settings of the search, BM25's parameters checked.
    pub(super) fn settings(&self, global: &GlobalArgs) -> Result<SearchSettings, CliError> {
        let bm25 = Bm25 {
            variant: self.variant,
            k1: self.k1,
            b: self.b,
            length: self.length,
        };
        bm25.validate().map_err(|error| CliError::BadInput(error.to_string()))?;
        Ok(SearchSettings {
            k: self.top_k as usize,
            bm25,
            query: self.query,
            stop_words: self.stop_words()?,
            memory: self.memory,
            device: global.device.unwrap_or(DeviceChoice::Cpu),
        })
    }

    /// The words that do not count.
    fn stop_words(&self) -> Result<Vec<String>, CliError> {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        match self.stop_words.as_str() {
            "none" => Ok(Vec::new()),
            "lucene" => Ok(owned(&STOP_WORDS)),
            "nltk" => Ok(owned(&NLTK_STOP_WORDS)),
            file => {
                let words = std::fs::read_to_string(Path::new(file)).map_err(|error| {
                    CliError::BadInput(format!(
                        "--stop-words {file}: cannot read it ({error}); give none, lucene, nltk or a file of words"
                    ))
                })?;
                Ok(words.lines().map(str::to_owned).collect())
            }
        }
    }
}

/// Bytes, with K, M, G or T for powers of 1024.
pub(super) fn memory(text: &str) -> Result<u64, String> {
    let expected = || "use a number with K, M, G or T, at least 64M: 256M, 2G".to_owned();
    let text = text.trim().to_ascii_uppercase();
    let text = text.strip_suffix("IB").or(text.strip_suffix('B')).unwrap_or(&text);
    let units = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
    let unit = units
        .iter()
        .find_map(|&(unit, shift)| Some((text.strip_suffix(unit)?, shift)));
    let (number, shift) = unit.unwrap_or((text, 0));
    let number: f64 = number.trim().parse().map_err(|_| expected())?;
    let bytes = number * (1_u64 << shift) as f64;
    if bytes >= LEAST_MEMORY as f64 && bytes < 2_f64.powi(60) {
        Ok(bytes as u64)
    } else {
        Err(expected())
    }
}

/// [`DEFAULT_MEMORY`] as an argument.
const _: () = assert!(DEFAULT_MEMORY == 1 << 30, "the default above says 1G");
