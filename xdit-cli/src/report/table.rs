//! Text in columns.

use std::array::from_fn;

use xdit_models::quote;

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
