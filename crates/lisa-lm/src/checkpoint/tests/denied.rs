//! Files that this user may not read.

use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn the_help_for_a_file_that_may_not_be_read_is_about_its_permissions() {
    for name in ["config.json", "model.safetensors"] {
        let dir = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(fixture("llama")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
            }
        }
        let file = dir.path().join(name);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
        if fs::File::open(&file).is_ok() {
            // The superuser may read every file.
            return;
        }
        let opened = Checkpoint::open(dir.path());
        let error = opened.and_then(|checkpoint| checkpoint.load(&Device::flex(), None));
        let error = error.unwrap_err();
        assert_eq!(error.help(), Some("check who may read it"), "{error}");
    }
}
