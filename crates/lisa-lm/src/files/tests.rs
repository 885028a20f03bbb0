use super::*;

fn message(result: io::Result<Option<Vec<u8>>>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_file_is_read_up_to_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "12345").unwrap();
    assert_eq!(
        read(dir.path(), "a", 5).unwrap().as_deref(),
        Some(&b"12345"[..])
    );
    assert!(message(read(dir.path(), "a", 4)).contains("more than 4 bytes"));
    assert_eq!(read(dir.path(), "b", 5).unwrap(), None);
    fs::write(dir.path().join("c"), [b'a', 0xff]).unwrap();
    assert!(read_text(dir.path(), "c", 5).is_err());
}

#[test]
fn what_is_no_regular_file_is_refused_before_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    assert!(message(read(dir.path(), "a", 5)).contains("directory"));
    #[cfg(unix)]
    {
        pipe(&dir.path().join("pipe"));
        assert!(message(read(dir.path(), "pipe", 5)).contains("pipe"));
        // A folder of its own, so that the device counts as inside.
        assert!(message(read(Path::new("/dev"), "zero", 5)).contains("device"));
        assert!(open(Path::new("/dev/zero")).is_err());
    }
}

/// A pipe that nobody writes to.
#[cfg(unix)]
fn pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.unwrap().success());
}

#[cfg(unix)]
#[test]
fn a_link_may_lead_to_a_file_of_the_folder_and_not_out_of_it() {
    use std::os::unix::fs::symlink;
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("model");
    fs::create_dir(&dir).unwrap();
    fs::write(root.path().join("secret"), "s").unwrap();
    fs::write(dir.join("a"), "a").unwrap();
    symlink("a", dir.join("inside")).unwrap();
    symlink("../secret", dir.join("outside")).unwrap();
    symlink("nowhere", dir.join("broken")).unwrap();
    symlink("loop", dir.join("loop")).unwrap();
    assert_eq!(read(&dir, "inside", 5).unwrap().as_deref(), Some(&b"a"[..]));
    assert!(message(read(&dir, "outside", 5)).contains("not in the folder"));
    assert!(read(&dir, "broken", 5).is_err());
    assert!(read(&dir, "loop", 5).is_err());
    // The folder itself may be reached through a link.
    symlink("model", root.path().join("link")).unwrap();
    let linked = read(&root.path().join("link"), "inside", 5);
    assert_eq!(linked.unwrap().as_deref(), Some(&b"a"[..]));
}

#[cfg(unix)]
#[test]
fn a_snapshot_of_the_hubs_cache_links_to_its_blobs() {
    use std::os::unix::fs::symlink;
    let root = tempfile::tempdir().unwrap();
    let snapshot = root.path().join("models--a--b/snapshots/0123");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(root.path().join("models--a--b/blobs")).unwrap();
    fs::write(root.path().join("models--a--b/blobs/9"), "x").unwrap();
    fs::write(root.path().join("other"), "x").unwrap();
    symlink("../../blobs/9", snapshot.join("config.json")).unwrap();
    symlink("../../../other", snapshot.join("LICENSE")).unwrap();
    assert!(read(&snapshot, "config.json", 5).unwrap().is_some());
    assert!(message(read(&snapshot, "LICENSE", 5)).contains("not in the folder"));
}

#[test]
fn the_help_depends_on_what_the_system_says() {
    let of = |kind: ErrorKind| help_of(&kind.into(), "fetch it again");
    assert_eq!(of(ErrorKind::PermissionDenied), "check who may read it");
    assert_eq!(of(ErrorKind::NotFound), "fetch it again");
}
