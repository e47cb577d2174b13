//! One daemon per state directory, by an advisory lock that dies with its process.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::StoreError;

/// Holds the lock as long as it lives.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "the open file is the lock")] File);

impl Lock {
    /// Takes the lock or says who has it.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process holds it; I/O otherwise.
    pub(crate) fn take(path: &Path) -> Result<Self, StoreError> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(|e| StoreError::io("open", path, e))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StoreError::Locked {
                    path: path.to_path_buf(),
                });
            }
            Err(errno) => return Err(StoreError::io("lock", path, io::Error::from(errno))),
        }
        // For a person who looks; the lock itself does not depend on the content.
        let note = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        note.map_err(|e| StoreError::io("write", path, e))?;
        Ok(Self(file))
    }
}
