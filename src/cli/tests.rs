use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

fn usage_error(line: &str) -> String {
    let error = parse(line).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    error.to_string()
}

#[test]
fn the_definitions_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_a_meaning_and_an_example_in_its_help() {
    for command in Cli::command().get_subcommands_mut() {
        let name = command.get_name().to_owned();
        let help = command.render_long_help().to_string();
        assert!(command.get_about().is_some(), "{name}");
        assert!(
            help.contains("Examples:\n") && help.contains(&format!("tlm {name}")),
            "{name}: {help}"
        );
        let written = command.get_after_help().unwrap().to_string();
        let longest = written.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(
            longest <= 100,
            "{name}: a terminal breaks an example of {longest} columns"
        );
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{name} {}", argument.get_id());
        }
    }
}

#[test]
fn the_documented_command_lines_are_accepted() {
    for line in [
        "tlm run c.toml",
        "tlm run c.toml --out d --set a.b=1 --set c.d=2 --resume --json",
        "tlm --json --threads 3 --device cuda:1 run c.toml",
        "tlm run c.toml --print-config",
        "tlm train c.toml",
        "tlm finetune c.toml --model d",
        "tlm select --index i --queries t.jsonl --top-k 5 --out s.jsonl --query tfidf:20 --method random \
         --analyzer english --k1 0.9 --b 0.4 --length lucene",
        "tlm index build --out i a.jsonl b.csv --analyzer standard --memory 256M --passage-words auto",
        "tlm index add --index i a.jsonl",
        "tlm index add i a.jsonl",
        "tlm index info i",
        "tlm index verify --index i",
        "tlm search --index i --queries q.jsonl --top-k 5 --out r.trec --query rake --stop-words nltk --variant bm25+",
        "tlm select --engine http://h:9200/i --engine-terms 4096 --queries t.jsonl --top-k 5 --out s.jsonl",
        "tlm eval --model d --data f",
        "tlm predict --model d",
        "tlm predict --model d -",
        "tlm predict --model d f.txt --device wgpu:0",
        "tlm plan c.toml --device null",
        "tlm flops c.toml --set a.b=1 --convention exact",
        "tlm flops --table --convention paper --plot f.svg --json",
        "tlm profile c.toml --steps 10 --warmup 0 --trace t.json --html p.html --stage 2",
        "tlm bench",
        "tlm bench gemm attention.forward --preset base --preset tiny --against f.json --out g.json --rounds 5",
        "tlm devices",
    ] {
        assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
    }
}

#[test]
fn bad_usage_ends_with_code_two_and_says_what_would_be_right() {
    let says = |line: &str, part: &str| {
        let message = usage_error(line);
        assert!(message.contains(part), "{line}: {message}");
    };
    says("tlm run c.toml --reusme", "--resume");
    says("tlm selct", "select");
    says("tlm run", "CONFIG.toml");
    says("tlm devices --device tpu", "cuda");
    says("tlm devices --threads 0", "1..");
    says("tlm select --queries q --top-k 5 --out o", "--index");
    says("tlm select --index i --queries q --top-k 0 --out o", "1..");
    says(
        "tlm select --index i --queries q --top-k 5 --out o --query words",
        "tfidf:N",
    );
    says(
        "tlm select --index i --queries q --top-k 5 --out o --method none",
        "bm25 or random",
    );
    says(
        "tlm select --engine http://h/i --k1 2 --queries q --top-k 5 --out o",
        "--k1",
    );
    says("tlm index build --out i a.jsonl --memory 1M", "at least 64M");
    says("tlm index info", "INDEX");
    says("tlm search --queries q --top-k 5 --out o", "--index");
    says("tlm eval --model d --data f --metric f1", "micro_f1");
    says("tlm flops", "CONFIG.toml");
    says("tlm flops --table --convention kaplan", "chinchilla");
}

#[test]
fn sizes_of_memory_have_units() {
    let sizes = ["64M", "0.5g", "2GiB", "1 T", "67108864"].map(|text| search_args::memory(text).ok());
    assert_eq!(sizes, [64 << 20, 512 << 20, 2 << 30, 1 << 40, 64 << 20].map(Some));
    for wrong in ["", "G", "63M", "x", "1P", "-1G", "nanG"] {
        assert!(search_args::memory(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn every_way_to_end_has_its_own_code() {
    let ends = [
        CliError::BadInput(String::new()),
        CliError::Failed(String::new()),
        CliError::Interrupted("run".into()),
        CliError::ReaderGone,
    ];
    assert_eq!(ends.iter().map(CliError::code).collect::<Vec<_>>(), [2, 1, 75, 0]);
    assert!(
        CliError::Interrupted("run".into())
            .message()
            .unwrap()
            .contains("--resume")
    );
    let pipe = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
    assert_eq!(CliError::stdout(&pipe).message(), None);
}
