use super::*;

fn of<'a>(table: &'a Table, name: &str) -> &'a Row {
    table.rows.iter().find(|row| row.name == name).unwrap()
}

// Yao et al. 2022, table 2: parameters, FLOPs and data as printed, and the averages of the scores.
#[test]
fn the_seven_rows_of_table_2_come_out_to_the_printed_digits() {
    let table = table();
    for (name, parameters, flops, data, average) in [
        ("BERT-Base", "109M", "2.79E19", "16.00", "83.46"),
        ("BERT-Large", "355M", "9.07E19", "16.00", "83.82"),
        ("TLM small", "109M", "2.74E18", "0.91", "83.78"),
        ("RoBERTa-Base", "125M", "1.54E21", "160.00", "84.12"),
        ("TLM medium", "109M", "8.30E18", "1.21", "84.71"),
        ("RoBERTa-Large", "355M", "4.36E21", "160.00", "85.50"),
        ("TLM large", "355M", "7.59E19", "3.64", "85.73"),
    ] {
        let row = of(&table, name);
        assert_eq!(
            format!("{:.0}M", row.named_parameters.unwrap() / 1e6),
            parameters,
            "{name}"
        );
        assert_eq!(format!("{:.2E}", row.flops[&Convention::Paper]), flops, "{name}");
        assert_eq!(format!("{:.2E}", row.printed[0].flops), flops, "{name}");
        // 0.9125, 1.2125 and 3.6375 are printed as 0.91, 1.21 and 3.64.
        assert_eq!(format!("{:.2}", row.data_gb.unwrap()), data, "{name}");
        // 85.7325 is printed as 85.74.
        assert_eq!(format!("{:.2}", row.score.unwrap()), average, "{name}");
    }
}

// 6 N D by hand from table B.1, to four digits.
#[test]
fn every_task_of_every_scale_costs_what_its_settings_say() {
    let expected = [
        [
            2.143e18, 1.072e18, 3.215e18, 3.697e18, 3.215e18, 3.215e18, 3.215e18, 2.143e18,
        ],
        [
            6.429e18, 2.143e18, 6.429e18, 2.572e19, 6.429e18, 6.429e18, 6.429e18, 6.429e18,
        ],
        [
            3.490e19, 4.188e19, 6.980e19, 2.792e20, 6.980e19, 4.188e19, 3.490e19, 3.490e19,
        ],
    ];
    let table = table();
    for (scale, expected) in SCALES.iter().zip(expected) {
        let found: Vec<String> = table
            .tasks
            .iter()
            .filter(|task| task.scale == scale.name())
            .map(|task| format!("{:.3e}", task.flops[&Convention::Paper]))
            .collect();
        assert_eq!(found, expected.map(|flops| format!("{flops:.3e}")), "{}", scale.name());
    }
}

// The tokens behind the printed figures: 4.1882E9, 1.2698E10, 3.5635E10 (means over the tasks), 256 x 166.4 x 10^6, and
// 5 x 10^5 x 8000 x 512.
#[test]
fn tokens_are_those_behind_the_printed_figures() {
    let table = table();
    for (name, tokens) in [
        ("TLM small", "4.188e9"),
        ("TLM medium", "1.270e10"),
        ("TLM large", "3.564e10"),
        ("BERT-Large", "4.260e10"),
        ("RoBERTa-Base", "2.048e12"),
    ] {
        assert_eq!(format!("{:.3e}", of(&table, name).tokens.unwrap()), tokens, "{name}");
    }
}

#[test]
fn stage_2_is_in_exact_alone() {
    let scale = SCALES[0];
    let with = scale.training(&TASKS[0]);
    let without: Vec<Part> = with.iter().filter(|part| !part.stage2).cloned().collect();
    for convention in CONVENTIONS {
        let (with, without) = (flops(convention, &with), flops(convention, &without));
        assert_eq!(with > without, convention == Convention::Exact, "{convention}");
    }
}

#[test]
fn the_text_has_every_training_and_with_one_convention_every_task() {
    let table = table();
    let all = table.to_text(None);
    for row in &table.rows {
        assert!(all.lines().any(|line| line.starts_with(row.name)), "{}", row.name);
    }
    let one = table.to_text(Some(Convention::Paper));
    assert!(one.contains("3.697E18") && one.contains("2.792E20"), "{one}");
    // 2.79E19 : 2.74E18, 1.54E21 : 8.30E18, 4.36E21 : 7.59E19.
    for ratio in ["1 : 10.2", "1 : 185.0", "1 : 57.5"] {
        assert!(one.contains(ratio), "{ratio}\n{one}");
    }
    assert!(all.lines().all(|line| line.chars().count() <= 150), "{all}");
}
