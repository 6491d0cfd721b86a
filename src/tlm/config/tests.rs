use super::schema::{KEYS, Kind, SECTIONS};
use super::*;
use crate::retrieval::{Analyzer, DocumentLength, Variant};
use crate::tlm::objective::{HeadOnExternal, LossForm};
use crate::train::metrics::Metric;

const SMALLEST: &str = "[task]\ntrain = \"train.jsonl\"\ndev = \"dev.jsonl\"\ntest = \"test.jsonl\"\n\
                        [corpus]\ninputs = \"corpus/*.jsonl.zst\"\n";

fn parse(text: &str, overrides: &[&str]) -> Result<Config, ConfigError> {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    Config::parse(text, Path::new("/data/chemprot/run.toml"), &overrides)
}

fn good(overrides: &[&str]) -> Config {
    parse(SMALLEST, overrides).unwrap()
}

fn message(text: &str, overrides: &[&str]) -> String {
    parse(text, overrides).unwrap_err().to_string()
}

#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "\"{message}\" does not say \"{part}\"");
    }
}

#[test]
fn the_example_of_the_documentation_is_read_as_written() {
    let text = r#"
[task]
name = "chemprot"
train = "train.jsonl"
dev = "dev.jsonl"
test = ["test.jsonl", "/else/where.jsonl"]
metric = "micro_f1"
[corpus]
inputs = ["corpus/*.jsonl.zst"]
[select]
query = "text"
[stage1]
rho1 = 3
rho2 = 20
learning_rate = 1e-3
[stage2]
steps = 600
learning_rate = 1e-4
warmup = 60
[run]
seeds = 3
"#;
    let config = parse(text, &[]).unwrap();
    assert_eq!(config.task.name, "chemprot");
    assert_eq!(config.task.metric, Metric::MicroF1);
    assert_eq!(config.task.test, ["/data/chemprot/test.jsonl", "/else/where.jsonl"]);
    assert_eq!(config.corpus.inputs, ["/data/chemprot/corpus/*.jsonl.zst"]);
    assert_eq!(config.select.query, Query::Text);
    assert_eq!((config.stage1.rho1, config.stage1.rho2), (3, 20.0));
    assert_eq!(config.stage1.optimizer.learning_rate, 1e-3);
    assert_eq!(
        config.stage2_schedule(),
        LinearSchedule {
            peak: 1e-4,
            warmup: 60,
            total: 600
        }
    );
    assert_eq!(config.seeds().collect::<Vec<_>>(), [42, 43, 44]);
}

#[test]
fn defaults_are_the_published_codes() {
    let config = good(&[]);
    let (one, two) = (&config.stage1.optimizer, &config.stage2.optimizer);
    assert_eq!(
        (one.beta1, one.beta2, one.epsilon, one.weight_decay, one.clip),
        (0.9, 0.999, 1e-6, 0.01, 0.0)
    );
    assert_eq!(
        (one.learning_rate, two.learning_rate, two.weight_decay),
        (1e-4, 2e-5, 0.0)
    );
    assert_eq!(
        (
            config.model.dropout,
            config.model.attention_dropout,
            config.stage1.mask_rate
        ),
        (0.1, 0.1, 0.15)
    );
    assert_eq!(config.stage1.loss, LossForm::Normalised);
    assert_eq!(config.stage1.head_on_external, HeadOnExternal::Zero);
    assert_eq!((config.select.k1, config.select.b), (1.2, 0.75));
    assert_eq!(config.shape().max_positions, 512);
}

#[test]
fn presets_give_the_known_shapes_and_overrides_win() {
    let shape = |preset: &str| {
        let shape = good(&[&format!("model.preset={preset}")]).shape();
        (shape.layers, shape.hidden, shape.heads, shape.intermediate)
    };
    assert_eq!(shape("tiny"), (2, 128, 2, 512));
    assert_eq!(shape("mini"), (4, 256, 4, 1024));
    assert_eq!(shape("small"), (4, 512, 8, 2048));
    assert_eq!(shape("medium"), (8, 512, 8, 2048));
    assert_eq!(shape("base"), (12, 768, 12, 3072));
    assert_eq!(shape("large"), (24, 1024, 16, 4096));
    let wide = good(&[
        "model.preset=tiny",
        "model.hidden=384",
        "model.layers=6",
        "model.heads=12",
    ])
    .shape();
    assert_eq!(
        (wide.layers, wide.hidden, wide.heads, wide.intermediate),
        (6, 384, 12, 1536)
    );
}

#[test]
fn values_follow_from_others_until_they_are_set() {
    let config = good(&["model.max_length=512", "stage1.external_length=128", "select.top_k=7"]);
    assert_eq!((config.external_length(), config.passage_words()), (128, Some(96)));
    assert_eq!((config.rank_cut(), good(&["select.rank_cut=3"]).rank_cut()), (7, 3));
    assert_eq!(good(&["model.max_length=1024"]).shape().max_positions, 1024);
    assert_eq!(good(&["stage1.steps=5000"]).stage1_schedule().warmup, 500);
    assert_eq!(good(&["corpus.passage_words=as_given"]).passage_words(), None);
    assert_eq!(good(&["corpus.passage_words=40"]).passage_words(), Some(40));
    assert_eq!(
        (
            good(&["select.method=none"]).rho1(),
            good(&["select.method=random"]).rho1()
        ),
        (0, 3)
    );
}

#[test]
fn the_printed_configuration_reads_back_the_same_from_anywhere() {
    let changes = [
        "task.name=a b",
        "stage1.rho2=0.5",
        "stage2.warmup=7",
        "select.top_k=9",
        "model.layers=3",
    ];
    for config in [
        good(&[]),
        good(&changes),
        good(&["tokenizer.file=vocab.txt", "corpus.passage_words=50"]),
    ] {
        let printed = config.to_toml();
        let again = Config::parse(&printed, Path::new("/another/place/config.toml"), &[]).unwrap();
        assert_eq!(again.to_toml(), printed);
        assert_eq!(config.differences(&again), []);
    }
    let printed = good(&[]).to_toml();
    assert!(
        printed.contains("# layers = 4\n"),
        "a value that follows from the preset is a comment:\n{printed}"
    );
    let tiny = Config::parse(&printed, Path::new("config.toml"), &["model.preset=tiny".to_owned()]).unwrap();
    assert_eq!(tiny.shape().layers, 2);
}

#[test]
fn every_key_of_the_table_is_printed_with_its_meaning_and_can_be_set() {
    let printed = good(&[]).to_toml();
    for key in KEYS {
        assert!(SECTIONS.iter().any(|(name, _)| *name == key.section), "{}", key.path());
        assert!(printed.contains(&format!("# {}\n", key.doc)), "{}", key.path());
        let (text, value) = match key.kind {
            Kind::Whole(least, most) => (least.max(8).min(most).to_string(), None),
            Kind::Choice(words) => (words[words.len() - 1].to_owned(), None),
            Kind::Switch => ("true".to_owned(), None),
            Kind::Query => ("tfidf:3".to_owned(), None),
            Kind::PassageWords => ("17".to_owned(), None),
            Kind::Patterns => (
                "[\"x\", \"y\"]".to_owned(),
                Some("[\"/data/chemprot/x\", \"/data/chemprot/y\"]"),
            ),
            Kind::File | Kind::Directory => ("x".to_owned(), Some("\"/data/chemprot/x\"")),
            Kind::Text | Kind::Name => ("some text".to_owned(), Some("\"some text\"")),
            Kind::Rate | Kind::PositiveRate | Kind::UnitInterval | Kind::NotNegative | Kind::Positive => {
                ("0.125".to_owned(), None)
            }
        };
        // The structures must take the value: reading it back from the print proves that none is dropped.
        let all = parse::parse(
            SMALLEST,
            Path::new("/data/chemprot/run.toml"),
            &[format!("{}={text}", key.path())],
        );
        let shown = print::to_toml(&all.unwrap_or_else(|error| panic!("{}: {error}", key.path())));
        let value = value.map_or_else(|| text.clone(), str::to_owned);
        let (plain, quoted) = (
            format!("\n{} = {value}\n", key.name),
            format!("\n{} = \"{value}\"\n", key.name),
        );
        assert!(
            shown.contains(&plain) || shown.contains(&quoted),
            "{} = {value} is not in\n{shown}",
            key.path()
        );
    }
}

#[test]
fn every_field_of_the_sections_is_in_the_table() {
    let options = [
        "select.rank_cut=1",
        "model.layers=1",
        "model.hidden=64",
        "model.heads=1",
        "model.intermediate=4",
    ];
    let more = [
        "model.max_positions=128",
        "stage1.external_length=8",
        "stage1.warmup=1",
        "stage2.warmup=1",
    ];
    let files = ["select.file=s", "tokenizer.file=t", "corpus.index=i"];
    let all: Vec<String> = options
        .iter()
        .chain(&more)
        .chain(&files)
        .map(|text| (*text).to_owned())
        .collect();
    let config = parse::parse(SMALLEST, Path::new("run.toml"), &all).unwrap();
    let table = toml::Table::try_from(&config).unwrap();
    let mut count = 0;
    for (section, keys) in &table {
        for name in keys.as_table().unwrap().keys() {
            assert!(
                schema::find(section, name).is_some(),
                "{section}.{name} is not in the table of keys"
            );
            count += 1;
        }
    }
    assert_eq!(count, KEYS.len());
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_one() {
    let text = format!("{SMALLEST}\n[stage1]\nsteps = 10\nrho_1 = 3\n");
    assert_says(
        &message(&text, &[]),
        &[
            "/data/chemprot/run.toml:10:",
            "\"rho_1\" in [stage1]",
            "did you mean \"rho1\"?",
        ],
    );
    let text = format!("{SMALLEST}\n[stage2]\nrho2 = 3\n");
    assert_says(&message(&text, &[]), &["run.toml:9:", "it belongs into [stage1]"]);
    assert_says(
        &message(&format!("{SMALLEST}[stage3]\nx = 1\n"), &[]),
        &["run.toml:7:", "[stage3]", "sections: task"],
    );
    assert_says(
        &message("seed = 1\n", &[]),
        &["run.toml:1:", "\"seed\" outside of any section", "[run]"],
    );
    assert_says(
        &message(SMALLEST, &["model.dropuot=0"]),
        &["--set model.dropuot=0", "did you mean \"dropout\"?"],
    );
}

#[test]
fn a_bad_value_is_shown_with_what_would_be_right() {
    let at = |line: &str| message(&format!("{SMALLEST}\n{line}\n"), &[]);
    assert_says(
        &at("[stage1]\nrho1 = \"three\""),
        &["run.toml:9:", "stage1.rho1 = \"three\"", "a whole number of at least 0"],
    );
    assert_says(&at("[stage1]\nsteps = -5"), &["stage1.steps = -5", "at least 0"]);
    assert_says(&at("[stage1]\nsteps = 1.5"), &["stage1.steps = 1.5", "a whole number"]);
    assert_says(
        &at("[model]\npreset = \"huge\""),
        &["\"huge\"", "\"tiny\", \"mini\", \"small\""],
    );
    assert_says(&at("[model]\ndropout = 1.0"), &["from 0 to below 1"]);
    assert_says(&at("[model]\ndropout = nan"), &["from 0 to below 1"]);
    assert_says(&at("[select]\ntop_k = 0"), &["select.top_k = 0", "at least 1"]);
    assert_says(
        &at("[select]\nquery = \"words\""),
        &["select.query = \"words\"", "expected \"text\""],
    );
    assert_says(
        &message(SMALLEST, &["task.name=../up"]),
        &["--set task.name=../up", "name a directory"],
    );
    assert_says(&message(SMALLEST, &["stage1.rho1"]), &["expected section.key=value"]);
}

#[test]
fn broken_toml_is_an_error_with_line_and_column() {
    assert_says(
        &message("[task]\nname = \"x\n", &[]),
        &["run.toml:2:", "not valid TOML"],
    );
    assert_says(
        &message("[task]\nname = 1\nname = 2\n", &[]),
        &["run.toml:3:1", "duplicate key"],
    );
}

#[test]
fn missing_data_is_an_error_that_says_what_to_write() {
    assert_says(
        &message("[corpus]\ninputs = \"c.txt\"\n", &[]),
        &["task.train is missing", "train.jsonl"],
    );
    let alone = "[task]\ntrain = \"a\"\ndev = \"b\"\ntest = \"c\"\n";
    assert_says(
        &message(alone, &[]),
        &["corpus.inputs is missing", "select.method = \"none\""],
    );
    assert!(parse(alone, &["select.method=none"]).is_ok());
    assert!(parse(alone, &["corpus.index=INDEX"]).is_ok());
    assert!(parse(alone, &["select.file=s.jsonl"]).is_ok());
}

#[test]
fn values_that_do_not_fit_together_are_refused_with_a_remedy() {
    let says = |overrides: &[&str], parts: &[&str]| assert_says(&message(SMALLEST, overrides), parts);
    says(
        &["model.heads=3"],
        &["--set model.heads=3", "heads of 32, 64 or 128", "8 or 4 or 2"],
    );
    says(&["model.hidden=100"], &["a multiple of 64"]);
    says(&["model.max_length=126"], &["multiple of 4", "128"]);
    says(
        &["model.max_positions=64"],
        &["model.max_length = 128", "model.max_positions = 64"],
    );
    says(
        &["stage1.warmup=3000"],
        &["stage1.warmup = 3000", "stage1.steps = 2000"],
    );
    says(&["stage2.accumulate=5"], &["must divide stage2.batch = 32"]);
    says(&["select.rank_cut=51"], &["at most select.top_k = 50"]);
    says(
        &["select.variant=bm25l", "select.k1=0"],
        &["--set select.k1=0", "above 0 for bm25l"],
    );
    says(
        &["corpus.index=INDEX"],
        &["corpus.inputs", "corpus.index", "leave one out"],
    );
    says(
        &["tokenizer.file=t.json", "tokenizer.vocab_size=99"],
        &["leave tokenizer.vocab_size out"],
    );
    says(&["stage2.steps=0", "stage1.steps=3"], &["no internal batch"]);
    assert!(parse(SMALLEST, &["stage2.steps=0", "stage1.steps=4", "stage1.warmup=0"]).is_ok());
}

#[test]
fn a_file_that_is_not_utf8_is_an_error_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("run.toml");
    std::fs::write(&file, b"[task]\nname = \"caf\xe9\"\n").unwrap();
    assert_says(
        &Config::load(&file, &[]).unwrap_err().to_string(),
        &["run.toml:2:12", "invalid UTF-8"],
    );
    let absent = directory.path().join("absent.toml");
    assert_says(
        &Config::load(&absent, &[]).unwrap_err().to_string(),
        &["cannot read", "absent.toml"],
    );
}

#[test]
fn differences_name_the_keys_that_changed() {
    let found = good(&[]).differences(&good(&["stage1.batch=32", "model.preset=tiny"]));
    let keys: Vec<_> = found.iter().map(|(key, _, _)| key.as_str()).collect();
    let expected = [
        "model.preset",
        "model.layers",
        "model.hidden",
        "model.heads",
        "model.intermediate",
        "stage1.batch",
    ];
    assert_eq!(keys, expected);
    assert_eq!((found[5].1.as_str(), found[5].2.as_str()), ("64", "32"));
}

#[test]
fn choices_of_the_selection_are_those_of_the_retrieval() {
    let choices = |name: &str| match schema::find("select", name).unwrap().kind {
        Kind::Choice(words) => words.to_vec(),
        other => panic!("{name} is {other:?}"),
    };
    assert_eq!(choices("variant"), Variant::ALL.map(Variant::name));
    assert_eq!(choices("length"), DocumentLength::ALL.map(DocumentLength::name));
    assert_eq!(choices("analyzer"), Analyzer::ALL.map(Analyzer::name));
}
