//! Named points over a logarithmic x axis, as SVG text in the colours of the page or with its own.

use std::fmt::Write;

use super::{Axes, BOTTOM, LEFT, RIGHT, TOP, escape, range, tick_label, ticks};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 380.0;
/// Radius of a point.
const DOT: f64 = 4.5;
/// Width of a letter of a name and height of its line, at most.
const LETTER: (f64, f64) = (8.0, 15.0);

/// A point with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// x, above 0.
    pub x: f64,
    /// y.
    pub y: f64,
    /// Its name, beside it.
    pub name: String,
    /// Index of its colour.
    pub colour: usize,
}

/// The chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogScatter {
    /// What the picture shows, for readers who cannot see it.
    pub title: String,
    /// Name of the x axis.
    pub x: String,
    /// The points; those that are not finite, or not above 0 in x, are left out.
    pub points: Vec<Point>,
    /// A place on the x axis that has no y, with its name.
    pub mark: Option<(f64, String)>,
}

/// What a picture that stands alone needs of the page's style.
const ALONE: &str = "text{font:12.5px system-ui,sans-serif;fill:#5c6675}.end{text-anchor:end}.mid{text-anchor:middle}\
                     .strong{fill:#1c2330;font-weight:600}.grid{stroke:#e3e6eb;fill:none}.tick{stroke:#5c6675;fill:none}\
                     .mark{stroke:#1c2330;stroke-dasharray:4 3;fill:none}.s0{fill:#2563eb}.s1{fill:#d9730d}.s2{fill:#12805c}";

impl LogScatter {
    /// For a page; nothing without a point.
    pub fn to_html(&self) -> String {
        self.svg("<svg class=\"chart wide\"", "")
    }

    /// A document of its own.
    pub fn to_svg(&self) -> String {
        let head = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\"",
            1.5 * WIDTH,
            1.5 * HEIGHT
        );
        let paper = format!("<style>{ALONE}</style><rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>");
        self.svg(&head, &paper) + "\n"
    }

    fn svg(&self, head: &str, background: &str) -> String {
        let good = |point: &&Point| point.x > 0.0 && point.x.is_finite() && point.y.is_finite();
        let points: Vec<&Point> = self.points.iter().filter(good).collect();
        if points.is_empty() {
            return String::new();
        }
        let exponents = points
            .iter()
            .map(|point| point.x)
            .chain(self.mark.iter().map(|mark| mark.0));
        let (low, high) = range(exponents.map(f64::log10));
        let x = (low.floor(), high.ceil().max(low.floor() + 1.0));
        let y_ticks = ticks(range(points.iter().map(|point| point.y)), 5);
        let axes = Axes {
            x,
            y: (y_ticks[0], y_ticks[y_ticks.len() - 1]),
            size: (WIDTH, HEIGHT),
        };
        let mut out = format!(
            "{head} viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">{background}",
            escape(&self.title)
        );
        self.draw_axes(&mut out, &axes, &y_ticks);
        if let Some((at, name)) = &self.mark {
            let (x, bottom) = axes.at((at.log10(), axes.y.0));
            let (_, top) = axes.at((0.0, axes.y.1));
            // Writing into a String cannot fail, here and below.
            let _ = write!(out, "<path class=\"mark\" d=\"M{x:.1} {bottom:.1}V{top:.1}\"/>");
            let (anchor, shift) = if x > 0.66 * WIDTH {
                ("end", -8.0)
            } else {
                ("start", 8.0)
            };
            text(&mut out, (anchor, x + shift, bottom - 8.0), name);
        }
        let places: Vec<(f64, f64)> = points.iter().map(|point| axes.at((point.x.log10(), point.y))).collect();
        let mut taken: Vec<Frame> = places.iter().map(|&(x, y)| Frame::around((x, y), DOT)).collect();
        for (point, &(x, y)) in points.iter().zip(&places) {
            let _ = write!(
                out,
                "<circle class=\"dot s{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{DOT}\"><title>{}: {:.2} at {:.3e}</title></circle>",
                point.colour,
                escape(&point.name),
                point.y,
                point.x
            );
            let (place, name) = free((x, y), &point.name, &taken);
            taken.push(name);
            text(&mut out, place, &point.name);
        }
        out + "</svg>"
    }

    fn draw_axes(&self, out: &mut String, axes: &Axes, y_ticks: &[f64]) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for &tick in y_ticks {
            let (_, y) = axes.at((axes.x.0, tick));
            let _ = write!(out, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right:.1}\"/>");
            let _ = write!(
                out,
                "<text class=\"axis end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 7.0,
                y + 4.0,
                tick_label(tick, y_ticks)
            );
        }
        let decades = (axes.x.1 - axes.x.0) as usize;
        for exponent in (0..=decades).step_by(decades.div_ceil(8).max(1)) {
            let exponent = axes.x.0 + exponent as f64;
            let (x, _) = axes.at((exponent, axes.y.0));
            let _ = write!(out, "<path class=\"tick\" d=\"M{x:.1} {bottom:.1}v4\"/>");
            let below = bottom + 18.0;
            // Half of the last one would lie outside.
            let anchor = if exponent == axes.x.1 { "end" } else { "mid" };
            let _ = write!(
                out,
                "<text class=\"axis {anchor}\" x=\"{x:.1}\" y=\"{below:.1}\">1e{exponent}</text>"
            );
        }
        let _ = write!(out, "<path class=\"tick\" d=\"M{LEFT} {bottom:.1}H{right:.1}\"/>");
        let (middle, below) = ((LEFT + right) / 2.0, HEIGHT - 6.0);
        let _ = write!(
            out,
            "<text class=\"axis mid\" x=\"{middle:.1}\" y=\"{below:.1}\">{}</text>",
            escape(&self.x)
        );
    }
}

/// A rectangle: left, top, right, bottom.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Frame([f64; 4]);

impl Frame {
    fn around((x, y): (f64, f64), half: f64) -> Frame {
        Frame([x - half, y - half, x + half, y + half])
    }

    /// Area of what two have in common.
    fn common(&self, other: &Frame) -> f64 {
        let (a, b) = (self.0, other.0);
        let side = |i: usize| (a[i + 2].min(b[i + 2]) - a[i].max(b[i])).max(0.0);
        side(0) * side(1)
    }

    fn area(&self) -> f64 {
        self.common(self)
    }
}

/// Where the name of a point covers least of what is there: right of it, left, above, below, or further off. Anchor and place of the text, and
/// the rectangle that it fills.
fn free((x, y): (f64, f64), name: &str, taken: &[Frame]) -> ((&'static str, f64, f64), Frame) {
    let (width, height) = (LETTER.0 * name.chars().count() as f64, LETTER.1);
    let picture = Frame([LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM]);
    let gap = 2.0 * DOT;
    let candidates = [
        ("start", x + gap, y + 4.0, x + gap),
        ("end", x - gap, y + 4.0, x - gap - width),
        ("mid", x, y - gap, x - width / 2.0),
        ("mid", x, y + gap + 9.0, x - width / 2.0),
        ("end", x + DOT, y - gap, x + DOT - width),
        ("end", x + DOT, y + gap + 9.0, x + DOT - width),
        ("mid", x, y - gap - height, x - width / 2.0),
        ("mid", x, y + gap + 9.0 + height, x - width / 2.0),
        ("end", x + DOT, y - gap - height, x + DOT - width),
        ("end", x + DOT, y + gap + 9.0 + height, x + DOT - width),
    ];
    let placed = candidates.map(|(anchor, x, y, left)| {
        let filled = Frame([left, y + 3.0 - height, left + width, y + 3.0]);
        let outside = filled.area() - filled.common(&picture);
        let covered: f64 = taken.iter().map(|other| filled.common(other)).sum();
        (outside + covered, (anchor, x, y), filled)
    });
    let mut best = placed[0];
    for candidate in placed {
        // What covers no more by rounding is no better.
        if candidate.0 < best.0 - 1e-9 {
            best = candidate;
        }
    }
    (best.1, best.2)
}

fn text(out: &mut String, (anchor, x, y): (&str, f64, f64), name: &str) {
    // Writing into a String cannot fail.
    let _ = write!(
        out,
        "<text class=\"axis {anchor} strong\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>",
        escape(name)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: &[(f64, f64)]) -> LogScatter {
        let point = |&(x, y): &(f64, f64)| Point {
            x,
            y,
            name: "<a>".into(),
            colour: 1,
        };
        LogScatter {
            title: "t".into(),
            x: "FLOPs".into(),
            points: points.iter().map(point).collect(),
            mark: None,
        }
    }

    #[test]
    fn a_decade_is_as_wide_as_any_other() {
        let html = chart(&[(1e18, 0.0), (1e19, 1.0), (1e20, 2.0)]).to_html();
        for x in [LEFT, (LEFT + WIDTH - RIGHT) / 2.0, WIDTH - RIGHT] {
            assert!(html.contains(&format!("cx=\"{x:.1}\"")), "{x}: {html}");
        }
        for tick in ["1e18", "1e19", "1e20"] {
            assert!(html.contains(&format!(">{tick}</text>")), "{html}");
        }
    }

    #[test]
    fn names_of_points_that_lie_close_cover_neither_each_other_nor_a_point() {
        let places = [
            (400.0, 200.0),
            (440.0, 202.0),
            (400.0, 208.0),
            (840.0, 30.0),
            (412.0, 190.0),
        ];
        let mut taken: Vec<Frame> = places.iter().map(|&place| Frame::around(place, DOT)).collect();
        for place in places {
            let (_, name) = free(place, "BERT", &taken);
            assert_eq!(
                taken.iter().map(|other| name.common(other)).sum::<f64>(),
                0.0,
                "{place:?}"
            );
            assert!(name.0[0] >= LEFT && name.0[2] <= WIDTH - RIGHT, "{name:?}");
            taken.push(name);
        }
    }

    #[test]
    fn what_has_no_logarithm_is_left_out_and_names_are_escaped() {
        assert_eq!(chart(&[(0.0, 1.0), (-1.0, 1.0), (f64::NAN, 1.0)]).to_html(), "");
        let alone = chart(&[(0.0, 1.0), (1e3, 5.0)]).to_svg();
        assert!(
            alone.starts_with("<svg xmlns=") && alone.ends_with("</svg>\n"),
            "{alone}"
        );
        assert!(!alone.contains("NaN") && alone.contains("&lt;a&gt;") && !alone.contains("<a>"));
        assert_eq!(alone.matches("<circle").count(), 1);
    }
}
