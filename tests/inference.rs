//! A model directory at work: `evaluate` and `predict` on a small random model that was saved like a trained one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tlm::bert::{initial_values, parameters};
use tlm::data::{Format, Tokenizer, VocabularySettings, WordCounts};
use tlm::device::choice::DeviceChoice;
use tlm::hub::{self, BertConfig, Tensor, WeightsFile};
use tlm::tlm::classifier::Classifier;
use tlm::tlm::evaluate::{EvaluationRequest, Prediction, PredictionRequest, evaluate, predict};
use tlm::tlm::observer::Silent;
use tlm::tlm::{ErrorKind, TlmError};
use tlm::train::metrics::Metric;

const LABELS: [&str; 3] = ["zebra", "ant", "mole"];
const WORDS: [&str; 12] = [
    "enzyme", "inhibits", "protein", "the", "film", "boring", "market", "rose", "goal", "match", "kinase", "of",
];

/// Texts of 0 to 39 words: the longest are truncated to the model's 24 tokens.
fn texts(count: usize) -> Vec<String> {
    let text = |i: usize| {
        let words: Vec<&str> = (0..i * 7 % 40)
            .map(|j| WORDS[(i * i + j * (i + 3)) % WORDS.len()])
            .collect();
        words.join(" ")
    };
    (0..count).map(text).collect()
}

/// Saves a random model whose weights are large enough for its answers to differ. `keep` chooses the tensors.
fn save_model(path: &Path, keep: impl Fn(&str) -> bool) -> BertConfig {
    let mut words = WordCounts::default();
    words.add(&WORDS);
    let settings = VocabularySettings {
        vocab_size: 200,
        ..VocabularySettings::default()
    };
    let tokenizer = Tokenizer::train(&words, &settings).unwrap();
    let file = path.with_extension("tokenizer.json");
    tokenizer.save(&file).unwrap();
    let config = BertConfig {
        vocab_size: tokenizer.vocab_size(),
        hidden_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 128,
        max_position_embeddings: 32,
        max_length: 24,
        labels: LABELS.map(str::to_owned).to_vec(),
        ..BertConfig::default()
    };
    let table = parameters(&config);
    let mut flat = vec![0.0; table.words()];
    initial_values(&config, &table, 5, &mut flat, |_| true);
    let values: Vec<(&str, Vec<usize>, Vec<f32>)> = table
        .iter()
        .filter(|(spec, _)| keep(&spec.name))
        .map(|(spec, offset)| {
            let (rows, width) = (spec.rows as usize, spec.width as usize);
            let shape = if spec.vector { vec![width] } else { vec![rows, width] };
            let scale = if spec.vector { 1.0 } else { 12.0 };
            let data = flat[offset..offset + spec.len()].iter().map(|x| scale * x).collect();
            (spec.name.as_str(), shape, data)
        })
        .collect();
    let tensors: Vec<Tensor> = values
        .iter()
        .map(|(name, shape, data)| Tensor { name, shape, data })
        .collect();
    hub::save(path, &config, &tensors, &std::fs::read_to_string(file).unwrap()).unwrap();
    config
}

struct Place {
    directory: TempDir,
    model: PathBuf,
}

impl Place {
    fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        let model = directory.path().join("model");
        save_model(&model, |_| true);
        Place { directory, model }
    }

    fn file(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path
    }

    fn predict(&self, input: &Path, format: Option<Format>) -> (Vec<Prediction>, Result<(), TlmError>) {
        let request = PredictionRequest {
            model: self.model.clone(),
            input: input.to_owned(),
            format,
            text_column: "text".into(),
            device: DeviceChoice::Cpu,
        };
        let mut all = Vec::new();
        let outcome = predict(
            &request,
            |predictions| {
                all.extend_from_slice(predictions);
                true
            },
            &mut Silent,
        );
        (all, outcome)
    }

    fn evaluation(&self, data: &Path) -> EvaluationRequest {
        EvaluationRequest {
            model: self.model.clone(),
            data: vec![data.display().to_string()],
            text_column: "text".into(),
            label_column: "label".into(),
            metric: Metric::Accuracy,
            device: DeviceChoice::Cpu,
        }
    }
}

fn jsonl(texts: &[String]) -> String {
    let line = |text: &String| serde_json::json!({ "text": text }).to_string() + "\n";
    texts.iter().map(line).collect()
}

#[test]
fn the_confusion_of_evaluate_is_that_of_the_labels_that_predict_gives() {
    let place = Place::new();
    // Text 0 and every 40th after it is empty and is left out by `evaluate`.
    let texts: Vec<String> = texts(90).into_iter().filter(|text| !text.is_empty()).collect();
    let (predictions, outcome) = place.predict(&place.file("texts.jsonl", &jsonl(&texts)), None);
    outcome.unwrap();
    assert_eq!(predictions.len(), texts.len());
    let distinct: BTreeSet<&str> = predictions.iter().map(|prediction| prediction.label.as_str()).collect();
    assert!(
        distinct.len() > 1,
        "the model always says {distinct:?}: it could not be wrong"
    );
    let mut expected = vec![vec![0; 3]; 3];
    let mut labelled = String::new();
    for (i, (text, prediction)) in texts.iter().zip(&predictions).enumerate() {
        let predicted = LABELS.iter().position(|label| *label == prediction.label).unwrap();
        expected[i % 3][predicted] += 1;
        labelled += &(serde_json::json!({ "text": text, "label": LABELS[i % 3] }).to_string() + "\n");
    }
    let data = place.file("labelled.jsonl", &labelled);
    let evaluation = evaluate(&place.evaluation(&data), &mut Silent).unwrap();
    assert_eq!(evaluation.labels, LABELS);
    assert_eq!(evaluation.test.confusion, expected);
    let right: u64 = (0..3).map(|class| expected[class][class]).sum();
    assert_eq!(evaluation.test.value, right as f64 / texts.len() as f64);
    let json = serde_json::to_value(&evaluation).unwrap();
    assert_eq!(
        (&json["labels"][1], &json["examples"]),
        (&"ant".into(), &texts.len().into())
    );
}

#[test]
fn a_text_alone_has_the_same_logits_as_in_any_batch() {
    let place = Place::new();
    let texts = texts(45);
    let bits = |logits: Vec<f32>| logits.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let open = |batch| Classifier::open(&place.model, DeviceChoice::Cpu, batch).unwrap();
    let together = bits(open(45).logits(&texts).unwrap());
    assert_eq!(together.len(), 45 * 3);
    assert!(
        together[..3] != together[3..6],
        "two texts have the same logits: nothing depends on them"
    );
    for batch in [1, 7, 32] {
        assert_eq!(
            bits(open(batch).logits(&texts).unwrap()),
            together,
            "batches of {batch}"
        );
    }
    let (mut one, mut alone) = (open(32), Vec::new());
    for text in &texts {
        alone.extend(bits(one.logits(&[text]).unwrap()));
    }
    assert_eq!(alone, together);
}

#[test]
fn scores_are_probabilities_in_the_order_of_the_classes_and_the_label_has_the_largest() {
    let place = Place::new();
    let texts = texts(10);
    let (predictions, outcome) = place.predict(&place.file("texts.jsonl", &jsonl(&texts)), None);
    outcome.unwrap();
    let classified = Classifier::open(&place.model, DeviceChoice::Cpu, 4)
        .unwrap()
        .classify(&texts)
        .unwrap();
    for (prediction, classified) in predictions.iter().zip(&classified) {
        assert_eq!(prediction.scores.keys().collect::<Vec<_>>(), LABELS);
        let scores: Vec<f64> = prediction
            .scores
            .values()
            .map(|score| score.as_f64().unwrap())
            .collect();
        assert_eq!(&scores, classified);
        assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let best = prediction.scores[&prediction.label].as_f64().unwrap();
        assert!(scores.iter().all(|&score| score <= best));
    }
}

#[test]
fn every_record_is_answered_in_order_also_an_empty_one() {
    let place = Place::new();
    let texts = texts(70);
    assert!(texts[0].is_empty() && texts[40].is_empty());
    let (json, outcome) = place.predict(&place.file("texts.jsonl", &jsonl(&texts)), None);
    outcome.unwrap();
    assert_eq!(json.len(), 70);
    assert_eq!(json[0], json[40]);
    let lines = texts.join("\n") + "\n";
    let csv: String = std::iter::once("id,text\n".to_owned())
        .chain(texts.iter().enumerate().map(|(i, text)| format!("{i},{text}\n")))
        .collect();
    for (name, contents, format) in [
        ("texts.txt", &lines, None),
        ("texts.csv", &csv, None),
        ("texts.log", &lines, Some(Format::Text)),
        ("texts.txt.bak", &csv, Some(Format::Csv)),
    ] {
        let (other, outcome) = place.predict(&place.file(name, contents), format);
        outcome.unwrap();
        assert_eq!(other, json, "{name}");
    }
}

#[test]
fn a_bad_record_ends_the_work_after_the_answers_to_those_before_it() {
    let place = Place::new();
    let input = jsonl(&texts(40)) + "{\"txet\": \"x\"}\n" + &jsonl(&texts(3));
    let (predictions, outcome) = place.predict(&place.file("texts.jsonl", &input), None);
    assert_eq!(predictions.len(), 40);
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadInput);
    assert!(
        error.to_string().contains("texts.jsonl:41: field `text` is missing"),
        "{error}"
    );
}

#[test]
fn a_writer_that_refuses_stops_the_work() {
    let place = Place::new();
    let request = PredictionRequest {
        model: place.model.clone(),
        input: place.file("texts.jsonl", &jsonl(&texts(200))),
        format: None,
        text_column: "text".into(),
        device: DeviceChoice::Cpu,
    };
    let mut calls = 0;
    let write = |_: &[Prediction]| {
        calls += 1;
        false
    };
    predict(&request, write, &mut Silent).unwrap();
    assert_eq!(calls, 1);
}

#[test]
fn a_label_that_the_model_does_not_know_is_named_with_its_line() {
    let place = Place::new();
    let lines = "{\"text\": \"a film\", \"label\": \"ant\"}\n{\"text\": \"a match\", \"label\": \"bee\"}\n";
    let data = place.file("test.jsonl", lines);
    let error = evaluate(&place.evaluation(&data), &mut Silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadInput);
    let message = error.to_string();
    assert!(
        message.contains("test.jsonl:2") && message.contains("`bee`") && message.contains("`ant`"),
        "{message}"
    );
}

#[test]
fn the_head_of_the_language_model_is_not_needed_but_that_of_the_task_is() {
    let directory = tempfile::tempdir().unwrap();
    let open = |name: &str, keep: fn(&str) -> bool| {
        let path = directory.path().join(name);
        save_model(&path, keep);
        Classifier::open(&path, DeviceChoice::Cpu, 4)
    };
    let whole = open("whole", |_| true).unwrap().logits(&["protein"]).unwrap();
    let lean = open("lean", |name| !name.starts_with("cls."))
        .unwrap()
        .logits(&["protein"])
        .unwrap();
    assert_eq!(whole, lean);
    let error = open("encoder", |name| !name.starts_with("classifier.")).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::BadInput);
    let message = error.to_string();
    assert!(
        message.contains("no task head") && message.contains("tlm finetune"),
        "{message}"
    );
}

#[test]
fn a_tokenizer_with_more_tokens_than_the_model_is_refused() {
    let place = Place::new();
    let config = BertConfig::read(&place.model.join(hub::CONFIG_FILE)).unwrap();
    let smaller = BertConfig {
        vocab_size: config.vocab_size - 1,
        ..config
    };
    std::fs::write(place.model.join(hub::CONFIG_FILE), smaller.to_json()).unwrap();
    assert!(WeightsFile::open(&place.model.join(hub::WEIGHTS_FILE)).is_ok());
    let error = Classifier::open(&place.model, DeviceChoice::Cpu, 4).err().unwrap();
    assert!(error.to_string().contains("must come from the same model"), "{error}");
}
