//! Where the daemon is operated and observed, and where its state is kept.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::de::DeValue;

use crate::address;
use crate::defaults;
use crate::raw::{Findings, Section};
use crate::value::{self, Wrong};

/// `[admin]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The Unix socket of the admin API.
    pub socket: PathBuf,
    /// `/metrics`, `/healthz`, `/readyz`, `/writable`; none: switched off.
    pub listen: Option<SocketAddr>,
    /// Phase, journal, unknown outcomes and audit live here.
    pub state_dir: PathBuf,
}

const SOCKET: &str = "a path of up to 107 bytes, such as \"/run/writefence/admin.sock\"";
const STATE_DIR: &str = "a directory, such as \"/var/lib/writefence\"";

impl Admin {
    pub(crate) fn read(section: &Section<'_>, found: &mut Findings<'_>) -> Self {
        let socket = section.read("socket", found, socket);
        let listen = section.read("listen", found, address::listen_or_off);
        let state_dir = section.read("state_dir", found, value::text(STATE_DIR));
        Self {
            socket: socket.unwrap_or_else(|| defaults::SOCKET.to_owned()).into(),
            listen: listen.unwrap_or(Some(defaults::ADMIN_LISTEN)),
            state_dir: state_dir
                .unwrap_or_else(|| defaults::STATE_DIR.to_owned())
                .into(),
        }
    }
}

fn socket(value: &DeValue<'_>) -> Result<String, Wrong> {
    let path = value::text(SOCKET)(value)?;
    if path.len() > defaults::SOCKET_PATH_BYTES {
        return Err(Wrong::value(
            "this path is longer than a socket's may be",
            SOCKET,
        ));
    }
    Ok(path)
}
