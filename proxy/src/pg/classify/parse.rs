//! PostgreSQL's grammar, bounded.
//!
//! The parser is the server's own C code and checks the depth of its stack, which bounds every
//! recursion over the tree that it hands over (see `room`). Time is bounded by the length of the
//! text.
//!
//! How a text is cut into tokens depends on two settings of the session. Where they are not
//! known, every reading that is possible must agree.

use std::iter;

use pg_query::protobuf::RawStmt;
use pg_query::{Error, ParserOptions};

use super::rule;

/// Longest text that is looked at, in bytes. Longer ones are writes: at this length the worst
/// texts take less than a tenth of a second, growing with the length, and what is longer is
/// nearly always a generated bulk insert, a write anyway.
pub const MAX_TEXT: usize = 64 << 10;

/// Longest run of operator characters that is looked at, in bytes. The lexer reads such a run from
/// each of its characters to its end (a comment may start in the middle), so its cost is the
/// square of the length: `/*` repeated over 64 KiB takes seconds. No operator is longer than 63
/// bytes; what is longer than this is the decoration of a comment.
const MAX_RUN: usize = 256;

/// What a session's settings say about how its texts are read. The default is: not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// `standard_conforming_strings`: whether a backslash in a plain string is just a backslash.
    pub standard_strings: Option<bool>,
    /// Whether `client_encoding` is one in which no character contains a byte below 128 except
    /// ASCII itself.
    pub plain_ascii: Option<bool>,
}

impl Reading {
    /// From the values the server reported as ParameterStatus; `None` where it reported none.
    pub fn reported(
        standard_conforming_strings: Option<&str>,
        client_encoding: Option<&str>,
    ) -> Self {
        // The client-only encodings: their second bytes reach down to the backslash.
        const MIXED: &[&str] = &[
            "BIG5",
            "GB18030",
            "GBK",
            "JOHAB",
            "SHIFT_JIS_2004",
            "SJIS",
            "UHC",
        ];
        Self {
            standard_strings: standard_conforming_strings.map(|value| value != "off"),
            plain_ascii: client_encoding
                .map(|name| !MIXED.iter().any(|mixed| name.eq_ignore_ascii_case(mixed))),
        }
    }
}

/// The text as characters, or the rule that refuses it.
pub(super) fn readable(sql: &[u8], reading: Reading) -> Result<&str, &'static str> {
    if sql.len() > MAX_TEXT {
        return Err(rule::TOO_LARGE);
    }
    if sql.contains(&0) {
        return Err(rule::ZERO_BYTE);
    }
    if is_costly(sql) {
        return Err(rule::TOO_COSTLY);
    }
    let text = str::from_utf8(sql).map_err(|_| rule::NOT_UTF8)?;
    // With a backslash in the text, a character ending in a backslash byte could swallow the one
    // that the string escapes with, and the string would end elsewhere.
    let safe = match reading.plain_ascii {
        Some(plain) => plain || text.is_ascii(),
        None => text.is_ascii() || !text.contains('\\'),
    };
    if safe { Ok(text) } else { Err(rule::ENCODING) }
}

/// Whether a run of operator characters is too long.
pub(super) fn is_costly(sql: &[u8]) -> bool {
    let is_operator = |byte: &u8| b"~!@#^&|`?+-*/%<>=".contains(byte);
    sql.chunk_by(|a, b| is_operator(a) && is_operator(b))
        .any(|run| run.len() > MAX_RUN)
}

/// The ways in which the text has to be parsed: one, or both if they could differ.
pub(super) fn modes(text: &str, reading: Reading) -> impl Iterator<Item = ParserOptions> {
    let quiet = ParserOptions::DISABLE_ESCAPE_STRING_WARNING;
    let escaped = quiet | ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS;
    let differ = text.contains('\\');
    let (first, second) = match reading.standard_strings {
        Some(false) if differ => (escaped, None),
        None if differ => (quiet, Some(escaped)),
        Some(_) | None => (quiet, None),
    };
    iter::once(first).chain(second)
}

/// The statements of the text as raw parse trees, or the rule that refuses it.
pub(super) fn statements(text: &str, mode: ParserOptions) -> Result<Vec<RawStmt>, &'static str> {
    match pg_query::parse(text, mode) {
        Ok(result) => Ok(result.protobuf.stmts),
        Err(error) => Err(refusal(&error)),
    }
}

fn refusal(error: &Error) -> &'static str {
    match error {
        Error::Decode(_) => rule::TOO_DEEP,
        Error::Parse(message) if is_depth(message) => rule::TOO_DEEP,
        Error::Parse(_)
        | Error::Conversion(_)
        | Error::InvalidJson(_)
        | Error::InvalidPointer
        | Error::Scan(_)
        | Error::IsUtility(_)
        | Error::Split(_) => rule::UNPARSABLE,
    }
}

/// The parser gives no code, only its text; both rules are writes, so a change of wording costs
/// nothing but the better word.
fn is_depth(message: &str) -> bool {
    message.contains("stack depth")
        || message.contains("memory exhausted")
        || message.contains("nested too deeply")
}
