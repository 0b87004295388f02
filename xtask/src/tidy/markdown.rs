//! As much Markdown as our own documents use: sections, pipe tables, numbered lists between markers.

use std::ops::Range;

/// A row of a pipe table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Line in the file, counted from 1.
    pub(crate) line: usize,
    /// The cells without the blanks around them.
    pub(crate) cells: Vec<String>,
}

/// An item of a numbered list, its lines joined by single blanks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// Line in the file, counted from 1.
    pub(crate) line: usize,
    /// The number that is written.
    pub(crate) number: usize,
    /// The text behind the number.
    pub(crate) text: String,
}

fn heading(line: &str) -> Option<(usize, &str)> {
    let level = line.bytes().take_while(|&byte| byte == b'#').count();
    let text = line.get(level..)?.strip_prefix(' ')?;
    (level > 0).then(|| (level, text.trim()))
}

/// The lines (counted from 0) below the heading with this text, up to the next one of its rank.
pub(crate) fn section(text: &str, title: &str) -> Option<Range<usize>> {
    let mut lines = text.lines().enumerate();
    let (start, rank) = lines.find_map(|(number, line)| match heading(line) {
        Some((level, found)) if found == title => Some((number, level)),
        _ => None,
    })?;
    let end = lines.find_map(|(number, line)| {
        heading(line)
            .filter(|(level, _)| *level <= rank)
            .map(|_| number)
    });
    Some(start + 1..end.unwrap_or_else(|| text.lines().count()))
}

/// The lines (counted from 0) between `<!-- name:begin -->` and `<!-- name:end -->`.
pub(crate) fn between(text: &str, name: &str) -> Option<Range<usize>> {
    let line_of = |which: &str| {
        let marker = format!("<!-- {name}:{which} -->");
        text.lines().position(|line| line.trim() == marker)
    };
    let (begin, end) = (line_of("begin")?, line_of("end")?);
    (begin < end).then_some(begin + 1..end)
}

/// The rows of all pipe tables within these lines, without headings and rulers.
pub(crate) fn rows(text: &str, lines: Range<usize>) -> Vec<Row> {
    let all: Vec<&str> = text.lines().collect();
    let is_ruler =
        |line: &str| line.contains('-') && line.chars().all(|c| matches!(c, '|' | '-' | ':' | ' '));
    let mut rows = Vec::new();
    for number in lines {
        let Some(&line) = all.get(number) else { break };
        let is_heading = all
            .get(number + 1)
            .is_some_and(|next| next.trim().starts_with('|') && is_ruler(next.trim()));
        let line = line.trim();
        if !line.starts_with('|') || is_ruler(line) || is_heading {
            continue;
        }
        let inner = line
            .trim_start_matches('|')
            .strip_suffix('|')
            .unwrap_or(line.trim_start_matches('|'));
        rows.push(Row {
            line: number + 1,
            cells: inner
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect(),
        });
    }
    rows
}

/// The items of the numbered list within these lines; an indented line continues its item.
pub(crate) fn items(text: &str, lines: Range<usize>) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    for (number, line) in text.lines().enumerate().skip(lines.start).take(lines.len()) {
        let start = line
            .split_once(". ")
            .and_then(|(digits, rest)| Some((digits.parse().ok()?, rest)));
        match (start, items.last_mut()) {
            (Some((counted, rest)), _) => {
                items.push(Item {
                    line: number + 1,
                    number: counted,
                    text: rest.trim().to_owned(),
                });
            }
            (None, Some(item)) if !line.trim().is_empty() => {
                item.text.push(' ');
                item.text.push_str(line.trim());
            }
            (None, _) => {}
        }
    }
    items
}

/// What stands in the first pair of backticks.
pub(crate) fn in_backticks(cell: &str) -> Option<&str> {
    cell.split('`').nth(1).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# One
| a | b |
|---|:--|
| 1 | `x` |
### Deep
| 2 | y |
# Two
| 3 | z |
<!-- list:begin -->
1. **first** – because
   it must
2. **second** – too
<!-- list:end -->
";

    #[test]
    fn sections_end_at_a_heading_of_their_rank() {
        let rows = rows(TEXT, section(TEXT, "One").unwrap());
        assert_eq!(rows.len(), 2);
        assert_eq!(
            rows[0],
            Row {
                line: 4,
                cells: vec!["1".to_owned(), "`x`".to_owned()]
            }
        );
        assert_eq!(in_backticks(&rows[0].cells[1]), Some("x"));
        assert_eq!(section(TEXT, "Three"), None);
    }

    #[test]
    fn lists_keep_numbers_and_join_lines() {
        let items = items(TEXT, between(TEXT, "list").unwrap());
        assert_eq!(items.len(), 2);
        assert_eq!(items[0].text, "**first** – because it must");
        assert_eq!((items[1].number, items[1].line), (2, 12));
        assert_eq!(between(TEXT, "other"), None);
    }
}
