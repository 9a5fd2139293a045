//! What is read from a disk.

use std::fs;

use super::*;

fn message(path: &Path) -> String {
    let error = load(path).unwrap_err();
    let message = error.to_string();
    let prefix = path.display().to_string();
    message.strip_prefix(&prefix).unwrap_or(&message).to_owned()
}

#[test]
fn a_file_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    fs::write(&path, file(&[service("")])).unwrap();
    assert_eq!(load(&path).unwrap().services[0].name, "web");
}

#[test]
fn problems_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    fs::write(&path, "interfaces: [eth0]\ncolour: red\n").unwrap();
    assert!(message(&path).starts_with(":2:1: colour: unknown field; expected `interfaces`"));
}

#[test]
fn what_cannot_be_read_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        message(dir.path()),
        ": is a directory; give the path of a file in it"
    );
    let path = dir.path().join("config.yaml");
    assert!(message(&path).starts_with(": cannot be read: No such file"));
    fs::write(&path, b"interfaces: [eth0]\nname: \xc3\xa9\xff\n").unwrap();
    assert_eq!(
        message(&path),
        ":2:8: is not UTF-8 from here on; save the file as UTF-8"
    );
    fs::write(&path, "").unwrap();
    assert_eq!(
        message(&path),
        ":1:1: the file is empty; it needs `interfaces` at least"
    );
}

#[test]
fn a_file_over_sixteen_mebibytes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    // Sparse: takes no room.
    File::create(&path)
        .unwrap()
        .set_len(MAX_FILE_BYTES + 1)
        .unwrap();
    assert_eq!(
        message(&path),
        ": is larger than 16 MiB; is this the right file?"
    );
}
