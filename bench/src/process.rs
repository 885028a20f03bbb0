//! Other processes that print JSON lines: this program again as a worker, or PyTorch.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Runs one job of this program in a process with so many threads and returns what it printed.
pub(crate) fn worker<T: DeserializeOwned>(
    kind: &str,
    order: &impl Serialize,
    threads: usize,
) -> Result<Vec<T>> {
    let order = serde_json::to_string(order)?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["worker", kind, &order])
        .env("RAYON_NUM_THREADS", threads.to_string());
    lines(command).with_context(|| format!("the worker `{kind}` of {order}"))
}

/// Runs a command and returns its JSON lines. Other lines are ignored.
pub(crate) fn lines<T: DeserializeOwned>(mut command: Command) -> Result<Vec<T>> {
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("ended with {}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).with_context(|| format!("printed `{line}`")))
        .collect()
}

/// Prints a JSON line, for the process that reads it.
pub(crate) fn print(line: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(line)?);
    Ok(())
}
