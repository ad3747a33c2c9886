//! The frame of the page.

use super::Report;
use super::format::{escape, put};
use super::sections;

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let title = escape(&report.teacher.name);
    let mut out = String::with_capacity(1 << 18);
    put!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <title>{title} – lana</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n",
        include_str!("style.css")
    );
    out.push_str(&sections::headline(report));
    let parts: [(&str, String); 9] = [
        ("Accuracy against measured latency", sections::accuracy(report)),
        ("Against controls", sections::controls(report)),
        ("The operation of each layer", sections::strip(report)),
        ("What was proposed at which depth", sections::families(report)),
        ("Score against latency, layer by layer", sections::trade(report)),
        ("Predicted against measured latency", sections::prediction(report)),
        ("Training", sections::curves(report)),
        ("Where the teacher’s time goes", sections::profile(report)),
        ("How this was made, and how to check it", sections::reproduce(report)),
    ];
    for (heading, content) in parts {
        put!(out, "<section>\n<h2>{heading}</h2>\n{content}</section>\n");
    }
    put!(out, "<footer>Made by lana{}.</footer>\n</main>\n</body>\n</html>\n", when(report));
    out
}

fn when(report: &Report) -> String {
    match report.created.is_empty() {
        true => String::new(),
        false => format!(", {}", escape(&report.created)),
    }
}
