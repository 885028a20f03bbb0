//! Tells the program which commit it is built from: each line of the study has it.

use std::path::Path;
use std::process::Command;

/// What the program is made of.
const SOURCES: [&str; 6] = [
    "build.rs",
    "src",
    "Cargo.toml",
    "../crates",
    "../Cargo.toml",
    "../Cargo.lock",
];

fn main() {
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"]);
    for path in SOURCES.map(str::to_owned).into_iter().chain(log) {
        // Cargo takes a file that does not exist for a changed one.
        if Path::new(&path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    let commit = commit().unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=BENCH_COMMIT={commit}");
}

/// The commit of this repository, with `-dirty` where the sources differ from it.
fn commit() -> Option<String> {
    // An unpacked archive may be in another repository.
    let top = Path::new(&git(&["rev-parse", "--show-toplevel"])?)
        .canonicalize()
        .ok()?;
    if top != Path::new("..").canonicalize().ok()? {
        return None;
    }
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let is_clean = git(&[&["diff", "--quiet", "HEAD", "--"], &SOURCES[..]].concat()).is_some();
    Some(if is_clean { commit } else { commit + "-dirty" })
}

/// What git prints; none without git, or if it fails.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
