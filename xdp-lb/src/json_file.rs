//! Files in the state directory: JSON, read whole and written all or nothing.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

/// Reads a file; None where there is none.
///
/// # Errors
///
/// If it cannot be read, or does not hold a `T`.
pub(crate) fn load<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(
        serde_json::from_slice(&text).map_err(io::Error::other)?,
    ))
}

/// Writes a file: after a crash it is the old one or the new one.
///
/// # Errors
///
/// If it cannot be written; then it is the old one.
pub(crate) fn save(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let temporary = path.with_extension("json.new");
    let mut out = fs::File::create(&temporary)?;
    serde_json::to_writer_pretty(&mut out, value)?;
    out.write_all(b"\n")?;
    out.sync_all()?;
    fs::rename(&temporary, path)?;
    fs::File::open(directory)?.sync_all()
}
