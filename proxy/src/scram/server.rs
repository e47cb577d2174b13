//! The server's side: two messages of the client, two of ours.
//!
//! Strict where PostgreSQL is: no authorization identity, no mandatory extension, channel binding
//! exactly when it was offered, and a client that believes it was not offered is told that somebody
//! in between has taken it away.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::keys::{Keys, Verifier, hash, mac, same, xor};
use super::{END_POINT, PLAIN, PLUS, nonce};

/// What the client's connection can be bound to.
#[derive(Clone, Copy, Debug)]
pub enum Binding<'a> {
    /// Nothing: it is plain, or our certificate has no hash for it.
    None,
    /// The hash of our certificate; then it is offered.
    EndPoint(&'a [u8]),
}

/// What a client did that no client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Offence {
    /// A mechanism that was not offered.
    #[error("the client chose a SASL mechanism that was not offered")]
    Mechanism,
    /// A message that cannot be read.
    #[error("a malformed SCRAM message")]
    Malformed,
    /// Another identity than the user's own.
    #[error("the client wants to act as another user, which SCRAM here does not do")]
    Authorization,
    /// Channel binding of a kind or at a place where there is none.
    #[error("the client's channel binding does not fit this connection")]
    Binding,
    /// It supports channel binding and was led to believe that we do not.
    #[error("the client supports channel binding and was told that this server does not; it does")]
    Downgrade,
}

/// An exchange whose first half is done.
#[derive(Debug)]
pub struct Server {
    /// Header and data that the client has to repeat, in base64.
    bound: String,
    nonce: String,
    /// Client's first message without its header, and our answer.
    so_far: String,
    verifier: Verifier,
}

/// Who has shown to know the password.
#[derive(Debug)]
pub struct Proven {
    /// What can log in again.
    pub keys: Keys,
    /// Our own proof for the client.
    pub last: String,
}

impl Server {
    /// The mechanisms to offer, in order of preference.
    pub fn offer(binding: Binding<'_>) -> &'static [&'static str] {
        match binding {
            Binding::None => &[PLAIN],
            Binding::EndPoint(_) => &[PLUS, PLAIN],
        }
    }

    /// Takes the client's first message; gives what is to be answered.
    ///
    /// # Errors
    /// See [`Offence`].
    pub fn first(
        mechanism: &[u8],
        message: &[u8],
        binding: Binding<'_>,
        verifier: Verifier,
    ) -> Result<(Self, String), Offence> {
        let message = std::str::from_utf8(message).map_err(|_| Offence::Malformed)?;
        let (flag, rest) = message.split_once(',').ok_or(Offence::Malformed)?;
        let (identity, bare) = rest.split_once(',').ok_or(Offence::Malformed)?;
        if !identity.is_empty() {
            return Err(Offence::Authorization);
        }
        let bound = bound(mechanism, flag, binding)?;
        let (name, theirs) = bare.split_once(",r=").ok_or(Offence::Malformed)?;
        // The name is that of the startup packet. A mandatory extension would stand before it.
        if !name.starts_with("n=") || name.contains(',') {
            return Err(Offence::Malformed);
        }
        let theirs = theirs.split(',').next().unwrap_or_default();
        if theirs.is_empty() || !theirs.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Offence::Malformed);
        }
        let nonce = format!("{theirs}{}", nonce());
        let salt = STANDARD.encode(&verifier.salt);
        let answer = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let server = Self {
            bound,
            nonce,
            so_far: format!("{bare},{answer}"),
            verifier,
        };
        Ok((server, answer))
    }

    /// Takes the client's last message. `Ok(None)`: the password is another.
    ///
    /// # Errors
    /// See [`Offence`].
    pub fn last(self, message: &[u8]) -> Result<Option<Proven>, Offence> {
        let message = std::str::from_utf8(message).map_err(|_| Offence::Malformed)?;
        let (front, proof) = message.rsplit_once(",p=").ok_or(Offence::Malformed)?;
        let mut fields = front.split(',');
        let mut field = |name| fields.next().and_then(|f| f.strip_prefix(name));
        let bound = field("c=").ok_or(Offence::Malformed)?;
        let nonce = field("r=").ok_or(Offence::Malformed)?;
        let proof = STANDARD.decode(proof).ok();
        let proof = proof.and_then(|proof| <[u8; 32]>::try_from(proof).ok());
        let proof = proof.ok_or(Offence::Malformed)?;
        if bound != self.bound {
            return Err(Offence::Binding);
        }
        if nonce != self.nonce {
            return Err(Offence::Malformed);
        }
        let spoken = format!("{},{front}", self.so_far);
        let client = xor(&proof, &mac(&self.verifier.stored, &spoken));
        let ours = mac(&self.verifier.server, &spoken);
        if !same(&hash(&client), &self.verifier.stored) {
            return Ok(None);
        }
        Ok(Some(Proven {
            last: format!("v={}", STANDARD.encode(ours)),
            keys: Keys {
                client,
                verifier: self.verifier,
            },
        }))
    }
}

/// What the client has to repeat in its last message, if its choice fits the connection.
fn bound(mechanism: &[u8], flag: &str, binding: Binding<'_>) -> Result<String, Offence> {
    let plus = match mechanism {
        m if m == PLAIN.as_bytes() => false,
        m if m == PLUS.as_bytes() && matches!(binding, Binding::EndPoint(_)) => true,
        _ => return Err(Offence::Mechanism),
    };
    match (flag, binding) {
        ("p=tls-server-end-point", Binding::EndPoint(hash)) if plus => {
            let mut data = END_POINT.as_bytes().to_vec();
            data.extend_from_slice(hash);
            Ok(STANDARD.encode(data))
        }
        ("n", _) if !plus => Ok(STANDARD.encode("n,,")),
        ("y", Binding::None) if !plus => Ok(STANDARD.encode("y,,")),
        ("y", Binding::EndPoint(_)) if !plus => Err(Offence::Downgrade),
        _ => Err(Offence::Binding),
    }
}
