//! The time of a step as a picture: each row divides the one above it, widths are shares of the wall clock.

use std::fmt::Write;

use super::format::duration;
use super::plot::escape;
use crate::cost::profile::Node;

const WIDTH: f64 = 1000.0;
const ROW: f64 = 21.0;
/// Narrower parts are left out.
const THINNEST: f64 = 0.6;
/// Narrower parts have no room for a name.
const NAMED: f64 = 34.0;
/// Width of a letter at most.
const LETTER: f64 = 6.6;

/// The picture; nothing of steps that took no time.
pub fn flame(root: &Node, steps: u64) -> String {
    if root.seconds <= 0.0 || steps == 0 {
        return String::new();
    }
    let mut rows = String::new();
    draw(&mut rows, root, (0.0, 0), root.seconds, steps, 7);
    let height = ROW * depth(root) as f64;
    format!(
        "<svg class=\"chart flame\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Where the time of a step \
         goes\">{rows}</svg>"
    )
}

fn depth(node: &Node) -> usize {
    1 + node.parts.iter().map(depth).max().unwrap_or(0)
}

fn draw(out: &mut String, node: &Node, (x, row): (f64, usize), all: f64, steps: u64, colour: usize) {
    let width = WIDTH * node.seconds / all;
    if width < THINNEST {
        return;
    }
    let (y, name) = (ROW * row as f64, escape(&node.name));
    let took = duration(node.seconds / steps as f64);
    // Writing into a String cannot fail.
    let _ = write!(
        out,
        "<g><title>{name}: {took} a step, {:.1} %</title><rect class=\"f{colour}\" x=\"{x:.2}\" y=\"{y:.1}\" \
         width=\"{:.2}\" height=\"{:.1}\"/>",
        100.0 * node.seconds / all,
        (width - 0.6).max(0.4),
        ROW - 1.0
    );
    if width > NAMED {
        let room = ((width - 8.0) / LETTER) as usize;
        let shown: String = match node.name.chars().count() <= room {
            true => name,
            false => escape(
                &node
                    .name
                    .chars()
                    .take(room.saturating_sub(1))
                    .chain(['…'])
                    .collect::<String>(),
            ),
        };
        let _ = write!(out, "<text x=\"{:.2}\" y=\"{:.1}\">{shown}</text>", x + 4.0, y + 14.5);
    }
    out.push_str("</g>");
    let mut at = x;
    for (index, part) in node.parts.iter().enumerate() {
        let colour = if row == 0 { index % 7 } else { colour };
        draw(out, part, (at, row + 1), all, steps, colour);
        at += WIDTH * part.seconds / all;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, seconds: f64, parts: Vec<Node>) -> Node {
        Node {
            name: name.to_owned(),
            seconds,
            parts,
        }
    }

    #[test]
    fn parts_lie_below_their_whole_as_wide_as_their_share() {
        let root = node(
            "steps",
            4.0,
            vec![node("a", 1.0, vec![node("<k>", 0.5, vec![])]), node("b", 2.0, vec![])],
        );
        let svg = flame(&root, 2);
        for place in [
            "x=\"0.00\" y=\"0.0\" width=\"999.40\"",
            "x=\"0.00\" y=\"21.0\" width=\"249.40\"",
            "x=\"250.00\" y=\"21.0\" width=\"499.40\"",
            "x=\"0.00\" y=\"42.0\" width=\"124.40\"",
        ] {
            assert!(svg.contains(place), "{place}: {svg}");
        }
        assert!(
            svg.contains("a: 500 ms a step, 25.0 %") && !svg.contains("<k>"),
            "{svg}"
        );
        assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());
        assert_eq!(flame(&Node::default(), 1), "");
    }
}
