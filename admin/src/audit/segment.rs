//! The names of the files, and how the signed checkpoints stand in theirs.
//!
//! A segment is `NNN.jsonl`, a record per line; beside it `NNN.notes` has the checkpoints that were
//! signed while it was written, oldest first. So a check can say between which two checkpoints a
//! chain that was written anew begins to differ.

/// Records in a segment. A segment is read whole, so this bounds the memory of a look; larger ones
/// would also be dull to send around, smaller ones many.
pub const RECORDS_PER_SEGMENT: u64 = 4096;

/// Lines of a checkpoint in a file of them: origin, size, root, none, signature, none.
const LINES_PER_NOTE: usize = 6;

/// The name of the segment that holds record `seq` (from 1): the number of its first record, with
/// enough digits that names sort as numbers do.
#[must_use]
pub fn segment_name(seq: u64) -> String {
    let first = seq.saturating_sub(1) / RECORDS_PER_SEGMENT * RECORDS_PER_SEGMENT + 1;
    format!("{first:020}.jsonl")
}

/// The file of the checkpoints beside a segment.
#[must_use]
pub fn notes_name(segment: &str) -> String {
    format!(
        "{}.notes",
        segment.strip_suffix(".jsonl").unwrap_or(segment)
    )
}

/// Whether a file of this name is a segment.
#[must_use]
pub fn is_segment(name: &str) -> bool {
    let digits = name.strip_suffix(".jsonl").unwrap_or_default();
    digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())
}

/// A note as it is appended: an empty line ends it.
pub(super) fn note_bytes(note: &str) -> Vec<u8> {
    format!("{note}\n").into_bytes()
}

/// The notes of a file. One that was not written whole was never handed out, and is left out.
pub(super) fn notes(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    lines
        .chunks_exact(LINES_PER_NOTE)
        .map(|lines| lines[..LINES_PER_NOTE - 1].concat())
        .collect()
}
