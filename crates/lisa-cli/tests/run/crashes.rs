//! Runs that are killed, a full disk, and damaged checkpoints.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lisa::policy::DrawRng;
use lisa_cli::train::run::Start;

use super::{flags, lines, message, only_out, parsed, weights_of};

const STEPS: u64 = 40;

/// The program, on a run of short steps that saves every other one.
fn program(out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lisa"));
    command
        .args(["train", "--steps", &STEPS.to_string()])
        .args("--period 3 --batch-size 2 --eval-examples 0".split(' '))
        .args("--eval-every 0 --save-every 2 --max-seq-length 48 --out".split(' '))
        .arg(out)
        .args(more)
        .env("BURN_DEVICE", "flex")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Kills the process a while after it has printed this many steps. Returns whether it ended by itself, and
/// the last step that it printed, or 0.
fn kill_after(mut child: Child, steps: usize, while_: Duration) -> (bool, u64) {
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut printed = output.lines().filter_map(|line| {
        let line = line.unwrap();
        let (step, _) = line.strip_prefix("step ")?.split_once(" of ")?;
        step.parse::<u64>().ok()
    });
    let mut last = printed.by_ref().take(steps).last();
    let started = Instant::now();
    while started.elapsed() < while_ {
        std::thread::yield_now();
    }
    // The status of a process that has ended stays.
    child.kill().unwrap();
    last = printed.last().or(last);
    let status = child.wait().unwrap();
    assert!(status.success() || status.signal() == Some(9), "{status}");
    (status.success(), last.unwrap_or(0))
}

#[test]
fn a_run_killed_twenty_times_writes_bit_identical_weights() {
    const SEED: u64 = 20;
    let dir = tempfile::tempdir().unwrap();
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    let started = Instant::now();
    assert!(program(&whole, &[]).status().unwrap().success());
    // The time of a step, or more: that of the whole run is more than that of its steps.
    let step = started.elapsed().div_f64(STEPS as f64);
    // A run that has finished begins anew, so that the next kills are in its training too.
    let next = |is_finished: bool| {
        let has_checkpoint = fs::read_dir(killed.join("checkpoints"))
            .is_ok_and(|mut all| all.any(|entry| entry.unwrap().path().extension().is_none()));
        let how = if has_checkpoint && !is_finished {
            "--resume"
        } else {
            "--overwrite"
        };
        program(&killed, &[how, "--log-every", "1"])
    };
    let is_the_same = |kills: &[u64]| {
        let said = format!("seed {SEED}, killed after the steps {kills:?}");
        assert!(weights_of(&killed) == weights_of(&whole), "{said}");
        assert_eq!(lines(&killed), lines(&whole), "{said}");
    };
    let mut rng = DrawRng::new(SEED, 0);
    let (mut kills, mut is_finished) = (Vec::new(), false);
    while kills.len() < 20 {
        let child = next(is_finished).stdout(Stdio::piped()).spawn().unwrap();
        let (steps, share) = (1 + rng.below(6), rng.unit());
        let (ended, last) = kill_after(child, steps, step.mul_f64(share));
        is_finished = ended;
        if is_finished {
            is_the_same(&kills);
        } else if (1..STEPS).contains(&last) {
            kills.push(last);
        }
    }
    assert!(next(is_finished).status().unwrap().success());
    is_the_same(&kills);
}

#[test]
fn a_full_disk_and_a_damaged_checkpoint_leave_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    lisa_cli::bundled::model().unwrap();
    // No file above 64 KiB can be written, as if the disk were full.
    let shell = "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"";
    let limited = |how: &[&str]| {
        let program = program(&out, how);
        let mut command = Command::new("bash");
        command.args(["-c", shell]).arg(program.get_program());
        let output = command.args(program.get_args()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(limited(&[]).contains("cannot write the checkpoint"));
    assert!(
        program(&out, &["--overwrite", "--steps", "7"])
            .status()
            .unwrap()
            .success()
    );
    let last = weights_of(&out);
    let error = limited(&["--resume"]);
    assert!(error.contains("cannot write the checkpoint"), "{error}");
    let part = "the checkpoint of step 7 is complete";
    assert!(error.contains(part), "{error}");
    assert_eq!(weights_of(&out), last);

    let newest = out.join("checkpoints/step-00000007");
    for (file, damage) in [
        ("weights.bpk", 100),
        ("optimizer.bpk", 1000),
        ("state.json", 20),
    ] {
        let path = newest.join(file);
        let good = fs::read(&path).unwrap();
        for bad in [good[..good.len() - damage].to_vec(), vec![0; good.len()]] {
            fs::write(&path, bad).unwrap();
            let more = parsed("--steps 9").or(only_out(&out));
            let error = message(more, Start::Resume);
            assert!(error.contains(file), "{error}");
        }
        fs::write(&path, good).unwrap();
    }
    fs::remove_dir_all(newest).unwrap();
    assert!(
        program(&out, &["--resume", "--steps", "7"])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(weights_of(&out), last);
    // A place where nobody may write, the administrator included.
    if cfg!(target_os = "linux") {
        let flags = flags(&out, "--out /proc/nowhere");
        let error = message(flags, Start::Fresh);
        assert!(error.contains("/proc/nowhere"), "{error}");
    }
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = message(flags(&file, ""), Start::Fresh);
    assert!(error.contains("cannot make the folder"), "{error}");
}
