//! The file as written: a tree with positions, and sections to read it by.
//!
//! This is not a serde mirror, because serde stops at the first field it dislikes and a person
//! wants all problems at once. So the tree is walked twice: `keys` refuses what nobody knows, and
//! the section files read what they know through [`Section`]. Nothing here has a meaning or a
//! default. A value that cannot be read is reported and then counts as absent.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::defaults::Bounds;
use crate::error::{Place, Problem, ProblemKind, Warning};
use crate::units;
use crate::value::{self, Word, Wrong};

/// Everything found while reading one file.
pub(crate) struct Findings<'t> {
    file: &'t str,
    text: &'t str,
    /// Where each line begins, so that a file of nothing but mistakes is told of in linear time.
    lines: Vec<usize>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Warning>,
}

impl<'t> Findings<'t> {
    pub(crate) fn new(file: &'t str, text: &'t str) -> Self {
        let newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(newlines).collect();
        Self {
            file,
            text,
            lines,
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(crate) fn place(&self, offset: usize) -> Place {
        // A span may end inside of a character when the text is not TOML.
        let mut ends = (0..=offset.min(self.text.len())).rev();
        let end = ends
            .find(|end| self.text.is_char_boundary(*end))
            .unwrap_or(0);
        let line = self.lines.partition_point(|start| *start <= end);
        let start = self.lines[line - 1];
        let column = self.text[start..end].chars().count() + 1;
        Place {
            file: self.file.to_owned(),
            line,
            column,
        }
    }

    pub(crate) fn problem(&mut self, at: usize, key: String, kind: ProblemKind, wrong: Wrong) {
        let place = self.place(at);
        let Wrong { what, accepted, .. } = wrong;
        // A quoted key may hold control characters, which a terminal would obey.
        let key = key.escape_debug().to_string();
        self.problems.push(Problem {
            place,
            key,
            kind,
            what,
            accepted,
        });
    }

    pub(crate) fn warning(&mut self, at: usize, key: String, what: String) {
        let place = self.place(at);
        self.warnings.push(Warning { place, key, what });
    }
}

/// One table of the file, or the absence of one, with the path that leads to it.
#[derive(Clone)]
pub(crate) struct Section<'a> {
    path: String,
    at: usize,
    table: Option<&'a DeTable<'a>>,
}

impl<'a> Section<'a> {
    pub(crate) fn root(table: &'a Spanned<DeTable<'a>>) -> Self {
        Self {
            path: String::new(),
            at: 0,
            table: Some(table.get_ref()),
        }
    }

    /// The dotted path of a key in this section.
    pub(crate) fn path(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// The dotted path of this section.
    pub(crate) fn name(&self) -> &str {
        &self.path
    }

    /// Where this section begins.
    pub(crate) fn start(&self) -> usize {
        self.at
    }

    /// Whether the file has this section.
    pub(crate) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// The keys that the file has here, in its order.
    pub(crate) fn keys(&self) -> Vec<String> {
        let mut keys: Vec<_> = self
            .table
            .into_iter()
            .flat_map(|table| table.iter().map(|(name, _)| name))
            .collect();
        keys.sort_by_key(|name| name.span().start);
        keys.iter().map(|name| name.get_ref().to_string()).collect()
    }

    /// Whether the file has this key, whatever its value.
    pub(crate) fn is_given(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// Where a key's value stands; for an absent key, where its section stands.
    pub(crate) fn at(&self, key: &str) -> usize {
        self.value(key).map_or(self.at, |value| value.span().start)
    }

    fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        let (_, value) = self.table?.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(value)
    }

    fn child(path: String, span: Range<usize>, value: &'a DeValue<'a>) -> Self {
        Self {
            path,
            at: span.start,
            table: value.as_table(),
        }
    }

    /// The section under `key`; an absent one reads as empty.
    pub(crate) fn section(&self, key: &str) -> Self {
        let path = self.path(key);
        match self.value(key) {
            Some(value) => Self::child(path, value.span(), value.get_ref()),
            None => Self {
                path,
                at: self.at,
                table: None,
            },
        }
    }

    /// The sections under `key`, by name, in the order of the file.
    pub(crate) fn named(&self, key: &str) -> Vec<(String, Self)> {
        let parent = self.section(key);
        let mut entries: Vec<_> = parent
            .table
            .into_iter()
            .flat_map(|table| table.iter())
            .collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let section = |(name, value): (&Spanned<DeString<'_>>, &'a Spanned<DeValue<'a>>)| {
            let path = parent.path(name.get_ref());
            (
                name.get_ref().to_string(),
                Self::child(path, name.span(), value.get_ref()),
            )
        };
        entries.into_iter().map(section).collect()
    }

    /// The sections of the array under `key`, in the order of the file.
    pub(crate) fn listed(&self, key: &str) -> Vec<Self> {
        let elements = self.value(key).and_then(|value| value.get_ref().as_array());
        let elements = elements
            .into_iter()
            .flat_map(|array| array.iter())
            .enumerate();
        let path = |n| format!("{}[{n}]", self.path(key));
        elements
            .map(|(n, value)| Self::child(path(n), value.span(), value.get_ref()))
            .collect()
    }

    /// The value under `key`, if it is there and `meaning` accepts it.
    pub(crate) fn read<T>(
        &self,
        key: &str,
        found: &mut Findings<'_>,
        meaning: impl FnOnce(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<T> {
        let value = self.value(key)?;
        match meaning(value.get_ref()) {
            Ok(value) => Some(value),
            Err(wrong) => {
                found.problem(value.span().start, self.path(key), wrong.kind, wrong);
                None
            }
        }
    }

    /// The value under `key`, without a word if it is absent or not accepted; for rules that come
    /// after it was read.
    pub(crate) fn peek<T>(
        &self,
        key: &str,
        meaning: impl FnOnce(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<T> {
        meaning(self.value(key)?.get_ref()).ok()
    }

    /// As [`Section::read`], for a key that must be there.
    pub(crate) fn require<T>(
        &self,
        key: &str,
        found: &mut Findings<'_>,
        accepted: &str,
        meaning: impl FnOnce(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<T> {
        if self.value(key).is_none() {
            found.problem(
                self.at,
                self.path(key),
                ProblemKind::Missing,
                Wrong::value("must be given", accepted),
            );
        }
        self.read(key, found, meaning)
    }

    /// A duration, or its default.
    pub(crate) fn duration(
        &self,
        key: &str,
        bounds: &Bounds<Duration>,
        found: &mut Findings<'_>,
    ) -> Duration {
        self.read(key, found, units::duration(bounds))
            .unwrap_or(bounds.default)
    }

    /// A size in bytes, or its default.
    pub(crate) fn size(
        &self,
        key: &str,
        bounds: &Bounds<usize>,
        found: &mut Findings<'_>,
    ) -> usize {
        self.read(key, found, units::size(bounds))
            .unwrap_or(bounds.default)
    }

    /// A whole number, or its default.
    pub(crate) fn count(
        &self,
        key: &str,
        bounds: &Bounds<usize>,
        found: &mut Findings<'_>,
    ) -> usize {
        self.read(key, found, value::count(bounds))
            .unwrap_or(bounds.default)
    }

    /// One word of a choice, or its default.
    pub(crate) fn word<W: Word>(&self, key: &str, default: W, found: &mut Findings<'_>) -> W {
        self.read(key, found, W::read).unwrap_or(default)
    }
}
