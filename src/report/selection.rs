//! The part of a report about stage 0: how many passages were selected, from where, and what they look like.

use std::fmt::Write;

use super::format::{count, duration, percent};
use super::plot::escape;
use crate::tlm::outcome::{Report, SelectedPassage};

/// Sources shown by name; the rest is summed up.
const MOST_SOURCES: usize = 12;
/// Characters of a passage shown as an example.
const PASSAGE_LETTERS: usize = 320;

/// What was selected: how much, by source, and the first passages; nothing where nothing was.
pub(super) fn section(report: &Report) -> String {
    let select = &report.select;
    if select.selected == 0 {
        return String::new();
    }
    let mut cards = String::new();
    if !select.by_source.is_empty() {
        let _ = write!(
            cards,
            "<div class=\"card\"><h3>Passages by source</h3>{}</div>",
            sources(report)
        );
    }
    if !select.examples.is_empty() {
        let passages: String = select.examples.iter().map(passage).collect();
        let _ = write!(cards, "<div class=\"card\"><h3>First passages</h3>{passages}</div>");
    }
    let share = if select.documents > 0 {
        format!(
            " ({} % of the corpus)",
            percent(select.selected as f64 / select.documents as f64)
        )
    } else {
        String::new()
    };
    let silent = match select.queries_without_terms {
        0 => String::new(),
        queries => format!(" {} queries have no term of the index.", count(queries)),
    };
    format!(
        "<h2>Selected data</h2>\n<p>{} of {} passages{share}, selected by {} from {} training texts in {}.{silent}\
         </p>\n<div class=\"grid\">{cards}</div>\n",
        count(select.selected),
        count(select.documents),
        escape(&select.method),
        count(select.queries),
        duration(select.seconds)
    )
}

fn sources(report: &Report) -> String {
    let by_source = &report.select.by_source;
    let mut bars: Vec<(String, u64)> = by_source
        .iter()
        .take(MOST_SOURCES)
        .map(|source| (source.source.clone(), source.count))
        .collect();
    let rest: u64 = by_source.iter().skip(MOST_SOURCES).map(|source| source.count).sum();
    if rest > 0 {
        bars.push((format!("{} others", by_source.len() - MOST_SOURCES), rest));
    }
    let largest = bars.iter().map(|(_, number)| *number).max().unwrap_or(1).max(1);
    let mut out = String::from("<div class=\"bars\">");
    for (name, number) in bars {
        let width = 100.0 * number as f64 / largest as f64;
        let name = if name.is_empty() {
            "(no source)".to_owned()
        } else {
            escape(&name)
        };
        let _ = write!(
            out,
            "<span class=\"name\">{name}</span><span class=\"bar\"><i style=\"width:{width:.2}%\"></i></span>\
             <span class=\"n\">{}</span>",
            count(number)
        );
    }
    out + "</div>"
}

fn passage(passage: &SelectedPassage) -> String {
    let mut text: String = passage.text.chars().take(PASSAGE_LETTERS).collect();
    if text.len() < passage.text.len() {
        text.push('…');
    }
    let score = passage
        .score
        .map_or_else(String::new, |score| format!(" · score {score:.2}"));
    format!(
        "<div class=\"passage\"><p class=\"sub\">rank {}{score} · {}</p><p>{}</p></div>",
        passage.rank,
        escape(&passage.id),
        escape(&text)
    )
}
