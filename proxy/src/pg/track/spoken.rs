//! What a text speaks of: set_config, pg_notify, and the functions that read a session's sequence
//! state.
//!
//! No command tag tells of these, and no text is parsed on the open path, so every text is looked
//! through for their names, at about a byte per cycle. What stands in a comment or a string is
//! found too; the server is asked before a move, and then knows better.

/// A call of set_config that outlives its transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// The parameter, if the text names it.
    pub(super) name: Option<String>,
    /// The value, if it stands in the text.
    pub(super) value: Option<String>,
}

/// What was found in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spoken {
    pub(super) set_config: bool,
    pub(super) sequence: bool,
    pub(super) notify: bool,
}

impl Spoken {
    /// What either speaks of.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            set_config: self.set_config | other.set_config,
            sequence: self.sequence | other.sequence,
            notify: self.notify | other.notify,
        }
    }
}

const SET_CONFIG: &[u8] = b"set_config";

/// Looks a text through.
pub(super) fn spoken(text: &[u8]) -> Spoken {
    let mut found = Spoken::default();
    for (at, byte) in text.iter().enumerate() {
        if *byte == b'_' {
            found.set_config |= stands(text, at.wrapping_sub(3), SET_CONFIG);
            found.notify |= stands(text, at.wrapping_sub(2), b"pg_notify");
        } else if byte | 0x20 == b'v' {
            let from = at.wrapping_sub(4);
            found.sequence |= stands(text, from, b"lastval") || stands(text, from, b"currval");
        }
    }
    found
}

fn stands(text: &[u8], at: usize, word: &[u8]) -> bool {
    text.get(at..)
        .and_then(|rest| rest.get(..word.len()))
        .is_some_and(|found| found.eq_ignore_ascii_case(word))
}

/// The calls of set_config in a text, but those whose effect ends with their transaction.
pub(super) fn calls(text: &[u8]) -> Vec<Call> {
    let starts = (0..text.len()).filter(|at| stands(text, *at, SET_CONFIG));
    let rests = starts.filter_map(|at| text.get(at + SET_CONFIG.len()..));
    rests
        .filter_map(|rest| {
            let arguments = arguments(rest);
            let argument = |n: usize| arguments.get(n).copied().unwrap_or_default();
            let local = [&b"true"[..], b"'t'", b"'true'"];
            if local.iter().any(|t| t.eq_ignore_ascii_case(argument(2))) {
                return None;
            }
            Some(Call {
                name: literal(argument(0)).map(|name| name.to_ascii_lowercase()),
                value: literal(argument(1)),
            })
        })
        .collect()
}

/// The arguments behind a function's name, as far as they can be told apart: none where strings
/// are written in an unusual way.
fn arguments(text: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let Some(text) = text.trim_ascii_start().strip_prefix(b"(") else {
        return found;
    };
    let (mut depth, mut from, mut quoted) = (0, 0, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'\\' | b'$' if quoted => return Vec::new(),
            b'\'' => quoted = !quoted,
            _ if quoted => {}
            b'(' | b'[' => depth += 1,
            b')' | b']' if depth > 0 => depth -= 1,
            b',' | b')' if depth == 0 => {
                found.push(text.get(from..at).unwrap_or_default().trim_ascii());
                from = at + 1;
                if *byte == b')' {
                    return found;
                }
            }
            _ => {}
        }
    }
    Vec::new()
}

/// The value of a plain string.
fn literal(argument: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(argument).ok()?;
    let inner = text
        .strip_suffix("::text")
        .unwrap_or(text)
        .strip_prefix('\'')?
        .strip_suffix('\'')?;
    let value = inner.replace("''", "\u{0}");
    (!value.contains('\'')).then(|| value.replace('\u{0}', "'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(Option<&str>, Option<&str>)]) {
        let expected: Vec<Call> = expected
            .iter()
            .map(|(name, value)| Call {
                name: name.map(str::to_owned),
                value: value.map(str::to_owned),
            })
            .collect();
        assert_eq!(calls(text.as_bytes()), expected, "{text}");
    }

    #[test]
    fn a_call_tells_its_parameter_and_value_where_they_stand_in_the_text() {
        check(
            "SELECT pg_catalog.set_config('App.User', 'it''s', false)",
            &[(Some("app.user"), Some("it's"))],
        );
        check(
            "select SET_CONFIG ( 'a.b' , $1 , false)",
            &[(Some("a.b"), None)],
        );
        check("SELECT set_config($1, $2, $3)", &[(None, None)]);
        check(
            "SELECT set_config('a.' || x, coalesce(y, 'z'), false)",
            &[(None, None)],
        );
        check("SELECT set_config(E'a\\'b', '1', false)", &[(None, None)]);
    }

    #[test]
    fn a_call_for_one_transaction_leaves_nothing() {
        check(
            "SELECT set_config('a.b', $1, true), set_config('a.c', 'x', TRUE)",
            &[],
        );
    }

    #[test]
    fn names_are_found_in_any_case_and_place() {
        let both = Spoken {
            set_config: true,
            sequence: true,
            notify: false,
        };
        assert_eq!(spoken(b"SET_CONFIG LastVal()"), both);
        assert_eq!(
            spoken(b"SELECT currval('s')"),
            Spoken {
                set_config: false,
                ..both
            }
        );
        let notify = Spoken {
            notify: true,
            ..Spoken::default()
        };
        assert_eq!(spoken(b"SELECT PG_Notify('c', '')"), notify);
        assert_eq!(
            spoken(b"_v SELECT set_confi lastva pg_notif"),
            Spoken::default()
        );
    }
}
