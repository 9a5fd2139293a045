use super::*;

/// What busybox's `cpio -o -H newc` makes of the same three entries, but for numbers and times.
const ARCHIVE: &[u8] = include_bytes!("example.cpio");

fn written() -> Vec<u8> {
    let mut archive = Archive::new(Vec::new());
    archive.folder("bin").unwrap();
    archive.file("bin/hello", b"hello\n").unwrap();
    archive.device("console", (5, 1)).unwrap();
    archive.finish().unwrap()
}

/// The entries of an archive: what matters of each header, name and content.
fn read(mut bytes: &[u8]) -> Vec<([u32; 6], String, Vec<u8>)> {
    let mut entries = Vec::new();
    let mut offset = 0;
    loop {
        let (header, rest) = bytes.split_at(110);
        let header = std::str::from_utf8(header).unwrap();
        assert_eq!(&header[..6], "070701");
        let field = |number: usize| {
            let start = 6 + 8 * number;
            u32::from_str_radix(&header[start..start + 8], 16).unwrap()
        };
        let size = usize::try_from(field(6)).unwrap();
        let name_size = usize::try_from(field(11)).unwrap();
        let name = std::str::from_utf8(&rest[..name_size]).unwrap();
        let name = name.strip_suffix('\0').unwrap().to_owned();
        let content = (110 + name_size).next_multiple_of(4);
        let end = (content + size).next_multiple_of(4);
        if name == "TRAILER!!!" {
            return entries;
        }
        // Of links, folders have as many as their file system says.
        let matters = [1, 2, 3, 9, 10, 12].map(field);
        entries.push((matters, name, bytes[content..content + size].to_vec()));
        bytes = &bytes[end..];
        offset += end;
        assert_eq!(offset % 4, 0);
    }
}

#[test]
fn archives_are_what_cpio_makes() {
    assert_eq!(read(&written()), read(ARCHIVE));
}

#[test]
fn entries_have_numbers_of_their_own() {
    let bytes = written();
    let text = String::from_utf8_lossy(&bytes);
    let mut numbers: Vec<&str> = text
        .match_indices("070701")
        .map(|(at, _)| &text[at + 6..at + 14])
        .collect();
    assert_eq!(numbers.len(), 4);
    numbers.dedup();
    assert_eq!(numbers.len(), 4);
}
