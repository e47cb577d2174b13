//! The audit: who changed what, when, why, and how it ended; append-only and checkable offline.
//!
//! Each record names the hash of the one before it (a chain: nothing is taken out, put in or
//! swapped unseen), and all records are the leaves of an RFC 6962 Merkle tree whose root is signed
//! (a C2SP `tlog-checkpoint` in a `signed-note`, Ed25519): whoever keeps a checkpoint elsewhere also
//! sees that the end was cut off. Everything but [`Log`] is pure: bytes in, findings out. It does
//! not say whether a record is true, only that it is the one that was written.

mod checkpoint;
mod damage;
mod entry;
mod log;
mod merkle;
mod note;
mod segment;
#[cfg(test)]
mod tests;
mod verify;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use damage::{Damage, Verdict};
pub use entry::{Entry, Event, Line, LineError};
pub use log::{Log, LogError, Page, Position};
pub use merkle::{EMPTY_ROOT, Hash, Tree, leaf_hash};
pub use note::{NoteError, SigningKey, VerifierKey};
pub use segment::{RECORDS_PER_SEGMENT, is_segment, notes_name, segment_name};
pub use verify::{Segment, VerifyError, verify, verify_dir};
