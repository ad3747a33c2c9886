//! The parts of the page, each a function from the report to HTML.

use super::format::escape;

mod accuracy;
mod controls;
mod curves;
mod families;
mod headline;
mod prediction;
mod profile;
mod reproduce;
mod strip;
mod trade;

pub(super) use accuracy::accuracy;
pub(super) use controls::controls;
pub(super) use curves::curves;
pub(super) use families::families;
pub(super) use headline::headline;
pub(super) use prediction::prediction;
pub(super) use profile::profile;
pub(super) use reproduce::reproduce;
pub(super) use strip::strip;
pub(super) use trade::trade;

/// A sentence in the place of what cannot be shown.
fn nothing(sentence: &str) -> String {
    format!("<p class=\"nothing\">{sentence}</p>\n")
}

/// A legend of symbols, which are HTML, and what they mean, which is text.
fn legend(entries: &[(String, String)]) -> String {
    let item = |(symbol, text): &(String, String)| format!("<li>{symbol}<span>{}</span></li>", escape(text));
    let items: String = entries.iter().map(item).collect();
    format!("<ul class=\"legend\">{items}</ul>\n")
}

/// Charts side by side where the page is wide enough; each with HTML above it.
fn gallery(class: &str, figures: impl IntoIterator<Item = (String, String)>) -> String {
    let figures = figures.into_iter();
    let items: String = figures
        .map(|(caption, chart)| format!("<figure><figcaption>{caption}</figcaption>\n{chart}</figure>\n"))
        .collect();
    format!("<div class=\"gallery {class}\">\n{items}</div>\n")
}
