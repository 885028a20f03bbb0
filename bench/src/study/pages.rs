//! The tables that pages of the project have between marks.

use anyhow::{Context, Result, ensure};

use super::pytorch::{self, PyTorch};
use super::report::{by_seed, summary};
use super::results::Results;

/// A table, by the name in its marks.
pub(crate) type Table = (&'static str, String);

/// All tables that a page can have.
pub(crate) fn tables(results: &Results, peers: &[PyTorch]) -> [Table; 3] {
    [
        ("summary", summary(results)),
        ("by seed", by_seed(results)),
        ("PyTorch", pytorch::table(results, peers)),
    ]
}

/// The page with each table between its marks. An error for a page without marks.
pub(crate) fn marked(page: &str, tables: &[Table]) -> Result<String> {
    let mut text = page.to_owned();
    for (name, table) in tables {
        let [begin, end] = marks(name);
        let Some((before, rest)) = text.split_once(&begin) else {
            continue;
        };
        let (_, after) = rest
            .split_once(&end)
            .with_context(|| format!("the line `{begin}` has no line `{end}` after it"))?;
        text = format!("{before}{begin}\n{table}{end}{after}");
    }
    let begins = tables.iter().map(|(name, _)| marks(name)[0].clone());
    let begins: Vec<String> = begins.collect();
    ensure!(
        begins.iter().any(|begin| page.contains(begin)),
        "no line is one of `{}`",
        begins.join("`, `")
    );
    Ok(text)
}

/// The lines before and after a table.
fn marks(name: &str) -> [String; 2] {
    [
        format!("<!-- study: {name} -->"),
        format!("<!-- end of study: {name} -->"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_table_is_written_between_its_marks() {
        let tables = [("one", "1\n".to_owned()), ("two", "2\n".to_owned())];
        let page = "a\n<!-- study: two -->\nold\n<!-- end of study: two -->\nb";
        let new = "a\n<!-- study: two -->\n2\n<!-- end of study: two -->\nb";
        assert_eq!(marked(page, &tables).unwrap(), new);
        let error = |page| marked(page, &tables).unwrap_err().to_string();
        assert_eq!(
            error("no marks"),
            "no line is one of `<!-- study: one -->`, `<!-- study: two -->`"
        );
        let open = "<!-- study: one -->\n1";
        assert!(error(open).contains("no line `<!-- end of study: one -->`"));
    }
}
