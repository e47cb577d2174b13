//! What is wrong with a configuration, and where.
//!
//! A person fixes a file once, not once per mistake, so reading never stops at the first problem:
//! everything found goes into one [`Problems`]. Each names the place, the key, what is wrong and
//! what would be accepted. [`Warning`]s are for values that are legal and still unlikely to be meant.

use std::fmt;

/// A position in the file; lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's name as it was given to us.
    pub file: String,
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// What sort of problem it is; a tool that edits configurations acts on this, not on the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// The file cannot be read, is too large or is not UTF-8.
    Unreadable,
    /// It is not TOML.
    Syntax,
    /// No such key or section.
    Unknown,
    /// A key or value whose feature this version does not have.
    NotInThisVersion,
    /// A key that must be given is absent.
    Missing,
    /// The value does not fit its key.
    Value,
    /// Two values, each fine alone, do not fit each other.
    Conflict,
}

/// One thing to fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// Where it is; for an absent key, the section that lacks it.
    pub place: Place,
    /// The key path, such as `group.main.fence.hold`; empty when the file as a whole is meant.
    pub key: String,
    /// What sort of problem it is.
    pub kind: ProblemKind,
    /// What is wrong.
    pub what: String,
    /// What would be accepted.
    pub accepted: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            key,
            what,
            accepted,
            ..
        } = self;
        let separator = if key.is_empty() { "" } else { ": " };
        write!(f, "{place}: {key}{separator}{what}; accepted: {accepted}")
    }
}

/// All problems of one file, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub(crate) fn new(mut problems: Vec<Problem>) -> Self {
        debug_assert!(
            !problems.is_empty(),
            "problems are made when something is wrong"
        );
        problems.sort_by_key(|problem| (problem.place.line, problem.place.column));
        Self(problems)
    }

    /// Each problem, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// How many there are; at least one.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// A legal value that weakens a promise or is unlikely to be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where it is.
    pub place: Place,
    /// The key path.
    pub key: String,
    /// What follows from it, and what to do instead.
    pub what: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.key, self.what)
    }
}
