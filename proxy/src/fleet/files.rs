//! The three ways state reaches the disk: replace a file, append a line, make a directory.
//!
//! Each returns only after the bytes and, where a name changed, the directory are synced. A name
//! without a synced directory can vanish in a power cut although its content was synced.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use super::StoreError;

/// Replaces `path` by `content`: readers see the old or the new file, never a part.
///
/// # Errors
/// Each failing step, with its path; the old content is then still in force.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh).map_err(|e| StoreError::io("create", &fresh, e))?;
    file.write_all(content)
        .map_err(|e| StoreError::io("write", &fresh, e))?;
    file.sync_data()
        .map_err(|e| StoreError::io("sync", &fresh, e))?;
    fs::rename(&fresh, path).map_err(|e| StoreError::io("replace", path, e))?;
    sync_parent(path)
}

/// Opens `path` for appending and makes sure that its name survives a power cut.
///
/// # Errors
/// Cannot open or sync.
pub(crate) fn open_append(path: &Path) -> Result<File, StoreError> {
    let is_new = !path.exists();
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|e| StoreError::io("open", path, e))?;
    if is_new {
        file.sync_all()
            .map_err(|e| StoreError::io("sync", path, e))?;
        sync_parent(path)?;
    }
    Ok(file)
}

/// Makes `path` and what is missing above it.
///
/// # Errors
/// Cannot create or sync.
pub(crate) fn make_dir(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(|e| StoreError::io("create", path, e))?;
    sync_parent(path)
}

/// The file's text, or `None` where there is no file.
///
/// # Errors
/// Unreadable, or not UTF-8 (then it is damaged).
pub(crate) fn read(path: &Path) -> Result<Option<String>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|e| StoreError::Damaged {
                path: path.to_path_buf(),
                why: format!("not UTF-8 at byte {}", e.utf8_error().valid_up_to()),
            }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StoreError::io("read", path, e)),
    }
}

fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| StoreError::io("sync directory", parent, e))
}
