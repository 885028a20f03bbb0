//! [`Events`]: a TensorBoard event file, `events.out.tfevents.TIME.lisa`.
//!
//! The file is a sequence of records: the length (8 bytes), a checksum of the length, the data, a
//! checksum of the data; all little-endian. The data is an `Event` in Protocol Buffers. Each session
//! of a run writes its own file; TensorBoard reads those of a folder in the order of their names, and
//! at the start of a session drops what earlier files have from this step on.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crc32c::crc32c;

use super::line::Line;
use crate::run_folder::{EVENTS, OUR_EVENTS};

/// The open file of a session.
#[derive(Debug)]
pub(super) struct Events(File);

impl Events {
    /// Begins the file of a session after `step`, which replaces what earlier files have after the step
    /// `from`.
    pub(super) fn begin(folder: &Path, step: u64, from: u64) -> io::Result<Self> {
        let now = now();
        // The step orders two sessions that begin in the same second.
        let name = format!("{EVENTS}{:010}.{step:08}{OUR_EVENTS}", now as u64);
        let mut events = Self(File::create(folder.join(name))?);
        events.write(&event(now, 0, |out| text(out, 3, "brain.Event:2")))?;
        // A session log with the status START.
        let first = if from == 0 { 0 } else { from + 1 };
        events.write(&event(now, first, |out| bytes(out, 7, &[0x08, 1])))?;
        Ok(events)
    }

    /// Writes the numbers of a line.
    pub(super) fn push(&mut self, line: &Line) -> io::Result<()> {
        let mib = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64 / f64::from(1 << 20));
        let scalars = [
            ("loss/train", line.loss),
            ("loss/held_out", line.held_out_loss),
            ("loss/held_out_first_rows", line.held_out_first_loss),
            ("lr", line.lr),
            ("tokens_per_second", line.tokens_per_second),
            ("memory/optimizer_state_mib", mib(line.state_bytes)),
            ("memory/now_mib", mib(line.memory_bytes)),
            ("memory/peak_mib", mib(line.peak_bytes)),
        ];
        let mut summary = Vec::new();
        for (tag, value) in scalars {
            let Some(value) = value else { continue };
            let mut one = Vec::new();
            text(&mut one, 1, tag);
            key(&mut one, 2, 5);
            one.extend((value as f32).to_le_bytes());
            bytes(&mut summary, 1, &one);
        }
        self.write(&event(now(), line.step, |out| bytes(out, 5, &summary)))
    }

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.0.write_all(&record(data))
    }
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// An event with its time, its step and one more field.
fn event(time: f64, step: u64, field: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    key(&mut out, 1, 1);
    out.extend(time.to_le_bytes());
    key(&mut out, 2, 0);
    varint(&mut out, step);
    field(&mut out);
    out
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(data.len() + 16);
    out.extend(length);
    out.extend(masked(&length));
    out.extend(data);
    out.extend(masked(data));
    out
}

/// The checksum CRC-32C, rotated and shifted so that a checksum of checksums is no constant.
fn masked(data: &[u8]) -> [u8; 4] {
    let checksum = crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8);
    checksum.to_le_bytes()
}

/// The number and the wire type of a field.
fn key(out: &mut Vec<u8>, field: u64, wire: u64) {
    varint(out, field << 3 | wire);
}

fn text(out: &mut Vec<u8>, field: u64, text: &str) {
    bytes(out, field, text.as_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u64, data: &[u8]) {
    key(out, field, 2);
    varint(out, data.len() as u64);
    out.extend(data);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_bytes_of_tensorboards_own_writer() {
        // tests/fixtures/make_events.py prints them.
        let mut summary = Vec::new();
        let mut one = Vec::new();
        text(&mut one, 1, "loss/train");
        key(&mut one, 2, 5);
        one.extend(2.5f32.to_le_bytes());
        bytes(&mut summary, 1, &one);
        let data = event(1_700_000_000.5, 300, |out| bytes(out, 5, &summary));
        assert_eq!(hex(&record(&data)), RECORD);
        let data = event(1_700_000_000.5, 301, |out| bytes(out, 7, &[0x08, 1]));
        assert_eq!(hex(&record(&data)), START);
    }

    fn hex(bytes: &[u8]) -> String {
        let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
        digits.collect::<Vec<_>>().concat()
    }

    const RECORD: &str = "2100000000000000017becf60900002040fc54d94110ac022a130a110a0a6c6f73732f\
                          747261696e150000204055ed1795";
    const START: &str = "100000000000000095fbfe180900002040fc54d94110ad023a020801596f3f79";

    /// The bytes of the one file in a folder, after its name is checked.
    fn written(folder: &Path) -> Vec<u8> {
        let mut files = std::fs::read_dir(folder).unwrap();
        let file = files.next().unwrap().unwrap();
        let name = file.file_name().into_string().unwrap();
        assert!(
            name.starts_with(EVENTS) && name.ends_with(".00000004.lisa"),
            "{name}"
        );
        assert!(files.next().is_none());
        std::fs::read(file.path()).unwrap()
    }

    /// The end of an event: its step, and its scalars in order.
    fn event_of(step: u64, scalars: &[(&str, f32)]) -> Vec<u8> {
        let mut summary = Vec::new();
        for (tag, value) in scalars {
            let mut one = Vec::new();
            text(&mut one, 1, tag);
            key(&mut one, 2, 5);
            one.extend(value.to_le_bytes());
            bytes(&mut summary, 1, &one);
        }
        let mut out = Vec::new();
        key(&mut out, 2, 0);
        varint(&mut out, step);
        bytes(&mut out, 5, &summary);
        out
    }

    #[test]
    fn every_known_number_of_a_line_is_a_scalar_with_its_own_tag() {
        let dir = tempfile::tempdir().unwrap();
        let mut events = Events::begin(dir.path(), 4, 4).unwrap();
        let has = |part: &[u8]| {
            let written = written(dir.path());
            written.windows(part.len()).any(|found| found == part)
        };
        assert!(has(b"brain.Event:2"));
        events.push(&Line::held_out(5, 0.5)).unwrap();
        assert!(has(&event_of(5, &[("loss/held_out", 0.5)])));
        let line = Line {
            step: 6,
            loss: Some(1.5),
            held_out_loss: Some(2.5),
            held_out_first_loss: Some(3.5),
            lr: Some(4.5),
            tokens_per_second: Some(5.5),
            active_layers: vec![1],
            outer_active: Some(true),
            state_bytes: Some(6 << 20),
            memory_bytes: Some(7 << 20),
            peak_bytes: Some(8 << 20),
        };
        events.push(&line).unwrap();
        let scalars = [
            ("loss/train", 1.5),
            ("loss/held_out", 2.5),
            ("loss/held_out_first_rows", 3.5),
            ("lr", 4.5),
            ("tokens_per_second", 5.5),
            ("memory/optimizer_state_mib", 6.0),
            ("memory/now_mib", 7.0),
            ("memory/peak_mib", 8.0),
        ];
        assert!(has(&event_of(6, &scalars)));
    }
}
