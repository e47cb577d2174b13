//! SCRAM-SHA-256 as PostgreSQL speaks it (RFC 5802, 7677), both sides, without IO.
//!
//! `server` verifies a client against a verifier and recovers the client's key; `client` logs in
//! elsewhere with that key. So a session can be logged in again, on another server too, without
//! anybody knowing its password, where salt and iterations are the same: on every physical copy.
//! Passwords of our own are left to postgres-protocol, which normalises them.

mod client;
mod keys;
mod server;
#[cfg(test)]
mod tests;

pub use client::{Client, ClientError};
pub use keys::{BadVerifier, Keys, Verifier};
pub use server::{Binding, Offence, Proven, Server};

/// The mechanism without channel binding.
pub const PLAIN: &str = "SCRAM-SHA-256";
/// The mechanism with channel binding.
pub const PLUS: &str = "SCRAM-SHA-256-PLUS";

/// The only channel binding that PostgreSQL knows.
const END_POINT: &str = "p=tls-server-end-point,,";

/// Random bytes of a nonce, before they are printable. PostgreSQL's own number.
const NONCE: usize = 18;

fn nonce() -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; NONCE]>())
}
