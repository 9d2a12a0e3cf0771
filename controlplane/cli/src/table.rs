//! Columns of text.

use std::fmt;

/// A table with a head, of as many columns as the head has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    head: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(
        head: &'static [&'static str],
        rows: impl IntoIterator<Item = Vec<String>>,
    ) -> Self {
        Self {
            head,
            rows: rows.into_iter().collect(),
        }
    }
}

/// What came over a network may hold anything; a terminal obeys some of it.
pub(crate) fn printable(text: &str) -> String {
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(plain).collect()
}

impl fmt::Display for Table {
    /// Each line ends where its text does; the last cell is as wide as it likes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head: Vec<String> = self.head.iter().map(|it| (*it).to_owned()).collect();
        let rows: Vec<Vec<String>> = std::iter::once(head)
            .chain(
                self.rows
                    .iter()
                    .map(|row| row.iter().map(|it| cell(it)).collect()),
            )
            .collect();
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|it| it.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        for row in &rows {
            let cells = row.iter().zip(&widths);
            let line: Vec<String> = cells.map(|(it, width)| format!("{it:width$}")).collect();
            writeln!(f, "{}", line.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// Something stands in every cell, so that columns can be cut out.
fn cell(text: &str) -> String {
    match text {
        "" => "-".to_owned(),
        text => printable(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_their_heads() {
        let rows = [
            vec!["alice".to_owned(), String::new()],
            vec!["bo".to_owned(), "two words\n".to_owned()],
        ];
        let table = Table::new(&["ACCOUNT", "WHY"], rows);
        assert_eq!(
            table.to_string(),
            "ACCOUNT  WHY\nalice    -\nbo       two words\u{fffd}\n"
        );
    }
}
