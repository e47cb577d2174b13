//! Verifiers as `pg_authid.rolpassword` holds them, and what is computed with them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac};

/// Iterations that are taken from outside. PostgreSQL's default is 4096; more than this would be a
/// way to keep a processor busy.
const MOST_ITERATIONS: u32 = 1_000_000;
/// Bytes of a salt. PostgreSQL makes 16.
const MOST_SALT: usize = 1024;

/// What is stored of a password: enough to verify a login, not enough to make one.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) stored: [u8; 32],
    pub(super) server: [u8; 32],
}

/// A text that is no verifier. The text is not repeated.
#[derive(Debug, thiserror::Error)]
#[error("is not a SCRAM verifier of the form SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey")]
pub struct BadVerifier;

/// What a login left behind: good for another one wherever the verifier is the same.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    pub(super) client: [u8; 32],
    pub(super) verifier: Verifier,
}

impl Verifier {
    /// Reads the text of one.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, BadVerifier> {
        let parts = || {
            let rest = text.strip_prefix("SCRAM-SHA-256$")?;
            let (front, back) = rest.split_once('$')?;
            let (iterations, salt) = front.split_once(':')?;
            let (stored, server) = back.split_once(':')?;
            let key = |text| <[u8; 32]>::try_from(STANDARD.decode(text).ok()?).ok();
            Some(Self {
                iterations: iterations_of(iterations)?,
                salt: salt_of(salt)?,
                stored: key(stored)?,
                server: key(server)?,
            })
        };
        parts().ok_or(BadVerifier)
    }

    /// Makes one of a password, as the server would. Takes milliseconds, and that is its purpose.
    ///
    /// # Errors
    /// Never in practice: the library made what cannot be read.
    pub fn of_password(password: &str) -> Result<Self, BadVerifier> {
        Self::parse(&postgres_protocol::password::scram_sha_256(
            password.as_bytes(),
        ))
    }

    /// One that nobody can log in with, the same for the same user each time, so that an unknown
    /// user's exchange looks like a known one's.
    pub fn mock(secret: &[u8], user: &str, iterations: u32) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derived = |what: &str| mac_of(&key, &format!("{what}\0{user}"));
        Self {
            iterations,
            salt: derived("salt").get(..16).unwrap_or_default().to_vec(),
            stored: derived("stored"),
            server: derived("server"),
        }
    }

    /// Tells verifiers apart; says nothing of the password. Never 0.
    pub fn fingerprint(&self) -> u64 {
        let mut text = self.salt.clone();
        text.extend_from_slice(&self.iterations.to_be_bytes());
        text.extend_from_slice(&self.server);
        let found = digest::digest(&digest::SHA256, &text);
        let first = found.as_ref().first_chunk::<8>().copied();
        u64::from_be_bytes(first.unwrap_or_default()).max(1)
    }

    /// How often the hash was iterated.
    pub const fn iterations(&self) -> u32 {
        self.iterations
    }
}

pub(super) fn iterations_of(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    let number: u32 = text.parse().ok().filter(|_| plain)?;
    (1..=MOST_ITERATIONS).contains(&number).then_some(number)
}

pub(super) fn salt_of(text: &str) -> Option<Vec<u8>> {
    let salt = STANDARD.decode(text).ok()?;
    (!salt.is_empty() && salt.len() <= MOST_SALT).then_some(salt)
}

fn mac_of(key: &hmac::Key, text: &str) -> [u8; 32] {
    let tag = hmac::sign(key, text.as_bytes());
    tag.as_ref().try_into().unwrap_or_default()
}

pub(super) fn mac(key: &[u8; 32], text: &str) -> [u8; 32] {
    mac_of(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
}

pub(super) fn hash(data: &[u8; 32]) -> [u8; 32] {
    let found = digest::digest(&digest::SHA256, data);
    found.as_ref().try_into().unwrap_or_default()
}

pub(super) fn xor(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|n| a[n] ^ b[n])
}

/// Compares in the same time wherever the two differ.
pub(super) fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let differing = a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b));
    std::hint::black_box(differing) == 0
}

impl Keys {
    /// The verifier that they fit.
    pub const fn verifier(&self) -> &Verifier {
        &self.verifier
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(secret)")
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(secret)")
    }
}
