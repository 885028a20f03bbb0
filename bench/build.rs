//! Tells the program which commit it is built from: each line of the study has it.

use std::path::Path;
use std::process::Command;

fn main() {
    // The program changes with these, and the commit with the log of HEAD.
    let sources = ["build.rs", "src", "../crates"].map(str::to_owned);
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"]);
    for path in sources.into_iter().chain(log) {
        // Cargo takes a file that does not exist for a changed one.
        if Path::new(&path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    let commit = git(&["describe", "--always", "--dirty", "--exclude", "*"]);
    println!(
        "cargo:rustc-env=BENCH_COMMIT={}",
        commit.unwrap_or_default()
    );
}

/// What git prints; none without git or a repository.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
