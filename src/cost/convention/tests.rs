use super::*;
use crate::cost::published::{Known, published};

fn training(name: &str) -> Vec<Part> {
    let row = published().into_iter().find(|row| row.name == name).unwrap();
    match row.known {
        Known::Shapes(mut trainings) => trainings.swap_remove(0),
        _ => panic!("{name} has no shapes"),
    }
}

fn digits(convention: Convention, name: &str) -> String {
    format!("{:.2e}", flops(convention, &training(name)))
}

// Each formula worked out by hand in f64 for the published settings, BERT at 90 % of 128 and 10 % of 512 tokens, RoBERTa
// at 8,000 x 512, to three digits.
#[test]
fn the_pretrained_models_cost_what_each_convention_says() {
    let names = ["BERT-Base", "BERT-Large", "RoBERTa-Base", "RoBERTa-Large"];
    for (convention, expected) in [
        (Convention::Paper, ["2.79e19", "9.07e19", "1.54e21", "4.36e21"]),
        (Convention::Palm, ["2.92e19", "8.88e19", "1.65e21", "4.68e21"]),
        (Convention::Megatron, ["3.65e19", "1.15e20", "2.02e21", "5.99e21"]),
        (Convention::Chinchilla, ["3.49e19", "9.63e19", "2.11e21", "5.29e21"]),
        (Convention::Electra, ["2.00e19", "5.99e19", "1.15e21", "3.19e21"]),
    ] {
        assert_eq!(names.map(|name| digits(convention, name)), expected, "{convention}");
    }
}

// Korthikanti et al. 2022, appendix A: 72 L h^2 (1 + S / 6h + m V / 12 L h) a token, and what it leaves out, the head's
// dense layer: 6 m h^2.
#[test]
fn exact_is_the_closed_formula_without_recomputation() {
    for (name, l, h, v) in [
        ("BERT-Base", 12.0, 768.0, 30_522.0),
        ("BERT-Large", 24.0, 1024.0, 30_522.0),
        ("RoBERTa-Large", 24.0, 1024.0, 50_265.0),
    ] {
        let parts = training(name);
        for s in [128.0, 512.0] {
            let m = 0.15;
            let formula = 72.0 * l * h * h * (1.0 + s / (6.0 * h) + m * v / (12.0 * l * h)) + 6.0 * m * h * h;
            let found = per_token(Convention::Exact, &parts[0], s);
            assert!((found / formula - 1.0).abs() < 1e-12, "{name} {s}: {found} {formula}");
        }
    }
}

// Per token, ELECTRA's script worked out apart.
#[test]
fn a_token_costs_what_was_worked_out_by_hand() {
    let found = |convention, name, s| format!("{:.2e}", per_token(convention, &training(name)[0], s));
    assert_eq!(found(Convention::Electra, "BERT-Base", 128.0), "4.60e8");
    assert_eq!(found(Convention::Electra, "BERT-Base", 512.0), "4.90e8");
    assert_eq!(found(Convention::Electra, "BERT-Large", 128.0), "1.38e9");
    assert_eq!(found(Convention::Electra, "BERT-Large", 512.0), "1.46e9");
}

// Results of google-research/electra, flops_computation.py.
#[test]
fn electras_script_is_reproduced() {
    let one = |encoder: Encoder, phase| {
        let part = Part {
            encoder,
            named_parameters: 0.0,
            parameters: 0,
            head: Head::Mlm(0.15),
            phases: vec![phase],
            stage2: false,
        };
        format!("{:.4e}", flops(Convention::Electra, &[part]))
    };
    assert_eq!(
        one(Encoder::bert(12, 256).embedding(128), Phase::new(1_450_000, 128, 128)),
        "1.4187e18"
    );
    assert_eq!(one(Encoder::BERT_BASE, Phase::new(1_000_000, 256, 512)), "6.4283e19");
    assert_eq!(one(Encoder::BERT_LARGE, Phase::new(1_000_000, 256, 512)), "1.9172e20");
    assert_eq!(one(Encoder::ROBERTA_LARGE, Phase::new(500_000, 8000, 512)), "3.1872e21");
    let electra = |name| format!("{:.3e}", flops(Convention::Electra, &training(name)));
    assert_eq!(electra("ELECTRA-Small"), "1.294e18");
    assert_eq!(electra("ELECTRA-Base"), "6.425e19"); // 6.4245e19
    assert_eq!(electra("ELECTRA-Large 400k"), "7.118e20");
    assert_eq!(electra("ELECTRA-Large 1.75M"), "3.114e21");
}

#[test]
fn names_are_read_and_a_wrong_one_is_answered_with_all() {
    for convention in CONVENTIONS {
        assert_eq!(convention.name().parse(), Ok(convention));
    }
    let error = "kaplan".parse::<Convention>().unwrap_err();
    assert!(
        error.contains("\"kaplan\"") && error.contains("paper, exact, palm"),
        "{error}"
    );
}
