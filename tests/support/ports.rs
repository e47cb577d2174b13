//! Free TCP ports on loopback.
//!
//! Ports lie below the range the system hands to outgoing connections; one from that range could
//! be taken by a client of ours between the look and the server's start. Within a process no port
//! is given twice, and no two processes give from the same block of ports: whoever gives from one
//! holds a name in the system's abstract name space, which goes with the process.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};

/// Linux hands out 32768 and up; below 15000 well-known services live.
const RANGE: std::ops::Range<u16> = 15_000..32_000;

/// Ports that a process takes at once: a descriptor is held for each block.
const BLOCK: u16 = 50;

/// What is given from.
struct Block {
    ports: std::ops::Range<u16>,
    /// Keeps other processes away, also from blocks that are used up: their ports are in use.
    claims: Vec<UnixDatagram>,
}

static GIVEN: Mutex<Block> = Mutex::new(Block {
    ports: 0..0,
    claims: Vec::new(),
});

/// A port that nobody listens on and that no process was given before.
///
/// # Errors
/// All ports are taken.
pub fn free_port() -> Result<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        for port in given.ports.by_ref() {
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(port);
            }
        }
        let (ports, claim) = block()?;
        given.ports = ports;
        given.claims.push(claim);
    }
}

/// A block that no process gives from.
fn block() -> Result<(std::ops::Range<u16>, UnixDatagram)> {
    let blocks = (RANGE.end - RANGE.start) / BLOCK;
    let first = rand::random_range(0..blocks);
    for at in (first..blocks).chain(0..first) {
        let name = SocketAddr::from_abstract_name(format!("writefence-tests-ports-{at}"))?;
        if let Ok(claim) = UnixDatagram::bind_addr(&name) {
            let start = RANGE.start + at * BLOCK;
            return Ok((start..start + BLOCK, claim));
        }
    }
    bail!("no free port on 127.0.0.1 in {RANGE:?}: end what listens there")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_and_no_block_to_two() {
        let ports: Vec<u16> = (0..120).map(|_| free_port().unwrap()).collect();
        let mut once = ports.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), ports.len());
        let ((one, _claim), (other, _other)) = (block().unwrap(), block().unwrap());
        assert_ne!(one, other);
    }
}
