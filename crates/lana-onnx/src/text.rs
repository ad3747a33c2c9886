//! What a file says, as it stands in messages.

use std::fmt::Display;

/// Characters of a name or path that are shown.
const LONGEST: usize = 200;

/// Items of a list that are shown.
const MOST: usize = 12;

/// A name or path from a file: what cannot be seen, or would change what a terminal does, by its number.
pub(crate) fn shown(text: &str) -> String {
    let mut shown = String::new();
    for (at, c) in text.chars().enumerate() {
        match c {
            _ if at == LONGEST => {
                shown.push('…');
                break;
            }
            '\'' | '"' | '\\' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    shown
}

/// A list in brackets, of which only the beginning is shown if it is long.
pub(crate) fn listed<T: Display>(items: &[T]) -> String {
    format!("[{}]", beginning(items.iter().map(T::to_string), items.len(), MOST))
}

/// The first `most` of `count` items, and how many more there are.
pub(crate) fn beginning(items: impl Iterator<Item = String>, count: usize, most: usize) -> String {
    let first = items.take(most).collect::<Vec<_>>().join(", ");
    match count.saturating_sub(most) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::{listed, shown};

    #[test]
    fn nothing_reaches_the_terminal_but_letters() {
        assert_eq!(shown("a\n\x1b[31m\u{202e}слой'\\"), "a\\n\\u{1b}[31m\\u{202e}слой'\\");
        assert_eq!(shown(&"é".repeat(300)), format!("{}…", "é".repeat(200)));
    }

    #[test]
    fn lists_end() {
        assert_eq!(listed::<i64>(&[]), "[]");
        assert_eq!(listed(&[1, 2]), "[1, 2]");
        let long: Vec<usize> = (0..2_000_000).collect();
        assert_eq!(listed(&long), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 1999988 more]");
    }
}
