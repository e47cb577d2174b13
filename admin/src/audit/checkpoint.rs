//! C2SP `tlog-checkpoint`: how large the tree was and what its root was, signed.

use thiserror::Error;

use super::merkle::Hash;
use super::note::{NoteError, SigningKey, VerifierKey, split};

/// The state of a log at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: the key's name.
    pub origin: String,
    /// How many records it had.
    pub size: u64,
    /// The root of its tree.
    pub root: Hash,
}

/// A text that is no checkpoint of this log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CheckpointError {
    /// It is not signed as it should be.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The signed text is not a checkpoint.
    #[error(
        "the signed text is not a checkpoint: origin, size and root were expected, a line each"
    )]
    NotACheckpoint,
    /// It is a checkpoint of another log.
    #[error("it is a checkpoint of {found}, not of {expected}")]
    OtherLog {
        /// The log expected.
        expected: String,
        /// The log named.
        found: String,
    },
}

impl Checkpoint {
    /// The signed text.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> String {
        key.sign(&format!("{}\n{}\n{}\n", self.origin, self.size, self.root))
    }

    /// Reads a checkpoint that this key signed.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, CheckpointError> {
        let checkpoint = Self::parse(key.open(note)?)?;
        if checkpoint.origin != key.name() {
            return Err(CheckpointError::OtherLog {
                expected: key.name().to_owned(),
                found: checkpoint.origin,
            });
        }
        Ok(checkpoint)
    }

    /// Reads a checkpoint without looking at who signed it.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn unsigned(note: &str) -> Result<Self, CheckpointError> {
        Self::parse(split(note)?.0)
    }

    fn parse(text: &str) -> Result<Self, CheckpointError> {
        // Lines behind the third are extensions, which the format allows.
        let mut lines = text.lines();
        let mut next = || lines.next().ok_or(CheckpointError::NotACheckpoint);
        let (origin, size, root) = (next()?, next()?, next()?);
        let plain = size == "0" || !size.starts_with('0');
        if !plain || !size.bytes().all(|b| b.is_ascii_digit()) || origin.is_empty() {
            return Err(CheckpointError::NotACheckpoint);
        }
        let size = size.parse().ok();
        let found = size.zip(Hash::parse(root));
        let (size, root) = found.ok_or(CheckpointError::NotACheckpoint)?;
        Ok(Self {
            origin: origin.to_owned(),
            size,
            root,
        })
    }
}
