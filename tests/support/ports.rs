//! Free TCP ports on loopback.
//!
//! Ports lie below the range the system hands to outgoing connections; one from that range could
//! be taken by a client of ours between the look and the server's start. Within a process no port
//! is given twice; between processes the random start makes a clash unlikely, not impossible.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};

/// Linux hands out 32768 and up; below 15000 well-known services live.
const RANGE: std::ops::Range<u16> = 15_000..32_000;

static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port that nobody listens on and that this process was not given before.
///
/// # Errors
/// A thousand random ports in a row were taken.
pub fn free_port() -> Result<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = given.get_or_insert_with(HashSet::new);
    for _ in 0..1000 {
        let port = rand::random_range(RANGE);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() && given.insert(port) {
            return Ok(port);
        }
    }
    bail!("no free port on 127.0.0.1 in {RANGE:?}: end what listens there")
}
