//! The check of a whole audit, offline: nothing is needed but the files.
//!
//! Three things are looked at: that each line is a record as this program writes it, that numbers
//! and hashes join each to the one before, and that the tree at the size of every signed checkpoint
//! has the root that was signed. The first two name the record; the third also sees a chain that
//! was written anew, and a tail that was cut off.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::checkpoint::Checkpoint;
use super::damage::{Damage, Verdict};
use super::entry::Line;
use super::merkle::{EMPTY_ROOT, Hash, Tree, leaf_hash};
use super::note::VerifierKey;
use super::segment::{is_segment, notes, notes_name};

/// Damage that is listed; where this much is wrong, the rest adds nothing.
const LISTED: usize = 100;

/// One file of records with the checkpoints beside it, as read.
#[derive(Debug, Clone, Default)]
pub struct Segment {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub records: Vec<u8>,
    /// The checkpoints, signed, in the order in which they were written.
    pub notes: Vec<String>,
}

/// A directory that cannot be checked.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is nothing to check.
    #[error("{} has no audit in it: `*.jsonl` was expected", path.display())]
    Nothing {
        /// The directory.
        path: PathBuf,
    },
}

/// A line of a file, as far as it can be told.
struct Found<'a> {
    file: &'a str,
    hash: Hash,
    line: Result<(u64, Hash), String>,
}

/// Reads a directory and checks it.
///
/// # Errors
/// It cannot be read; what is wrong with its content is in the verdict.
pub fn verify_dir(
    dir: &Path,
    key: Option<&VerifierKey>,
    outside: &[String],
) -> Result<Verdict, VerifyError> {
    let segments = read_dir(dir)?;
    if segments.is_empty() {
        return Err(VerifyError::Nothing {
            path: dir.to_owned(),
        });
    }
    Ok(verify(&segments, key, outside).0)
}

/// The segments of a directory, in order.
pub(super) fn read_dir(dir: &Path) -> Result<Vec<Segment>, VerifyError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| VerifyError::Read { path, source }
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable(dir))? {
        let entry = entry.map_err(unreadable(dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_segment(&name) {
            names.push(name);
        }
    }
    names.sort();
    let mut segments = Vec::new();
    for name in names {
        let path = dir.join(&name);
        let records = fs::read(&path).map_err(unreadable(&path))?;
        let beside = dir.join(notes_name(&name));
        let text = match fs::read(&beside) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(unreadable(&beside)(e)),
        };
        segments.push(Segment {
            name,
            records,
            notes: notes(&text),
        });
    }
    Ok(segments)
}

/// Checks what was read. Returns the tree of the records as they are, too.
#[must_use]
pub fn verify(
    segments: &[Segment],
    key: Option<&VerifierKey>,
    outside: &[String],
) -> (Verdict, Tree) {
    let mut verdict = Verdict::new(EMPTY_ROOT);
    verdict.segments = segments.len() as u64;
    verdict.signatures_checked = key.is_some();
    let mut lines = Vec::new();
    for segment in segments {
        read_lines(segment, &mut lines, &mut verdict);
    }
    check_chain(&lines, &mut verdict);
    let mut roots = HashMap::new();
    let mut tree = Tree::default();
    let signed = signed(segments, key, outside, &mut verdict);
    let sizes: HashSet<u64> = signed.iter().map(|(_, c)| c.size).collect();
    for found in &lines {
        tree.push(found.hash);
        if sizes.contains(&tree.size()) {
            roots.insert(tree.size(), tree.root());
        }
    }
    roots.insert(0, EMPTY_ROOT);
    verdict.records = tree.size();
    verdict.root = tree.root().to_string();
    check_roots(&signed, &roots, tree.size(), &mut verdict);
    verdict.damage.truncate(LISTED);
    (verdict, tree)
}

fn read_lines<'a>(segment: &'a Segment, lines: &mut Vec<Found<'a>>, verdict: &mut Verdict) {
    for line in segment.records.split_inclusive(|byte| *byte == b'\n') {
        let Some(bytes) = line.strip_suffix(b"\n") else {
            let n = lines.len() as u64 + 1;
            let text = format!("its line ends after {} bytes without a newline", line.len());
            verdict
                .damage
                .push(Damage::new("torn", n, &segment.name, text));
            return;
        };
        let line = match Line::decode(bytes) {
            Ok(line) => Ok((line.seq, line.prev)),
            Err(error) => Err(error.to_string()),
        };
        lines.push(Found {
            file: &segment.name,
            hash: leaf_hash(bytes),
            line,
        });
    }
}

/// Numbers and hashes, record by record.
fn check_chain(lines: &[Found<'_>], verdict: &mut Verdict) {
    // Where a number stands that is not in its place: then nothing is missing, but moved.
    let mut places = HashMap::new();
    for (at, found) in lines.iter().enumerate() {
        if let Ok((seq, _)) = found.line {
            places.entry(seq).or_insert(at);
        }
    }
    let mut expected = 1;
    // The hash that the next record should name; `None` where the one before is not to be trusted.
    let mut before = Some(EMPTY_ROOT);
    for (at, found) in lines.iter().enumerate() {
        if verdict.damage.len() >= LISTED {
            return;
        }
        let mut say = |kind: &str, record: u64, text: String| {
            verdict
                .damage
                .push(Damage::new(kind, record, found.file, text));
        };
        let (seq, prev) = match &found.line {
            Ok(line) => *line,
            Err(why) => {
                say("edited", expected, why.clone());
                (before, expected) = (None, expected + 1);
                continue;
            }
        };
        if seq == expected {
            if before.is_some_and(|before| before != prev) {
                let (record, text) = match seq {
                    1 => (1, "it does not begin the chain".to_owned()),
                    _ => (
                        seq - 1,
                        format!("record {seq} was written behind another one: this was edited"),
                    ),
                };
                say("edited", record, text);
            }
            (before, expected) = (Some(found.hash), seq + 1);
            continue;
        }
        let is_moved = places.get(&expected).is_some_and(|place| *place > at);
        if seq > expected && !is_moved {
            let text = match seq - expected {
                1 => format!("record {seq} stands where it should be"),
                n => format!("{n} records are not there: record {seq} follows"),
            };
            say("missing", expected, text);
            (before, expected) = (Some(found.hash), seq + 1);
        } else {
            let text = format!("it stands where record {expected} should be");
            say("reordered", seq, text);
            // The place is taken: the next one is expected as if this were the right one.
            (before, expected) = (None, expected + 1);
        }
    }
}

/// The checkpoints that can be used, each with where it is from.
fn signed(
    segments: &[Segment],
    key: Option<&VerifierKey>,
    outside: &[String],
    verdict: &mut Verdict,
) -> Vec<(String, Checkpoint)> {
    let inside = segments.iter().flat_map(|segment| {
        let from = notes_name(&segment.name);
        segment.notes.iter().map(move |note| (from.clone(), note))
    });
    let given = outside
        .iter()
        .map(|note| ("the given checkpoint".to_owned(), note));
    let mut usable = Vec::new();
    let mut origin: Option<String> = None;
    for (from, note) in inside.chain(given) {
        let opened = match key {
            Some(key) => Checkpoint::open(note, key),
            None => Checkpoint::unsigned(note),
        };
        match opened {
            Ok(checkpoint) => {
                let known = origin.get_or_insert_with(|| checkpoint.origin.clone());
                if *known != checkpoint.origin {
                    let text = format!("it is of {}, the others are of {known}", checkpoint.origin);
                    verdict
                        .damage
                        .push(Damage::new("checkpoint", None, &from, text));
                    continue;
                }
                verdict.signed_size = verdict.signed_size.max(Some(checkpoint.size));
                usable.push((from, checkpoint));
            }
            Err(error) => {
                let text = error.to_string();
                verdict
                    .damage
                    .push(Damage::new("checkpoint", None, &from, text));
            }
        }
    }
    usable.sort_by_key(|(_, checkpoint)| checkpoint.size);
    usable
}

/// Compares what was signed with the tree; tells the first difference only, since every later
/// checkpoint differs with it.
fn check_roots(
    signed: &[(String, Checkpoint)],
    roots: &HashMap<u64, Hash>,
    records: u64,
    verdict: &mut Verdict,
) {
    let mut good = 0;
    for (from, checkpoint) in signed {
        let size = checkpoint.size;
        if size > records {
            let text = format!(
                "{from} vouches for {size} records, {records} are there: the end was cut off"
            );
            verdict
                .damage
                .push(Damage::new("rolled_back", records + 1, from, text));
            return;
        }
        if roots.get(&size) != Some(&checkpoint.root) {
            // Where the chain itself names a record, that is the better sentence.
            let first = good + 1;
            let text = match size - good {
                0 | 1 => format!("it is not the one that was signed at size {size}"),
                _ => format!(
                    "records {first} to {size} are not those that were signed at size {size}"
                ),
            };
            verdict
                .damage
                .push(Damage::new("replaced", first.min(size), from, text));
            return;
        }
        good = size;
    }
}
