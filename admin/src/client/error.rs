//! Why a call brought no document, and what that means for what was asked.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::api::{ApiError, Code};

/// Why a call failed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody answers on the socket; nothing was asked.
    #[error("no daemon answers on {}", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The daemon did not answer in time. What was asked may have been done.
    #[error(
        "the daemon on {} did not answer {what} within {}",
        socket.display(),
        humantime::format_duration(*within)
    )]
    Timeout {
        /// The socket.
        socket: PathBuf,
        /// Method and path.
        what: String,
        /// The limit that passed.
        within: Duration,
    },
    /// The connection broke before the answer was whole. What was asked may have been done.
    #[error("the daemon on {} broke off its answer to {what}", socket.display())]
    BrokenOff {
        /// The socket.
        socket: PathBuf,
        /// Method and path.
        what: String,
        /// What the connection said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is an answer, and it is not a document that this program reads.
    #[error("the answer to {what} cannot be read")]
    BadAnswer {
        /// Method and path.
        what: String,
        /// Why not.
        source: serde_json::Error,
    },
    /// The daemon answered with an error document.
    #[error(transparent)]
    Refused(#[from] ApiError),
}

/// What to do when it is not known whether something was done.
const UNKNOWN: &str =
    "whether it was done is unknown: look at `writefencectl status` before repeating";

impl ClientError {
    /// Whether the daemon could not be heard; following may try again.
    pub const fn is_silence(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::BrokenOff { .. } => true,
            Self::BadAnswer { .. } | Self::Refused(_) => false,
        }
    }

    /// The error as a document, like one of the daemon's.
    pub fn into_document(self) -> ApiError {
        let message = chain(&self);
        match self {
            Self::Unreachable { source, .. } => {
                ApiError::new(Code::Unreachable, message).hint(reach(source.kind()))
            }
            Self::Timeout { .. } | Self::BrokenOff { .. } => {
                ApiError::new(Code::NoAnswer, message).hint(UNKNOWN)
            }
            Self::BadAnswer { .. } => ApiError::new(Code::BadAnswer, message).hint(UNKNOWN),
            Self::Refused(error) => error,
        }
    }
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        line.push_str(": ");
        line.push_str(&deeper.to_string());
        cause = deeper.source();
    }
    line
}

const fn reach(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::PermissionDenied => "run it as root or as the daemon's user",
        io::ErrorKind::NotFound => {
            "is it running, and is that its `admin.socket`? --socket or WRITEFENCE_SOCKET name another"
        }
        _ => "is it running? its socket file may be left over from one that was killed",
    }
}
