//! Binding the socket: mode 0600, and never beside a daemon that lives.
//!
//! A socket file outlives its daemon, so its presence says nothing; only an answer does.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::net::UnixListener;

/// Who may connect: the daemon's own user, and root.
const MODE: u32 = 0o600;

/// Why the socket cannot be had.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another daemon answers there.
    #[error(
        "{} is in use: a daemon answers there; stop it, or set another `admin.socket`",
        path.display()
    )]
    Live {
        /// The socket's path.
        path: PathBuf,
    },
    /// Something else stands there.
    #[error(
        "{} exists and is not a socket; remove it, or set another `admin.socket`",
        path.display()
    )]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {what} the admin socket {}", path.display())]
    Io {
        /// What was attempted: `look at`, `remove the stale`, `bind`, `restrict`.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Binds the admin socket. Must be called inside a tokio runtime.
///
/// # Errors
/// [`BindError`]; an existing socket is removed only when nobody answers on it.
pub fn bind(path: &Path) -> Result<UnixListener, BindError> {
    remove_stale(path)?;
    let io = |what| {
        move |source| BindError::Io {
            what,
            path: path.to_owned(),
            source,
        }
    };
    let listener = StdListener::bind(path).map_err(io("bind"))?;
    restrict(&listener, path).map_err(io("restrict"))?;
    UnixListener::from_std(listener).map_err(io("bind"))
}

fn remove_stale(path: &Path) -> Result<(), BindError> {
    let io = |what, source| BindError::Io {
        what,
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io("look at", error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(BindError::Live {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| io("remove the stale", error))
        }
        Err(error) => Err(io("look at", error)),
    }
}

/// Sets the mode, then drops whoever connected before it was set: until then the process's umask
/// decided who may. (Changing the umask instead would hit every file that other threads create.)
fn restrict(listener: &StdListener, path: &Path) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
