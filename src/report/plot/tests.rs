use super::*;

fn chart(points: &[(f64, f64)]) -> LineChart {
    let series = Series {
        name: "loss".into(),
        points: points.to_vec(),
        ..Series::default()
    };
    LineChart {
        title: "Loss".into(),
        x: "step".into(),
        series: vec![series],
        ..LineChart::default()
    }
}

#[test]
fn ticks_are_round_and_enclose_the_data() {
    for (low, high) in [
        (0.0, 1.0),
        (3.2, 9.7),
        (-5.0, 12_345.0),
        (0.000_01, 0.000_9),
        (81.2, 81.9),
    ] {
        let found = ticks((low, high), 5);
        assert!(
            found[0] <= low + 1e-9 && *found.last().unwrap() >= high - 1e-9,
            "{low} {high}: {found:?}"
        );
        assert!((3..=8).contains(&found.len()), "{low} {high}: {found:?}");
        let step = found[1] - found[0];
        let mantissa = step / 10f64.powf(step.log10().floor() + 1e-12);
        assert!(
            [1.0, 2.0, 5.0]
                .iter()
                .any(|round| (mantissa / round - 1.0).abs() < 1e-3),
            "{mantissa}"
        );
    }
    assert_eq!(ticks((0.0, 1.0), 5), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
}

#[test]
fn tick_labels_have_the_decimals_they_need() {
    let labels = |range, wanted| {
        let ticks = ticks(range, wanted);
        ticks
            .iter()
            .map(|&tick| tick_label(tick, &ticks))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(labels((0.0, 1.0), 5), "0.0 0.2 0.4 0.6 0.8 1.0");
    assert_eq!(labels((0.0, 2000.0), 4), "0 500 1000 1500 2000");
    assert_eq!(labels((0.0, 30_000.0), 3), "0 10k 20k 30k");
    assert_eq!(labels((0.0, 1e-3), 4), "0 5e-4 1e-3");
}

#[test]
fn the_corners_of_the_data_are_drawn_at_the_corners_of_the_axes() {
    let html = chart(&[(0.0, 0.0), (10.0, 1.0)]).to_html();
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    assert!(
        html.contains(&format!("d=\"M{LEFT:.1} {bottom:.1}L{right:.1} {TOP:.1}\"")),
        "{html}"
    );
}

#[test]
fn what_is_not_a_number_is_left_out_and_nothing_draws_nothing() {
    let html = chart(&[(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0)]).to_html();
    assert!(!html.contains("NaN"), "{html}");
    assert_eq!(chart(&[(0.0, f64::NAN)]).to_html(), "");
    assert!(
        chart(&[(5.0, 2.0)]).to_html().contains("<circle"),
        "a single point is a dot"
    );
    assert!(
        !chart(&[(0.0, 2.0), (1.0, 2.0)]).to_html().contains("NaN"),
        "a constant has a range"
    );
}

#[test]
fn a_long_series_is_thinned_without_changing_its_mean() {
    let points: Vec<(f64, f64)> = (0..10_000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
    let thin = thinned(&Series {
        points: points.clone(),
        ..Series::default()
    })
    .points;
    let mean = |points: &[(f64, f64)]| points.iter().map(|point| point.1).sum::<f64>() / points.len() as f64;
    assert!(thin.len() <= MOST_POINTS);
    assert!((mean(&thin) - mean(&points)).abs() < 1e-9);
}

#[test]
fn texts_are_escaped() {
    let mut chart = chart(&[(0.0, 0.0), (1.0, 1.0)]);
    chart.title = "<script>\"&".into();
    let html = chart.to_html();
    assert!(
        html.contains("&lt;script&gt;&quot;&amp;") && !html.contains("<script>"),
        "{html}"
    );
}
