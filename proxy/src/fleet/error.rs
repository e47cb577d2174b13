//! What can go wrong with durable state, always with the path and the way out.

use std::io;
use std::path::{Path, PathBuf};

/// A durable write or read that did not happen.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused; nothing after the named operation was done.
    #[error("cannot {operation} {}: {hint}", path.display())]
    Io {
        /// What was tried, as a verb: "create", "write", "sync".
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What a person can do about it.
        hint: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another process holds the state directory.
    #[error(
        "{} is locked by another writefence; one daemon per state directory: \
         stop the other one or give this one its own [admin] state_dir", path.display()
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A file's content is not what this version writes.
    #[error(
        "{} is damaged ({why}); it is kept as it is, the group stays fenced: look at both regions, \
         then `writefencectl open-writes --primary R` decides", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// Somebody else's phase is newer than the one to be written.
    #[error("epoch {offered} is not above the stored epoch {stored}; another change came first")]
    Conflict {
        /// The epoch that was to be written.
        offered: u64,
        /// The epoch that is stored.
        stored: u64,
    },
}

impl StoreError {
    /// Wraps an I/O error with its place; the hint follows from the kind of error.
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let hint = hint(source.kind());
        Self::Io {
            operation,
            path: path.to_path_buf(),
            hint,
            source,
        }
    }
}

fn hint(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "the disk is full; free space under [admin] state_dir and repeat the command"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "the file system is read-only; remount it writable or move [admin] state_dir"
        }
        io::ErrorKind::PermissionDenied => {
            "no permission; the daemon's user must own [admin] state_dir"
        }
        io::ErrorKind::NotFound => "it is gone; restore [admin] state_dir or make it anew",
        _ => "check [admin] state_dir and its disk, then repeat the command",
    }
}
