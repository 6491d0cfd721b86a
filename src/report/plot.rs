//! Line charts as SVG text.
//!
//! A chart has no colours of its own: lines and text carry classes (`s0`, `s1`, ... for the series, `axis`, `grid`)
//! that the page's style sheet colours, so one picture serves light and dark pages. It scales with its container; text
//! is sized for widths from a phone's to half a desktop's. A noisy series is drawn twice, pale as it is and strong as a
//! moving average.

pub mod scatter;

use std::fmt::Write;

/// One line of a chart.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Points (x, y) in order of x; those that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// Whether to draw a moving average over the pale original.
    pub smooth: bool,
    /// Whether to draw a dot at each point, with its value as a tooltip.
    pub dots: bool,
}

/// A chart of one or more series over the same axes.
#[derive(Clone, Debug, Default)]
pub struct LineChart {
    /// What the picture shows, for readers who cannot see it.
    pub title: String,
    /// Name of the x axis.
    pub x: String,
    /// The lines.
    pub series: Vec<Series>,
    /// A point to be marked, with its label.
    pub mark: Option<((f64, f64), String)>,
    /// Whether the y axis must begin at 0.
    pub from_zero: bool,
}

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 270.0;
const LEFT: f64 = 54.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 42.0;

/// At most so many points of a series are drawn; more are averaged in groups, since a chart is some 400 pixels wide.
const MOST_POINTS: usize = 400;

struct Axes {
    x: (f64, f64),
    y: (f64, f64),
    /// Width and height of the picture.
    size: (f64, f64),
}

impl Axes {
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let right = (x - self.x.0) / (self.x.1 - self.x.0);
        let up = (y - self.y.0) / (self.y.1 - self.y.0);
        (
            LEFT + right * (self.size.0 - LEFT - RIGHT),
            self.size.1 - BOTTOM - up * (self.size.1 - TOP - BOTTOM),
        )
    }
}

impl LineChart {
    /// The chart with its legend as HTML; nothing where no series has a point.
    pub fn to_html(&self) -> String {
        let series: Vec<Series> = self
            .series
            .iter()
            .map(finite)
            .filter(|series| !series.points.is_empty())
            .collect();
        let all = || series.iter().flat_map(|series| series.points.iter().copied());
        if series.is_empty() {
            return String::new();
        }
        // A step axis that begins near 0 begins at 0; it ends with the data, the y axis with a tick.
        let (first, last) = range(all().map(|point| point.0));
        let x = if (0.0..0.2 * last).contains(&first) {
            (0.0, last)
        } else {
            (first, last)
        };
        let series: Vec<Series> = series.iter().map(thinned).collect();
        let all = || series.iter().flat_map(|series| series.points.iter().copied());
        let x_ticks = ticks(x, 6);
        let y_ticks = ticks(
            range(all().map(|point| point.1).chain(self.from_zero.then_some(0.0))),
            5,
        );
        let axes = Axes {
            x,
            y: (y_ticks[0], y_ticks[y_ticks.len() - 1]),
            size: (WIDTH, HEIGHT),
        };
        let mut out = format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(&self.title)
        );
        self.draw_axes(&mut out, &axes, &x_ticks, &y_ticks);
        for (index, line) in series.iter().enumerate() {
            draw_series(&mut out, &axes, line, index);
        }
        if let Some((point, label)) = &self.mark {
            draw_mark(&mut out, axes.at(*point), label);
        }
        out.push_str("</svg>");
        if series.len() > 1 {
            out.push_str("<p class=\"legend\">");
            for (index, line) in series.iter().enumerate() {
                // Writing into a String cannot fail, here and below.
                let _ = write!(out, "<span><i class=\"key b{index}\"></i>{}</span>", escape(&line.name));
            }
            out.push_str("</p>");
        }
        out
    }

    fn draw_axes(&self, out: &mut String, axes: &Axes, x_ticks: &[f64], y_ticks: &[f64]) {
        let bottom = HEIGHT - BOTTOM;
        for &tick in y_ticks {
            let (_, y) = axes.at((axes.x.0, tick));
            let label = tick_label(tick, y_ticks);
            let _ = write!(out, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{:.1}\"/>", WIDTH - RIGHT);
            let _ = write!(
                out,
                "<text class=\"axis end\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>",
                LEFT - 7.0,
                y + 4.0
            );
        }
        for &tick in x_ticks.iter().filter(|&&tick| tick >= axes.x.0 && tick <= axes.x.1) {
            let (x, _) = axes.at((tick, axes.y.0));
            let label = tick_label(tick, x_ticks);
            let _ = write!(out, "<path class=\"tick\" d=\"M{x:.1} {bottom:.1}v4\"/>");
            let _ = write!(
                out,
                "<text class=\"axis mid\" x=\"{x:.1}\" y=\"{:.1}\">{label}</text>",
                bottom + 18.0
            );
        }
        let _ = write!(
            out,
            "<path class=\"tick\" d=\"M{LEFT} {bottom:.1}H{:.1}\"/>",
            WIDTH - RIGHT
        );
        let (middle, below) = ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 6.0);
        let _ = write!(
            out,
            "<text class=\"axis mid\" x=\"{middle:.1}\" y=\"{below:.1}\">{}</text>",
            escape(&self.x)
        );
    }
}

fn draw_series(out: &mut String, axes: &Axes, line: &Series, index: usize) {
    if line.smooth && line.points.len() > 20 {
        let _ = write!(
            out,
            "<path class=\"line pale s{index}\" d=\"{}\"/>",
            path(axes, &line.points)
        );
        let _ = write!(
            out,
            "<path class=\"line s{index}\" d=\"{}\"/>",
            path(axes, &moving_average(&line.points))
        );
    } else {
        let _ = write!(
            out,
            "<path class=\"line s{index}\" d=\"{}\"/>",
            path(axes, &line.points)
        );
    }
    // A line of one point is invisible, so it always gets its dot.
    if line.dots || line.points.len() == 1 {
        for &point in &line.points {
            let (x, y) = axes.at(point);
            let _ = write!(
                out,
                "<circle class=\"dot s{index}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{} {}: {}</title></circle>",
                escape(&line.name),
                point.0,
                tick_text(point.1, 4)
            );
        }
    }
}

fn draw_mark(out: &mut String, (x, y): (f64, f64), label: &str) {
    let _ = write!(out, "<circle class=\"mark\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"6\"/>");
    // The label stands where there is room: left of a point in the right half, below one at the top.
    let (anchor, shift) = if x > WIDTH / 2.0 {
        ("end", -10.0)
    } else {
        ("start", 10.0)
    };
    let below = if y < TOP + 24.0 { 20.0 } else { -8.0 };
    let (x, y) = (x + shift, y + below);
    let _ = write!(
        out,
        "<text class=\"axis {anchor} strong\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>",
        escape(label)
    );
}

fn finite(series: &Series) -> Series {
    let points = series
        .points
        .iter()
        .copied()
        .filter(|(x, y)| x.is_finite() && y.is_finite())
        .collect();
    Series {
        points,
        ..series.clone()
    }
}

/// The series with its points averaged in groups where there are too many.
fn thinned(series: &Series) -> Series {
    let size = series.points.len().div_ceil(MOST_POINTS).max(1);
    let mean = |group: &[(f64, f64)]| {
        let (x, y) = group
            .iter()
            .fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
        (x / group.len() as f64, y / group.len() as f64)
    };
    let points = series.points.chunks(size).map(mean).collect();
    Series {
        points,
        ..series.clone()
    }
}

/// Mean of each point and its neighbours, a twentieth of the series in all, fewer at both ends.
fn moving_average(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = (points.len() / 40).max(1);
    (0..points.len())
        .map(|index| {
            let window = &points[index.saturating_sub(reach)..points.len().min(index + reach + 1)];
            (
                points[index].0,
                window.iter().map(|point| point.1).sum::<f64>() / window.len() as f64,
            )
        })
        .collect()
}

fn path(axes: &Axes, points: &[(f64, f64)]) -> String {
    let mut out = String::new();
    for (index, &point) in points.iter().enumerate() {
        let (x, y) = axes.at(point);
        let _ = write!(out, "{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' });
    }
    out
}

/// Smallest and largest value, spread a little where they are equal.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| {
        (low.min(x), high.max(x))
    });
    if low < high {
        (low, high)
    } else {
        (low - 0.5 * low.abs().max(1e-9), high + 0.5 * high.abs().max(1e-9))
    }
}

/// About `wanted` round values (1, 2 or 5 times a power of ten apart) that reach from below `low` to above `high`.
fn ticks((low, high): (f64, f64), wanted: usize) -> Vec<f64> {
    let rough = (high - low) / wanted as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * power >= 0.999 * rough)
        .unwrap_or(10.0)
        * power;
    let (first, last) = ((low / step + 1e-9).floor() as i64, (high / step - 1e-9).ceil() as i64);
    (first..=last).map(|index| index as f64 * step).collect()
}

/// A tick with as many decimals as its axis needs.
fn tick_label(tick: f64, ticks: &[f64]) -> String {
    let step = if ticks.len() > 1 {
        ticks[1] - ticks[0]
    } else {
        tick.abs().max(1.0)
    };
    let largest = ticks.iter().fold(0f64, |largest, tick| largest.max(tick.abs()));
    if largest >= 10_000.0 {
        let decimals = usize::from(step < 1000.0);
        return if tick == 0.0 {
            "0".to_owned()
        } else {
            format!("{:.decimals$}k", tick / 1000.0)
        };
    }
    if largest < 0.01 {
        return if tick == 0.0 {
            "0".to_owned()
        } else {
            tick_text(tick, 2)
        };
    }
    let decimals = (-step.log10()).ceil().max(0.0) as usize;
    format!("{tick:.decimals$}")
}

/// A value with so many significant digits, as a power of ten where it is small.
fn tick_text(value: f64, digits: usize) -> String {
    if value != 0.0 && value.abs() < 0.01 {
        let text = format!("{value:.*e}", digits - 1);
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let mantissa = if mantissa.contains('.') {
            mantissa.trim_end_matches('0').trim_end_matches('.')
        } else {
            mantissa
        };
        return format!("{mantissa}e{exponent}");
    }
    format!("{value:.digits$}")
}

/// Text that is safe inside HTML elements and quoted attributes.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests;
