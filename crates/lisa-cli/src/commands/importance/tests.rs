use super::*;

#[test]
fn the_room_on_the_disk_is_checked_before_the_runs() {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let line = ["importance", "--steps", "1", "--out", out.to_str().unwrap()];
    let line = <Line as clap::Parser>::try_parse_from(line).unwrap();
    output_folder::FREE.set(Some(1000));
    let error = importance(&line.options, &Device::flex());
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
    let text = describe(&importance).unwrap();
    assert!(text.contains("over 7 steps"), "{text}");
    assert!(text.contains("embed"), "{text}");
    assert!(text.contains("from 0.5000 to 1.0000"), "{text}");
}
