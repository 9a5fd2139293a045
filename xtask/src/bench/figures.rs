//! Tables of figures: on the terminal, and in Markdown.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};

/// A table of `N` columns, the first of which are words, and the others numbers.
#[derive(Clone, Debug)]
pub(super) struct Figures<const N: usize> {
    pub(super) headings: [&'static str; N],
    /// Columns of words.
    pub(super) words: usize,
    pub(super) rows: Vec<[String; N]>,
}

impl<const N: usize> Figures<N> {
    /// For the terminal.
    pub(super) fn text(&self) -> String {
        let mut table = Table::new();
        table
            .load_style(NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(self.headings)
            .add_rows(&self.rows);
        for column in table.column_iter_mut().skip(self.words) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
    }

    /// For a page in Markdown.
    pub(super) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let (words, numbers) = ("---|".repeat(self.words), "--:|".repeat(N - self.words));
        let mut text = line(&self.headings.map(str::to_owned));
        text += &format!("|{words}{numbers}\n");
        text.extend(self.rows.iter().map(|row| line(row)));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_left_and_numbers_right() {
        let row = |word: &str, number: &str| [word.to_owned(), number.to_owned()];
        let figures = Figures {
            headings: ["what", "how many"],
            words: 1,
            rows: vec![row("few", "3"), row("many", "1000")],
        };
        assert_eq!(
            figures.markdown(),
            "| what | how many |\n|---|--:|\n| few | 3 |\n| many | 1000 |\n"
        );
        let text = figures.text();
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        let ends: Vec<usize> = lines.iter().map(|line| line.len()).collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(ends.iter().all(|end| *end == ends[0]), "{text}");
    }
}
