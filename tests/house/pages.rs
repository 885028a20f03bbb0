//! The pages agree with each other and with the sources: links, the table of contents, quoted messages,
//! code that is compiled, versions, and the dependencies of the libraries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{read, root, rust_files};

/// The project's pages, from its root.
fn pages() -> Vec<String> {
    let mut pages: Vec<String> = fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| Path::new(name).extension().is_some_and(|end| end == "md"))
        .map(|name| format!("docs/{name}"))
        .collect();
    pages.extend(["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(String::from));
    pages.sort();
    pages
}

/// A page without its code blocks.
fn prose(page: &str) -> String {
    let parts = page.split("```").step_by(2);
    parts.collect()
}

/// Where `[text](target)` leads.
fn links(page: &str) -> Vec<String> {
    let ends = |rest: &str| rest.split_once(')').map(|(link, _)| link.to_owned());
    prose(page).split("](").skip(1).filter_map(ends).collect()
}

/// What a heading is called in a link.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    let name: String = heading.trim().to_lowercase().chars().filter(kept).collect();
    name.replace(' ', "-")
}

fn anchors(page: &str) -> Vec<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut followed = 0;
    for page in pages() {
        let text = read(&page);
        let folder = Path::new(&page).parent().unwrap();
        for link in links(&text).iter().filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                PathBuf::from(&page)
            } else {
                folder.join(file)
            };
            assert!(root().join(&target).exists(), "{page}: {link}");
            if !heading.is_empty() {
                let there = anchors(&read(&target));
                assert!(there.contains(&heading.to_owned()), "{page}: {link}");
            }
            followed += 1;
        }
    }
    assert!(followed > 50, "{followed}");
}

#[test]
fn the_book_has_every_page_once() {
    let summary = links(&read("docs/SUMMARY.md"));
    for page in pages() {
        let Some(name) = page.strip_prefix("docs/") else {
            continue;
        };
        let times = summary.iter().filter(|link| *link == name).count();
        let wanted = usize::from(name != "SUMMARY.md");
        assert_eq!(times, wanted, "{name}");
    }
}

#[test]
fn every_page_with_rust_is_compiled() {
    let compiled = read("tests/lib.rs");
    for page in pages() {
        let rust = read(&page).lines().any(|line| {
            let fence = line.trim_start();
            fence == "```rust" || (fence.starts_with("```rust,") && !fence.contains("ignore"))
        });
        let listed = compiled.contains(&format!("\"../{page}\""));
        assert!(listed || !rust, "{page} is not in tests/lib.rs");
    }
}

/// A Rust source with its messages as they are printed: continued lines are joined, and a value that is
/// filled in is `..`.
fn said(source: &str) -> String {
    let mut joined = String::new();
    let mut rest = source;
    while let Some((before, after)) = rest.split_once("\\\n") {
        joined.push_str(before);
        rest = after.trim_start();
    }
    joined.push_str(rest);
    let mut text = String::new();
    let mut letters = joined.chars().peekable();
    while let Some(letter) = letters.next() {
        let filled = letter == '{'
            && letters
                .peek()
                .is_some_and(|c| c.is_alphanumeric() || "}:".contains(*c));
        if filled {
            letters.by_ref().find(|c| *c == '}');
            text.push_str("..");
        } else {
            text.push(letter);
        }
    }
    text.replace("`..`", "..").replace("\\\"", "\"")
}

#[test]
fn every_message_of_the_troubleshooting_page_is_in_the_sources() {
    let mut sources = String::new();
    for folder in ["crates", "examples"] {
        for file in rust_files(&root().join(folder)) {
            sources.push_str(&said(&fs::read_to_string(file).unwrap()));
        }
    }
    let page = read("docs/troubleshooting.md");
    let (ours, _) = page.split_once("## Messages of other programs").unwrap();
    let mut checked = 0;
    for row in ours.lines().filter(|line| line.starts_with("| `")) {
        let message = row.split('`').nth(1).unwrap();
        assert!(
            quotes(&sources, message),
            "no source has the message `{message}`"
        );
        checked += 1;
    }
    assert!(checked > 40, "{checked}");
}

/// Whether the constant parts of a message follow each other within a few lines of the sources. A value
/// between them, `..`, may itself be built from several strings.
fn quotes(sources: &str, message: &str) -> bool {
    let longest = message.split("..").max_by_key(|part| part.len()).unwrap();
    assert!(longest.len() > 8, "{message}");
    sources.match_indices(longest.trim()).any(|(place, _)| {
        let start = sources.floor_char_boundary(place.saturating_sub(400));
        let end = sources.ceil_char_boundary((place + 600).min(sources.len()));
        let mut near = &sources[start..end];
        message.split("..").map(str::trim).all(|part| {
            let found = near.find(part);
            near = &near[found.map_or(0, |at| at + part.len())..];
            found.is_some()
        })
    })
}

#[test]
fn the_version_is_the_same_everywhere() {
    let manifest = read("Cargo.toml");
    let value = |key: &str| {
        let after = manifest.split_once(key).unwrap().1;
        after.split('"').next().unwrap().to_owned()
    };
    let minor = |version: &str| version.rsplit_once('.').unwrap().0.to_owned();
    let version = value("\nversion = \"");
    let burn = value("burn = { version = \"");
    let rust = value("rust-version = \"");
    assert!(read("CITATION.cff").contains(&format!("\nversion: {version}\n")));
    let row = format!(
        "| {} | {} ({burn} or later) | {rust} |",
        minor(&version),
        minor(&burn)
    );
    assert!(read("CHANGELOG.md").contains(&row), "{row}");
}

#[test]
fn the_libraries_bring_no_backend() {
    for package in ["burn-lisa", "lisa-lm"] {
        let output = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--locked",
                "--offline",
                "--edges",
                "normal",
                "--prefix",
                "none",
            ])
            .args(["--package", package])
            .current_dir(root())
            .output()
            .unwrap();
        let tree = String::from_utf8(output.stdout).unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(tree.contains("burn v"), "{error}");
        for line in tree.lines() {
            let name = line.split(' ').next().unwrap();
            let backends = [
                "burn-flex",
                "burn-wgpu",
                "burn-cuda",
                "burn-tch",
                "burn-ndarray",
                "cubecl-runtime",
            ];
            assert!(!backends.contains(&name), "{package} brings {name}");
        }
    }
}
