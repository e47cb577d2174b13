//! What stands in for the method: headers and a parameter that frameworks obey.
//!
//! They can only make a write of a read. One that would make a read of a write is not believed:
//! whether the application obeys it is not known here.

use http::HeaderMap;

use super::method::is_safe;

/// Headers that frameworks take for the method.
const HEADERS: [&str; 3] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];

/// The parameter that frameworks take for the method.
const PARAMETER: &str = "_method";

/// Whether anything in place of the method may be a write. In another case than the method's own
/// it is none of the safe ones, and so counts as a write too, unless it is one when folded: then
/// frameworks that fold it read.
pub(super) fn raises(headers: &HeaderMap, query: Option<&str>) -> bool {
    let header = headers
        .iter()
        .filter(|(name, _)| HEADERS.iter().any(|one| is_alias(name.as_str(), one)))
        .any(|(_, value)| value.to_str().map_or(true, writes));
    header
        || query.is_some_and(|query| {
            parameters(query).any(|(name, value)| {
                decoded(name).eq_ignore_ascii_case(PARAMETER) && writes(&decoded(value))
            })
        })
}

/// Headers that some servers and frameworks take for the path.
const PATHS: [&str; 2] = ["x-original-url", "x-rewrite-url"];

/// The paths that headers name in place of the request's own.
pub(super) fn paths(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let named = headers
        .iter()
        .filter(|(name, _)| PATHS.iter().any(|one| is_alias(name.as_str(), one)));
    named.filter_map(|(_, value)| {
        let url = value.to_str().ok()?;
        let path = match url.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
            None => url,
        };
        path.split(['?', '#']).next()
    })
}

/// Whether a header's name is this one, or is made the same by CGI's rules, under which an underscore
/// is as good as a hyphen.
pub(in crate::http) fn is_alias(name: &str, of: &str) -> bool {
    let same = |(a, b): (u8, u8)| a == b || (a == b'_' && b == b'-');
    name.len() == of.len() && name.bytes().zip(of.bytes()).all(same)
}

fn writes(method: &str) -> bool {
    // Several in one header, as a proxy would join them: one is enough.
    method
        .split(',')
        .any(|one| !is_safe(&one.trim().to_ascii_uppercase()))
}

/// The parameters of a query, still encoded; `;` separates them for some servers.
pub(super) fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = query.split(['&', ';']).filter(|part| !part.is_empty());
    parts.map(|part| part.split_once('=').unwrap_or((part, "")))
}

/// A parameter without its percent encoding and plus signs; bytes that are no UTF-8 are replaced.
pub(super) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(hex).filter(|_| first == b'%');
        bytes.push(match (code, first) {
            (Some(code), _) => code,
            (None, b'+') => b' ',
            (None, other) => other,
        });
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The byte that two hexadecimal digits stand for.
pub(super) fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |d: u8| {
        char::from(d)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    match digits {
        &[high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    }
}
