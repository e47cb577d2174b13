//! The client's side with a recovered key instead of a password.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::keys::{Keys, hash, iterations_of, mac, salt_of, same, xor};
use super::{END_POINT, PLAIN, PLUS, nonce};

/// Why an exchange with a server cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The server keeps another verifier, so the key is of no use to it.
    #[error("the server's salt or iterations are not those that the client logged in with")]
    OtherVerifier,
    /// A message that cannot be read.
    #[error("a malformed SCRAM message")]
    Malformed,
    /// The server does not know the password's verifier.
    #[error("the server did not prove that it knows the user")]
    Impostor,
}

/// An exchange in progress.
#[derive(Debug)]
pub struct Client {
    header: Vec<u8>,
    mechanism: &'static str,
    nonce: String,
    spoken: String,
}

impl Client {
    /// Begins. `offered` is whether the server offered channel binding, `end_point` the hash of its
    /// certificate where the connection is encrypted and it has one.
    pub fn new(offered: bool, end_point: Option<&[u8]>) -> Self {
        let (header, mechanism) = match end_point {
            Some(hash) if offered => ([END_POINT.as_bytes(), hash].concat(), PLUS),
            // We could and it does not: if it does after all, somebody in between is lying.
            Some(_) => (b"y,,".to_vec(), PLAIN),
            None => (b"n,,".to_vec(), PLAIN),
        };
        Self {
            header,
            mechanism,
            nonce: nonce(),
            spoken: String::new(),
        }
    }

    /// The mechanism to ask for.
    pub const fn mechanism(&self) -> &'static str {
        self.mechanism
    }

    /// The first message.
    pub fn first(&self) -> String {
        let header = match self.mechanism {
            PLUS => END_POINT,
            _ if self.header.first() == Some(&b'y') => "y,,",
            _ => "n,,",
        };
        format!("{header}n=,r={}", self.nonce)
    }

    /// Takes the server's first message; gives the last one of ours.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn last(&mut self, message: &[u8], keys: &Keys) -> Result<String, ClientError> {
        let message = std::str::from_utf8(message).map_err(|_| ClientError::Malformed)?;
        let mut fields = message.split(',');
        let mut field = |name| {
            let found = fields.next().and_then(|f| f.strip_prefix(name));
            found.ok_or(ClientError::Malformed)
        };
        let (nonce, salt, iterations) = (field("r=")?, field("s=")?, field("i=")?);
        let (salt, iterations) = salt_of(salt)
            .zip(iterations_of(iterations))
            .ok_or(ClientError::Malformed)?;
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(ClientError::Malformed);
        }
        let known = &keys.verifier;
        if salt != known.salt || iterations != known.iterations {
            return Err(ClientError::OtherVerifier);
        }
        let front = format!("c={},r={nonce}", STANDARD.encode(&self.header));
        self.spoken = format!("n=,r={},{message},{front}", self.nonce);
        let proof = xor(&keys.client, &mac(&hash(&keys.client), &self.spoken));
        Ok(format!("{front},p={}", STANDARD.encode(proof)))
    }

    /// Takes the server's last message: its own proof.
    ///
    /// # Errors
    /// It has none.
    pub fn finish(self, message: &[u8], keys: &Keys) -> Result<(), ClientError> {
        let text = std::str::from_utf8(message).ok();
        let proof = text.and_then(|text| text.strip_prefix("v="));
        let proof = proof.and_then(|proof| STANDARD.decode(proof).ok());
        let proof = proof.and_then(|proof| <[u8; 32]>::try_from(proof).ok());
        let proof = proof.ok_or(ClientError::Malformed)?;
        if same(&proof, &mac(&keys.verifier.server, &self.spoken)) {
            return Ok(());
        }
        Err(ClientError::Impostor)
    }
}
