//! Trainings that papers report: sizes, tokens, what they print, and the scores of the TLM paper's table 2.

use serde::Serialize;

use super::Encoder;
use super::convention::{Head, Part, Phase};
use super::tasks::{SCALES, Scale, TASKS};

/// What kind of training it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// A pretrained language model of the TLM paper's table 2.
    Plm,
    /// TLM at one of its scales, the mean over eight tasks.
    Tlm,
    /// Another system.
    Other,
}

/// A figure as a source prints it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Printed {
    /// FLOPs.
    pub flops: f64,
    /// Who prints it.
    pub source: &'static str,
}

/// What can be counted of a training.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    /// Nothing: no number of tokens is published.
    Nothing,
    /// Parameters and tokens as published; shapes that the conventions beyond `paper` do not describe.
    Sizes {
        /// N.
        parameters: f64,
        /// D.
        tokens: f64,
    },
    /// Every shape, of one training or of several whose mean counts.
    Shapes(Vec<Vec<Part>>),
}

/// A training.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// Name.
    pub name: &'static str,
    /// Kind.
    pub group: Group,
    /// Gigabytes of text.
    pub data_gb: Option<f64>,
    /// What can be counted.
    pub known: Known,
    /// What sources print, that of the TLM paper first.
    pub printed: Vec<Printed>,
    /// Test scores of the eight tasks, in the order of [`TASKS`].
    pub scores: Option<[f64; 8]>,
    /// What else is published of its cost.
    pub remark: &'static str,
}

const TLM: &str = "Yao et al. 2022";
const ELECTRA: &str = "Clark et al. 2020";
const GPT3: &str = "Brown et al. 2020";

/// The rows of the TLM paper's table 2, in its order, then the other systems.
pub fn published() -> Vec<Published> {
    let mut rows = table2();
    rows.extend(others());
    rows
}

fn table2() -> Vec<Published> {
    let bert = [Phase::new(900_000, 256, 128), Phase::new(100_000, 256, 512)];
    let roberta = [Phase::new(500_000, 8000, 512)];
    let plm = |name, encoder: Encoder, named, phases: &[Phase], data_gb, printed: [f64; 3], scores| Published {
        name,
        group: Group::Plm,
        data_gb: Some(data_gb),
        known: Known::Shapes(vec![vec![mlm(encoder, named, phases)]]),
        printed: [TLM, ELECTRA, GPT3]
            .into_iter()
            .zip(printed)
            .filter(|(_, flops)| *flops > 0.0)
            .map(|(source, flops)| Printed { flops, source })
            .collect(),
        scores: Some(scores),
        remark: "",
    };
    let tlm = |scale: Scale, flops, scores| Published {
        name: scale.name(),
        group: Group::Tlm,
        data_gb: Some(scale.data_gb()),
        known: Known::Shapes(TASKS.iter().map(|task| scale.training(task)).collect()),
        printed: vec![Printed { flops, source: TLM }],
        scores: Some(scores),
        remark: "mean over the eight tasks",
    };
    let [small, medium, large] = SCALES;
    vec![
        plm(
            "BERT-Base",
            Encoder::BERT_BASE,
            109e6,
            &bert,
            16.0,
            [2.79e19, 6.4e19, 1.64e20],
            [93.50, 91.93, 69.11, 93.77, 69.45, 80.98, 81.94, 87.00],
        ),
        plm(
            "BERT-Large",
            Encoder::BERT_LARGE,
            355e6,
            &bert,
            16.0,
            [9.07e19, 1.9e20, 5.33e20],
            [93.51, 91.62, 69.39, 94.76, 69.13, 81.37, 83.64, 87.13],
        ),
        tlm(small, 2.74e18, [93.74, 93.53, 70.54, 93.08, 69.84, 80.51, 81.99, 86.99]),
        plm(
            "RoBERTa-Base",
            Encoder::ROBERTA_BASE,
            125e6,
            &roberta,
            160.0,
            [1.54e21, 0.0, 1.50e21],
            [94.02, 93.53, 70.45, 95.43, 68.34, 81.35, 82.60, 87.23],
        ),
        tlm(
            medium,
            8.30e18,
            [93.96, 94.05, 70.90, 93.97, 72.37, 81.88, 83.24, 87.28],
        ),
        plm(
            "RoBERTa-Large",
            Encoder::ROBERTA_LARGE,
            355e6,
            &roberta,
            160.0,
            [4.36e21, 3.2e21, 4.26e21],
            [94.30, 95.16, 70.73, 96.20, 72.80, 82.62, 84.62, 87.53],
        ),
        tlm(large, 7.59e19, [94.34, 95.16, 72.49, 95.77, 72.19, 83.29, 85.12, 87.50]),
    ]
}

/// ELECTRA's sizes, then what gives no FLOPs.
fn others() -> Vec<Published> {
    let electra = |name, named, shapes: [Encoder; 2], masked, phase: Phase, flops| Published {
        name,
        group: Group::Other,
        data_gb: None,
        known: Known::Shapes(vec![electra(named, shapes, masked, phase)]),
        printed: vec![Printed { flops, source: ELECTRA }],
        scores: None,
        remark: "generator and discriminator",
    };
    let small = [256, 64].map(|hidden| Encoder::bert(12, hidden).embedding(128));
    let base = [Encoder::BERT_BASE, Encoder::bert(12, 256).embedding(768)];
    let large = [Encoder::BERT_LARGE, Encoder::bert(24, 256).embedding(1024)];
    let other = |name, known, remark| Published {
        name,
        group: Group::Other,
        data_gb: None,
        known,
        printed: Vec::new(),
        scores: None,
        remark,
    };
    let sizes = |parameters| Known::Sizes {
        parameters,
        tokens: Phase::new(1_000_000, 2048, 512).tokens(),
    };
    vec![
        electra(
            "ELECTRA-Small",
            14e6,
            small,
            0.15,
            Phase::new(1_000_000, 128, 128),
            1.4e18,
        ),
        electra("ELECTRA-Base", 110e6, base, 0.15, Phase::new(766_000, 256, 512), 6.4e19),
        electra(
            "ELECTRA-Large 400k",
            335e6,
            large,
            0.25,
            Phase::new(400_000, 2048, 512),
            7.1e20,
        ),
        electra(
            "ELECTRA-Large 1.75M",
            335e6,
            large,
            0.25,
            Phase::new(1_750_000, 2048, 512),
            3.1e21,
        ),
        Published {
            data_gb: Some(78.0),
            ..other(
                "DeBERTa-Base",
                sizes(134e6),
                "64 V100 for 10 days; each step costs 1.3 times RoBERTa's",
            )
        },
        Published {
            data_gb: Some(78.0),
            ..other(
                "DeBERTa-Large",
                sizes(405e6),
                "96 V100 for 20 days; each step costs 1.3 times RoBERTa's",
            )
        },
        other(
            "Primer 110M",
            Known::Nothing,
            "a decoder on C4: 1.7 to 1.9 times fewer FLOPs than T5's decoder to the same perplexity",
        ),
        other(
            "Primer 535M",
            Known::Nothing,
            "3,800 TPUv3 hours to the perplexity that costs T5 15,700: 4.2 times fewer",
        ),
        other(
            "EarlyBERT",
            Known::Nothing,
            "30 to 35 % of BERT's pre-training time saved, 35 to 45 % of its fine-tuning; a layer's products cost 62 %",
        ),
    ]
}

fn mlm(encoder: Encoder, named_parameters: f64, phases: &[Phase]) -> Part {
    Part {
        encoder,
        named_parameters,
        parameters: encoder.parameters(),
        head: Head::Mlm(0.15),
        phases: phases.to_vec(),
        stage2: false,
    }
}

/// Both encoders read every token; the embeddings are shared and counted once.
fn electra(named: f64, [discriminator, generator]: [Encoder; 2], masked: f64, phase: Phase) -> Vec<Part> {
    let h = discriminator.hidden;
    let shared = generator.vocabulary + generator.positions + generator.segments + 2;
    let own = generator.parameters() - shared * generator.embedding;
    let part = |encoder, named_parameters, parameters, head| Part {
        encoder,
        named_parameters,
        parameters,
        head,
        phases: vec![phase],
        stage2: false,
    };
    let replaced = h * h + h + h + 1;
    let whole = discriminator.embedding_parameters() + discriminator.layer_parameters() + replaced;
    vec![
        part(discriminator, named, whole, Head::Replaced),
        part(generator, own as f64, own, Head::Mlm(masked)),
    ]
}
