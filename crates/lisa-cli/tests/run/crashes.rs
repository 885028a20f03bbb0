//! Runs that are killed, a full disk, and damaged checkpoints.
#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lisa_cli::train::run::Start;

use super::{flags, lines, message, only_out, parsed, weights_of};

/// The program, on a run of forty short steps that saves every other one.
fn program(out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lisa"));
    command
        .arg("train")
        .args("--steps 40 --period 3 --batch-size 2 --eval-examples 0".split(' '))
        .args("--eval-every 0 --save-every 2 --max-seq-length 48 --out".split(' '))
        .arg(out)
        .args(more)
        .env("BURN_DEVICE", "flex")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Ends with the process, or kills it after a while; whether it ended by itself.
fn kill_after(mut child: Child, while_: Duration) -> bool {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return true;
        }
        if started.elapsed() > while_ {
            child.kill().unwrap();
            child.wait().unwrap();
            return false;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_run_killed_twenty_times_writes_bit_identical_weights() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    let started = Instant::now();
    assert!(program(&whole, &[]).status().unwrap().success());
    let once = started.elapsed();
    let mut rng = lisa::policy::DrawRng::new(std::process::id().into(), 0);
    let mut kills = 0;
    let mut finished = false;
    while kills < 20 {
        // A run that came to its end has its last part done again, the final write included.
        let has_checkpoint = fs::read_dir(killed.join("checkpoints"))
            .is_ok_and(|mut all| all.any(|entry| entry.unwrap().path().extension().is_none()));
        let how = if has_checkpoint {
            "--resume"
        } else {
            "--overwrite"
        };
        let child = program(&killed, &[how]).spawn().unwrap();
        finished = kill_after(child, once.mul_f64(rng.unit()));
        kills += usize::from(!finished);
    }
    if !finished {
        assert!(program(&killed, &["--resume"]).status().unwrap().success());
    }
    assert_eq!(weights_of(&killed), weights_of(&whole));
    assert_eq!(lines(&killed), lines(&whole));
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
    assert!(limited(&["--resume"]).contains("cannot write the checkpoint"));
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
            let more = parsed(&["--steps", "9"]).or(only_out(&out));
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
        let flags = flags(&out, &["--out", "/proc/nowhere"]);
        let error = message(flags, Start::Fresh);
        assert!(error.contains("/proc/nowhere"), "{error}");
    }
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = message(flags(&file, &[]), Start::Fresh);
    assert!(error.contains("cannot make the folder"), "{error}");
}

#[test]
fn losses_that_are_not_finite_stop_the_run_or_are_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let more = ["--lr", "1e30", "--max-grad-norm", "0", "--save-every", "1"];
    let error = message(flags(&out, &more), Start::Fresh);
    for part in [
        "step",
        "batch",
        "epoch 1",
        "first row begins `",
        "layers",
        "--lr",
        "--skip-bad-steps",
    ] {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
    assert!(out.join("checkpoints/step-00000001/state.json").is_file());
    assert!(!out.join("model").exists());
    let more = [&more[..], &["--skip-bad-steps"]].concat();
    let error = message(flags(&out, &more), Start::Overwrite);
    assert!(error.contains("batch 12 of epoch 1"), "{error}");
}
