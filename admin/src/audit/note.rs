//! C2SP `signed-note` with Ed25519: a text, and lines that sign it.
//!
//! The key's name goes into its id, so that a signature is only valid under the name it was made
//! for. Both keys are text: the private one as Go's `sumdb/note` writes it, in a file that only the
//! daemon's user may read, the public one as the `vkey` that verifiers take.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use thiserror::Error;

use super::merkle::sha256;

/// The algorithm's number in a key: Ed25519.
const ALGORITHM: u8 = 1;

/// What a signature line begins with: an em dash and a space.
const SIGNED_BY: &str = "\u{2014} ";

/// The largest note that is read, bytes; a checkpoint has a few hundred.
const LARGEST: usize = 64 * 1024;

/// A key or a note that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoteError {
    /// The text is no key of this kind.
    #[error("this is not {0}")]
    NotAKey(&'static str),
    /// The name may not be used in a note.
    #[error("{0:?} cannot name a key: it is empty or has spaces or a plus sign in it")]
    BadName(String),
    /// The text is not a signed note.
    #[error("this is not a signed note: {0}")]
    NotANote(&'static str),
    /// No signature is by the expected key.
    #[error("it is not signed by {0}")]
    OtherKey(String),
    /// The signature does not fit the text.
    #[error("the signature of {0} does not fit the text: one of both was changed")]
    BadSignature(String),
    /// The system gave no random numbers.
    #[error("the system gives no random numbers to make a key of")]
    NoRandom,
}

/// Signs notes.
pub struct SigningKey {
    name: String,
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

/// Checks notes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    public: [u8; 32],
}

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// The name cannot be used, or there are no random numbers.
    pub fn generate(name: &str) -> Result<Self, NoteError> {
        let mut seed = [0; 32];
        SystemRandom::new()
            .fill(&mut seed)
            .map_err(|_| NoteError::NoRandom)?;
        Self::from_seed(name, seed)
    }

    /// The key of this seed.
    ///
    /// # Errors
    /// The name cannot be used.
    pub fn from_seed(name: &str, seed: [u8; 32]) -> Result<Self, NoteError> {
        let name = named(name)?;
        let pair =
            Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| NoteError::NotAKey(PRIVATE))?;
        Ok(Self { name, seed, pair })
    }

    /// Reads what [`Self::to_text`] wrote, and compares the key's id.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let bad = || NoteError::NotAKey(PRIVATE);
        let rest = text.trim().strip_prefix("PRIVATE+KEY+").ok_or_else(bad)?;
        let (name, id, seed) = parts(rest).ok_or_else(bad)?;
        let key = Self::from_seed(name, seed)?;
        if key.verifier().id() == id {
            Ok(key)
        } else {
            Err(bad())
        }
    }

    /// The private key as text. A secret.
    #[must_use]
    pub fn to_text(&self) -> String {
        let id = hex(self.verifier().id());
        format!("PRIVATE+KEY+{}+{id}+{}", self.name, key_bytes(&self.seed))
    }

    /// The key that checks what this one signs.
    #[must_use]
    pub fn verifier(&self) -> VerifierKey {
        let mut public = [0; 32];
        public.copy_from_slice(self.pair.public_key().as_ref());
        VerifierKey {
            name: self.name.clone(),
            public,
        }
    }

    /// The text with its signature. The text must end with a newline.
    #[must_use]
    pub fn sign(&self, text: &str) -> String {
        let mut signature = self.verifier().id().to_vec();
        signature.extend_from_slice(self.pair.sign(text.as_bytes()).as_ref());
        format!(
            "{text}\n{SIGNED_BY}{} {}\n",
            self.name,
            STANDARD.encode(signature)
        )
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the seed.
        write!(f, "SigningKey({})", self.name)
    }
}

impl VerifierKey {
    /// Reads a `vkey`: `name+id+key`.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let bad = || NoteError::NotAKey("a public key (a vkey: name+id+key)");
        let (name, id, public) = parts(text.trim()).ok_or_else(bad)?;
        let key = Self {
            name: named(name)?,
            public,
        };
        if key.id() == id { Ok(key) } else { Err(bad()) }
    }

    /// The key's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The note's text, if this key signed it. Signatures of other keys are passed over, as the
    /// format wants it: a witness may have added its own.
    ///
    /// # Errors
    /// [`NoteError`].
    pub fn open<'a>(&self, note: &'a str) -> Result<&'a str, NoteError> {
        let (text, signatures) = split(note)?;
        let mine = format!("{} ", self.name);
        for line in signatures.lines() {
            let line = line
                .strip_prefix(SIGNED_BY)
                .ok_or(NoteError::NotANote("a line behind its text signs nothing"))?;
            let Some(signature) = line.strip_prefix(&mine) else {
                continue;
            };
            let Ok(bytes) = STANDARD.decode(signature) else {
                return Err(NoteError::NotANote("a signature is not base64"));
            };
            if bytes.len() < 4 || bytes[..4] != self.id() {
                continue;
            }
            return UnparsedPublicKey::new(&ED25519, self.public)
                .verify(text.as_bytes(), &bytes[4..])
                .map(|()| text)
                .map_err(|_| NoteError::BadSignature(self.name.clone()));
        }
        Err(NoteError::OtherKey(self.to_string()))
    }

    /// The first four bytes of the hash of name, algorithm and key.
    fn id(&self) -> [u8; 4] {
        let hash = sha256(&[self.name.as_bytes(), b"\n", &[ALGORITHM], &self.public]);
        [hash.0[0], hash.0[1], hash.0[2], hash.0[3]]
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = hex(self.id());
        write!(f, "{}+{id}+{}", self.name, key_bytes(&self.public))
    }
}

const PRIVATE: &str = "a private key of the audit (PRIVATE+KEY+name+id+key)";

/// The text of a note, unchecked, and its signature lines.
pub(super) fn split(note: &str) -> Result<(&str, &str), NoteError> {
    if note.len() > LARGEST {
        return Err(NoteError::NotANote("it is too large"));
    }
    if note.chars().any(|c| c.is_control() && c != '\n') {
        return Err(NoteError::NotANote("it has control characters in it"));
    }
    let at = note
        .rfind("\n\n")
        .ok_or(NoteError::NotANote("no empty line ends its text"))?;
    let (text, signatures) = (&note[..=at], &note[at + 2..]);
    if signatures.is_empty() || !signatures.ends_with('\n') {
        return Err(NoteError::NotANote("it has no signature, or breaks off"));
    }
    Ok((text, signatures))
}

fn named(name: &str) -> Result<String, NoteError> {
    let usable = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+');
    match usable {
        true => Ok(name.to_owned()),
        false => Err(NoteError::BadName(name.to_owned())),
    }
}

/// `name+id+base64(algorithm, key)`; the base64 may have plus signs in it.
fn parts(text: &str) -> Option<(&str, [u8; 4], [u8; 32])> {
    let mut parts = text.splitn(3, '+');
    let (name, id, key) = (parts.next()?, parts.next()?, parts.next()?);
    if id.len() != 8 || !id.is_ascii() {
        return None;
    }
    let id = u32::from_str_radix(id, 16).ok()?.to_be_bytes();
    let bytes = STANDARD.decode(key).ok()?;
    let (algorithm, key) = bytes.split_first()?;
    if *algorithm != ALGORITHM {
        return None;
    }
    Some((name, id, key.try_into().ok()?))
}

fn key_bytes(key: &[u8; 32]) -> String {
    let mut bytes = vec![ALGORITHM];
    bytes.extend_from_slice(key);
    STANDARD.encode(bytes)
}

fn hex(id: [u8; 4]) -> String {
    format!("{:08x}", u32::from_be_bytes(id))
}
