use super::*;

/// The options of a command line.
fn parsed(line: &[&str]) -> Options {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }
    let line = [&["importance"], line].concat();
    let line = <Line as clap::Parser>::try_parse_from(line).unwrap();
    line.options
}

#[test]
fn the_norms_are_named_by_what_is_measured_and_by_the_other_run() {
    let names = |line: &str| {
        let line: Vec<&str> = line.split(' ').collect();
        let Names { measured, other } = parsed(&line).names();
        (measured, other)
    };
    assert_eq!(names("--by ratio"), ("weights", "full"));
    assert_eq!(
        names("--by ratio --of weights --against full"),
        ("weights", "full")
    );
    assert_eq!(
        names("--by ratio --of update --against lisa"),
        ("update", "LISA")
    );
}

#[test]
fn the_room_on_the_disk_is_checked_before_the_runs() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let options = parsed(&["--steps", "1", "--out", out.to_str().unwrap()]);
    output_folder::FREE.set(Some(1000));
    let error = importance(&options, &Device::flex());
    output_folder::FREE.set(None);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("there is no room"), "{error}");
}

#[test]
fn the_table_has_every_norm_and_the_range_of_p() {
    let norms = |scale: f64| WeightNorms {
        observations: 7,
        layers: vec![("layers.0".into(), 2.0), ("layers.1".into(), 4.0 * scale)],
        outside: vec![("embed".into(), 9.0)],
    };
    let importance = Importance {
        lora: norms(0.5),
        full: norms(1.0),
    };
    let names = Names {
        measured: "weights",
        other: "full",
    };
    let text = describe(&importance, names).unwrap();
    assert!(
        text.starts_with("mean L2 norms of the weights over 7 steps\n"),
        "{text}"
    );
    let heads = text.lines().nth(1).unwrap().split_whitespace();
    assert_eq!(heads.collect::<Vec<_>>(), ["LoRA", "full", "ratio"]);
    assert!(text.contains("embed"), "{text}");
    assert!(text.contains("from 0.5000 to 1.0000"), "{text}");
}
