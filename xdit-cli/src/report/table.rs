//! Text in columns.

use std::array::from_fn;

use xdit_models::quote;

/// The columns of a terminal, which tables and texts fit.
pub(crate) const COLUMNS: usize = 80;
/// The spaces between two columns of a table.
pub(crate) const GAP: usize = 2;

/// Returns `name: text` as a line, or as two if one would be wider than a terminal.
pub(crate) fn headed(name: &str, text: &str) -> String {
    let line = format!("{}: {text}\n", quote::escape(name));
    if line.chars().count() <= COLUMNS + 1 {
        return line;
    }
    let text = quote::within(text, COLUMNS - GAP);
    format!("{}:\n  {text}\n", quote::within(name, COLUMNS - 1))
}

/// Rows of cells as lines of columns, two spaces apart; the columns whose numbers are in `right` end at the same place,
/// the others begin there.
///
/// Cells are escaped: none breaks its line.
pub(crate) fn aligned<C: AsRef<[String]>>(rows: &[C], right: &[usize]) -> String {
    let escaped = |row: &C| {
        row.as_ref()
            .iter()
            .map(|cell| quote::escape(cell))
            .collect()
    };
    let rows: Vec<Vec<String>> = rows.iter().map(escaped).collect();
    let columns = rows.iter().map(Vec::len).max();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.unwrap_or(0)).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[column] - cell.chars().count());
            match right.contains(&column) {
                true => line += &format!("{pad}{cell}  "),
                false => line += &format!("{cell}{pad}  "),
            }
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// Words as cells.
pub(crate) fn cells<const N: usize>(words: [&str; N]) -> Vec<String> {
    from_fn::<_, N, _>(|i| words[i].to_owned()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_have_a_line_of_their_own() {
        assert_eq!(headed("demo", "8 steps"), "demo: 8 steps\n");
        let text = headed(&"long/".repeat(30), &"é".repeat(76));
        let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert_eq!(widths, [80, 78]);
        assert!(text.starts_with("long/") && text.contains("…"), "{text}");
    }

    #[test]
    fn columns_begin_or_end_together() {
        let rows = [
            cells(["name", "bytes"]),
            cells(["é", "7"]),
            cells(["longer"]),
        ];
        assert_eq!(
            aligned(&rows, &[1]),
            "name    bytes\né           7\nlonger\n"
        );
    }
}
