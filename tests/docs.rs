//! The pages hold together: links, the book's table of contents, quoted messages, code that is
//! compiled, versions, and what the libraries bring.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

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

/// The files with this ending below a folder.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|e| e == ending) {
            found.push(path);
        }
    }
    found
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
        // The old page of the three ways leads on to the new ones.
        let wanted = usize::from(!["SUMMARY.md", "training.md"].contains(&name));
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

/// A Rust source as its messages would be said: lines that go on are joined, and what is filled in is
/// `..`.
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
        for file in files(&root().join(folder), "rs") {
            sources.push_str(&said(&fs::read_to_string(file).unwrap()));
        }
    }
    let page = read("docs/troubleshooting.md");
    let (ours, _) = page.split_once("## Not from here").unwrap();
    let mut checked = 0;
    for row in ours.lines().filter(|line| line.starts_with("| `")) {
        let message = row.split('`').nth(1).unwrap();
        // Each part between what is filled in, so that a value may itself be made of several.
        let mut from = 0;
        let longest = message.split("..").max_by_key(|part| part.len()).unwrap();
        assert!(longest.len() > 8, "{message}");
        let places = sources.match_indices(longest.trim());
        let found = places.map(|(place, _)| place).find(|place| {
            let start = place.saturating_sub(400);
            let start = (start..=*place)
                .find(|i| sources.is_char_boundary(*i))
                .unwrap();
            let end = (place + 600).min(sources.len());
            let end = sources.ceil_char_boundary(end);
            let near = &sources[start..end];
            from = 0;
            message.split("..").map(str::trim).all(|part| {
                near[from..].find(part).is_some_and(|at| {
                    from += at + part.len();
                    true
                })
            })
        });
        assert!(found.is_some(), "no source says `{message}`");
        checked += 1;
    }
    assert!(checked > 40, "{checked}");
}

#[test]
fn the_version_is_the_same_everywhere() {
    let manifest = read("Cargo.toml");
    let version = manifest.split("\nversion = \"").nth(1).unwrap();
    let version = version.split('"').next().unwrap();
    assert!(read("CITATION.cff").contains(&format!("\nversion: {version}\n")));
    let (minor, _) = version.rsplit_once('.').unwrap();
    let burn = manifest.split("burn = { version = \"").nth(1).unwrap();
    let burn = burn.split('"').next().unwrap();
    let rust = manifest.split("rust-version = \"").nth(1).unwrap();
    let rust = rust.split('"').next().unwrap();
    let (burn_minor, _) = burn.rsplit_once('.').unwrap();
    let row = format!("| {minor} | {burn_minor} ({burn} or later) | {rust} |");
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
            ];
            let brought = backends.contains(&name) || name == "cubecl-runtime";
            assert!(!brought, "{package} brings {name}");
        }
    }
}

/// The sources of the libraries without their tests.
fn library_sources() -> Vec<(String, String)> {
    let files = files(&root().join("crates"), "rs").into_iter();
    let named = files.map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(root()).unwrap();
        (path.display().to_string(), text)
    });
    named.filter(|(name, _)| !name.contains("tests")).collect()
}

/// The code of all examples: in the comments of the sources, and on the pages that are compiled.
fn example_code() -> String {
    let mut code = String::new();
    for (_, text) in library_sources() {
        let docs = text.lines().map(str::trim_start);
        let docs = docs.filter_map(|l| l.strip_prefix("///").or_else(|| l.strip_prefix("//!")));
        let docs: Vec<&str> = docs.collect();
        let blocks = docs.split(|line| line.trim_start().starts_with("```"));
        for line in blocks.skip(1).step_by(2).flatten() {
            code.push_str(line);
            code.push('\n');
        }
    }
    for page in pages() {
        for block in read(&page).split("```rust").skip(1) {
            code.push_str(block.split("```").next().unwrap());
        }
    }
    code
}

/// Every `pub` is reachable: the lint `unreachable_pub` is on.
#[test]
fn every_public_type_and_function_has_a_running_example() {
    let code = example_code();
    let calls = |name: &str| {
        let mut places = code.match_indices(name);
        places.any(|(at, _)| {
            let before = code[..at].chars().next_back();
            let whole = before.is_none_or(|c| !c.is_alphanumeric() && c != '_');
            let after = &code[at + name.len()..];
            whole && (after.starts_with('(') || after.starts_with("::<"))
        })
    };
    let (mut types, mut functions) = (0, 0);
    for (file, text) in library_sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let Some(item) = line.trim_start().strip_prefix("pub ") else {
                continue;
            };
            let item = item
                .strip_prefix("const fn")
                .map_or(item, |_| &item["const ".len()..]);
            let mut words = item.split(|c: char| !c.is_alphanumeric() && c != '_');
            let (kind, name) = (words.next().unwrap(), words.next().unwrap_or_default());
            let above = lines[..index].iter().rev().map(|line| line.trim_start());
            let mut above = above.take_while(|l| l.starts_with("///") || l.starts_with("#["));
            let own = above.any(|line| line.starts_with("/// ```"));
            let shown = match kind {
                "struct" | "enum" | "trait" | "type" => {
                    types += 1;
                    own
                }
                "fn" => {
                    functions += 1;
                    let free = line.starts_with("pub");
                    own || (!free && calls(name))
                }
                _ => true,
            };
            assert!(shown, "{file}:{}: {name} has no example", index + 1);
        }
    }
    assert!(types > 80 && functions > 180, "{types} {functions}");
}
