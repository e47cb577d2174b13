//! Patterns of paths, hosts and methods, as a route or a list names them.
//!
//! Plain text stands for itself alone: a pattern that took a prefix by itself would make reads of
//! paths nobody thought of. `*` is anything within a segment, `**` anything at all, and a text
//! that begins with `~` is a regular expression. All are matched from the first character to the
//! last.

use regex::{Regex, RegexBuilder};
use toml::de::DeValue;

use crate::defaults;
use crate::value::{Wrong, shown};

const ACCEPTED: &str = "a path such as \"/search\", with * for a part of a segment, ** for any \
                        rest, or a regular expression after ~";

/// One pattern, known to be a sound regular expression of bounded size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    source: String,
}

impl Pattern {
    /// As written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// To match with; upper and lower case are the same if `fold`.
    pub fn regex(&self, fold: bool) -> Regex {
        build(&self.source, fold).expect("it was built once when the file was read")
    }

    /// Reads a pattern whose segments end at `separator`.
    ///
    /// # Errors
    /// What the regular expression lacks.
    pub fn parse(text: &str, separator: char) -> Result<Self, String> {
        let source = match text.strip_prefix('~') {
            Some(expression) => format!("^(?:{expression})$"),
            None => glob(text, separator),
        };
        build(&source, true).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "is too large a pattern".to_owned(),
            _ => "is no regular expression".to_owned(),
        })?;
        Ok(Self {
            text: text.to_owned(),
            source,
        })
    }
}

fn build(source: &str, fold: bool) -> Result<Regex, regex::Error> {
    RegexBuilder::new(source)
        .case_insensitive(fold)
        .dot_matches_new_line(true)
        .size_limit(defaults::PATTERN_BYTES)
        .build()
}

fn glob(text: &str, separator: char) -> String {
    let mut source = String::from("^");
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '*' if rest.next_if_eq(&'*').is_some() => source.push_str(".*"),
            '*' => source.push_str(&format!("[^{}]*", regex::escape(&separator.to_string()))),
            c => source.push_str(&regex::escape(&c.to_string())),
        }
    }
    source.push('$');
    source
}

fn read(value: &DeValue<'_>, separator: char, accepted: &str) -> Result<Pattern, Wrong> {
    let wrong = |what: &str| Wrong::value(format!("{} {what}", shown(value)), accepted);
    let text = value.as_str().ok_or_else(|| wrong("is not a text"))?;
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(wrong("is empty or holds a control character"));
    }
    Pattern::parse(text, separator).map_err(|what| wrong(&what))
}

/// A pattern of paths.
pub(crate) fn path(value: &DeValue<'_>) -> Result<Pattern, Wrong> {
    match value.as_str() {
        Some(text) if !text.starts_with(['/', '~', '*']) => {
            let what = format!("{} does not begin with a slash", shown(value));
            Err(Wrong::value(what, ACCEPTED))
        }
        _ => read(value, '/', ACCEPTED),
    }
}

/// A pattern of host names, without a port.
pub(crate) fn host(value: &DeValue<'_>) -> Result<Pattern, Wrong> {
    let accepted = "a host name such as \"api.example.com\" or \"*.example.com\", without a port";
    match value.as_str() {
        Some(text) if text.contains(['/', ':']) && !text.starts_with('~') => Err(Wrong::value(
            format!("{} is no host name", shown(value)),
            accepted,
        )),
        _ => read(value, '.', accepted),
    }
}

/// A list of patterns of gRPC methods.
pub(crate) fn grpc(value: &DeValue<'_>) -> Result<Vec<Pattern>, Wrong> {
    let accepted = "a list of methods such as [\"shop.Orders/Get*\"]";
    let list = value
        .as_array()
        .ok_or_else(|| Wrong::value(format!("{} is not a list", shown(value)), accepted))?;
    list.iter()
        .map(|one| read(one.get_ref(), '/', accepted))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    fn check(pattern: &str, text: &str, expected: bool) {
        let pattern = Pattern::parse(pattern, '/').expect("it is a pattern");
        assert_eq!(
            pattern.regex(false).is_match(text),
            expected,
            "{pattern:?} {text}"
        );
    }

    #[test]
    fn a_pattern_is_matched_whole() {
        check("/search", "/search", true);
        check("/search", "/search/all", false);
        check("/search", "/search\n", false);
        check("/v*/search", "/v12/search", true);
        check("/v*/search", "/v1/x/search", false);
        check("/api/**", "/api/a/b", true);
        check("/api/**", "/api", false);
        check("/a.c", "/abc", false);
        check("~/v[0-9]+|/w", "/v1", true);
        check("~/v[0-9]+|/w", "/v1/x", false);
        check("~/v[0-9]+|/w", "/x/w", false);
    }

    #[test]
    fn what_is_no_expression_or_too_large_a_one_is_refused() {
        assert!(Pattern::parse("~(", '/').is_err());
        assert!(Pattern::parse("~(a{1000}){1000}", '/').is_err());
    }
}
