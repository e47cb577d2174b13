//! A journal as bytes: one record per line.
//!
//! A record counts only with its newline: it is the last byte written, so a line without one was
//! never answered as durable, and nothing was done on the strength of it. Such a torn tail is
//! dropped and reported. Any other line that cannot be read is damage, also the last one: if it
//! was the point of no return, leaving it out would allow an abort that must not happen.

use thiserror::Error;

use super::Record;

/// What a journal holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The whole records, in order.
    pub records: Vec<Record>,
    /// What was dropped at the end; the next append must first cut the file to `torn.offset`.
    pub torn: Option<Torn>,
}

/// A last line that was not written whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Torn {
    /// Where it begins: the length of the good part, bytes.
    pub offset: usize,
    /// How long it is, bytes.
    pub len: usize,
}

/// A journal that cannot be trusted.
#[derive(Debug, Error)]
pub enum JournalError {
    /// A whole line is not a record.
    #[error("line {line} (byte {offset}) of the journal is not a record")]
    Broken {
        /// Counted from 1.
        line: usize,
        /// Where it begins, bytes.
        offset: usize,
        /// What the reader said.
        source: serde_json::Error,
    },
}

/// Reads a journal.
///
/// # Errors
/// [`JournalError::Broken`] if a line that ends with a newline is not a record.
pub fn parse(bytes: &[u8]) -> Result<Parsed, JournalError> {
    let mut records = Vec::new();
    let mut offset = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let Some(text) = line.strip_suffix(b"\n") else {
            return Ok(Parsed {
                records,
                torn: Some(Torn {
                    offset,
                    len: line.len(),
                }),
            });
        };
        let record = serde_json::from_slice(text).map_err(|source| JournalError::Broken {
            line: records.len() + 1,
            offset,
            source,
        })?;
        records.push(record);
        offset += line.len();
    }
    Ok(Parsed {
        records,
        torn: None,
    })
}

/// A record as the line to append, newline included. Written with one write, so that only the
/// last line can be torn.
pub fn encode(record: &Record) -> Vec<u8> {
    let mut line = serde_json::to_vec(record)
        .expect("a record has only string keys and plain values, which JSON can always hold");
    line.push(b'\n');
    line
}
