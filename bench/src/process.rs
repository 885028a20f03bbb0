//! Other processes that print JSON lines: this program again as a worker, or PyTorch.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

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

/// A name for this machine since it started: on Linux the first 8 hexadecimal digits of the SHA-256 of its
/// boot id, elsewhere nothing. A virtual machine may have another processor after it has started again.
pub(crate) fn machine() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    boot.map_or(String::new(), |boot| {
        format!("{:x}", Sha256::digest(boot.trim()))[..8].to_owned()
    })
}

/// Prints a JSON line, for the process that reads it.
pub(crate) fn print(line: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(line)?);
    Ok(())
}
