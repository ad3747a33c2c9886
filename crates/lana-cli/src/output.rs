//! Results on stdout, lines for people on stderr, and the tables that results are shown in.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use serde::Serialize;

use crate::failure::Failure;
use crate::progress::BARS;

/// Writes results to stdout, with a line end if they have none.
pub(crate) fn results(text: &str) -> Result<(), Failure> {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    stream(|stdout| write!(stdout, "{text}{end}"))
}

/// Lets `write` put results on stdout bit by bit, where they are too long for one text.
pub(crate) fn stream(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    let written = BARS.suspend(|| write(&mut stdout).and_then(|()| stdout.flush()));
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::ClosedPipe,
        _ => Failure::Told { message: format!("stdout: {error}"), hint: None, status: 1 },
    })
}

/// Writes results to stdout as one JSON object on one line.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    results(&serde_json::to_string(value).map_err(unwritable)?)
}

/// Likewise, indented.
pub(crate) fn indented_json(value: &impl Serialize) -> Result<(), Failure> {
    results(&serde_json::to_string_pretty(value).map_err(unwritable)?)
}

/// A result as a JSON value.
pub(crate) fn to_json(value: &impl Serialize) -> Result<serde_json::Value, Failure> {
    serde_json::to_value(value).map_err(unwritable)
}

fn unwritable(error: serde_json::Error) -> Failure {
    Failure::Told { message: format!("the result cannot be written as JSON: {error}"), hint: None, status: 1 }
}

/// Writes a line to stderr, above the bar if there is one. Nothing can be done about a stderr that is closed.
pub(crate) fn error_line(line: &str) {
    BARS.suspend(|| {
        let _ = writeln!(io::stderr().lock(), "{line}");
    });
}

/// An input file that must be there, before any work begins.
pub(crate) fn must_exist(file: &Path) -> Result<(), Failure> {
    match std::fs::metadata(file) {
        Ok(found) if found.is_dir() => Err(Failure::input(
            format!("{}: this is a folder, not a file", file.display()),
            "give the file itself",
        )),
        Ok(_) => Ok(()),
        Err(error) => {
            Err(Failure::Told { message: format!("{}: {error}", file.display()), hint: None, status: 2 })
        }
    }
}

/// On which side a column's texts line up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a header, columns two spaces apart.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with nothing but its header.
    pub(crate) fn new(columns: &[(&str, Align)]) -> Self {
        Table {
            columns: columns.iter().map(|&(_, align)| align).collect(),
            rows: vec![columns.iter().map(|&(title, _)| title.to_string()).collect()],
        }
    }

    /// Adds a row; cells left out at its end are empty.
    pub(crate) fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, &align), &width) in row.iter().zip(&self.columns).zip(&widths) {
                line += &match align {
                    Align::Left => format!("{cell:<width$}  "),
                    Align::Right => format!("{cell:>width$}  "),
                };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[("name", Align::Left), ("size", Align::Right), ("note", Align::Left)]);
        table.row(["a", "1", "–"]);
        table.row(["longer", "12,800", "both"]);
        table.row(["cut"]);
        assert_eq!(
            table.to_string(),
            "name      size  note\n\
             a            1  –\n\
             longer  12,800  both\n\
             cut\n"
        );
    }

    #[test]
    fn what_is_not_there_is_named() {
        let failure = must_exist(Path::new("no/such/file.onnx")).unwrap_err();
        assert!(failure.message().contains("no/such/file.onnx"));
        assert_eq!(failure.exit_status(), 2);
        assert_eq!(must_exist(Path::new(".")).unwrap_err().exit_status(), 2);
    }
}
