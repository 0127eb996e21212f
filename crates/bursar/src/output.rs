//! Results on stdout: lines, tables and JSON. A reader that goes away ends the verb quietly.

use std::fmt::Display;
use std::io::{BufWriter, Stdout, Write};

use bursar_memory::Bytes;

use crate::failure::Failure;

/// Stdout, buffered.
pub(crate) struct Out(BufWriter<Stdout>);

impl Out {
    /// The process's stdout.
    pub(crate) fn new() -> Out {
        Out(BufWriter::new(std::io::stdout()))
    }

    /// Writes text as it is.
    pub(crate) fn text(&mut self, text: impl Display) -> Result<(), Failure> {
        write!(self.0, "{text}").map_err(|error| Failure::stdout(&error))
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, line: impl Display) -> Result<(), Failure> {
        writeln!(self.0, "{line}").map_err(|error| Failure::stdout(&error))
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.0
            .write_all(bytes)
            .map_err(|error| Failure::stdout(&error))
    }

    /// Writes a value as indented JSON.
    pub(crate) fn json(&mut self, value: &impl serde::Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?;
        self.line(text)
    }

    /// Hands everything written so far to the reader.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.0.flush().map_err(|error| Failure::stdout(&error))
    }
}

/// On which side a column's cells stand.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Figures.
    Right,
}

/// Rows of cells under headings, columns two blanks apart.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table of these columns; headings in capitals, as `ps` and `df` do it.
    pub(crate) fn new(columns: &[(&str, Align)]) -> Table {
        Table {
            columns: columns.iter().map(|(_, align)| *align).collect(),
            rows: vec![columns.iter().map(|(name, _)| (*name).to_owned()).collect()],
        }
    }

    /// Columns of words without headings.
    pub(crate) fn plain(columns: usize) -> Table {
        Table {
            columns: vec![Align::Left; columns],
            rows: Vec::new(),
        }
    }

    /// Adds a row; cells that are missing stay empty.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let length = |cell: &String| cell.chars().count();
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(length)
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for ((cell, width), align) in row.iter().zip(&widths).zip(&self.columns) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                match align {
                    Align::Left => line.push_str(&format!("{cell:<width$}")),
                    Align::Right => line.push_str(&format!("{cell:>width$}")),
                }
            }
            if number > 0 {
                writeln!(f)?;
            }
            f.write_str(line.trim_end())?;
        }
        Ok(())
    }
}

/// A count with its digits in groups of three: `1,234,567`.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Four significant digits at least, no exponent; a stroke for what was not measured.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size.is_nan() => "-".to_owned(),
        0.0 => "0".to_owned(),
        size if size >= 1000.0 || (size.fract() == 0.0 && size >= 1.0) => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// A figure and what stands for its unit: bytes are read better with a unit of their size.
pub(crate) fn measured(value: f64, unit: &str) -> (String, String) {
    match unit {
        // Saturates: no memory has so many.
        "B" if value >= 0.0 => (Bytes(value as u64).to_string(), String::new()),
        unit => (number(value), unit.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[
            ("PART", Align::Left),
            ("BYTES", Align::Right),
            ("", Align::Left),
        ]);
        table.row(["weights".into(), "1,024".into(), "packed".into()]);
        table.row(["kv".into(), "7".into(), String::new()]);
        assert_eq!(
            table.to_string(),
            "PART     BYTES\nweights  1,024  packed\nkv           7"
        );
    }

    #[test]
    fn digits_stand_in_groups() {
        let shown = [0, 999, 1000, 1_234_567, u64::MAX].map(grouped);
        assert_eq!(
            shown,
            [
                "0",
                "999",
                "1,000",
                "1,234,567",
                "18,446,744,073,709,551,615"
            ]
        );
    }

    #[test]
    fn bytes_have_their_own_units() {
        let check = |value, unit, expected: (&str, &str)| {
            let (text, shown) = measured(value, unit);
            assert_eq!((text.as_str(), shown.as_str()), expected);
        };
        check(1536.0 * 1024.0, "B", ("1.5 MiB", ""));
        check(2.5, "ms", ("2.5000", "ms"));
        check(f64::NAN, "B", ("-", "B"));
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.56251, 7.0, 12.3456, 123.456, 12345.6, f64::NAN].map(number);
        assert_eq!(shown, ["0", "0.5625", "7", "12.35", "123.5", "12346", "-"]);
    }
}
