//! What a session has, as its server tells: settings, role, LISTEN, prepared statements, and what
//! no other server can be given.
//!
//! Texts do not tell everything: functions call set_config, savepoints take settings back, a
//! dropped table pins nobody any more. So before a move each session's server is asked once, in
//! one query, and its answer replaces what was learned. Kept by value, it also outlives the server.
//! Nothing here does IO.

use std::fmt::Write;

use super::{SessionSets, Statements};
use crate::pg::classify::{Eyes, Kind, Reading, judge};
use crate::pg::message::OWN;
use crate::sessions::Pin;

/// Most rows that are taken; a session with more has something that we do not understand.
const MOST: usize = 10_000;

/// Custom parameters are in no list of the server's, so their names have to be given. Those that
/// functions of this database set are found in their texts. An object in the session's temporary
/// schema depends on the schema, whatever it is.
const PARTS: &str = "\
SELECT 'setting' AS kind, name, setting AS value FROM pg_catalog.pg_settings \
WHERE source OPERATOR(pg_catalog.=) 'session' \
UNION ALL SELECT 'custom', n.name, pg_catalog.current_setting(n.name, true) FROM (\
SELECT m.name[1] AS name FROM pg_catalog.pg_proc p, LATERAL pg_catalog.regexp_matches(\
CASE WHEN pg_catalog.strpos(p.prosrc, 'set_config') OPERATOR(pg_catalog.>) 0 THEN p.prosrc ELSE '' END, \
E'set_config\\\\s*\\\\(\\\\s*''([a-z_][\\\\w$]*(?:\\\\.[a-z_][\\\\w$]*)+)''', 'gi') AS m(name) \
WHERE p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid \
UNION SELECT pg_catalog.unnest({names}::pg_catalog.text[])) n \
WHERE pg_catalog.current_setting(n.name, true) IS NOT NULL \
UNION ALL SELECT 'role', 'role', pg_catalog.current_setting('role') \
UNION ALL SELECT 'role', 'session_authorization', pg_catalog.current_setting('session_authorization') \
UNION ALL SELECT 'listen', channel, NULL FROM pg_catalog.pg_listening_channels() AS channel \
UNION ALL SELECT CASE WHEN from_sql THEN 'prepared' ELSE 'parsed' END, name, \
CASE WHEN from_sql THEN statement END FROM pg_catalog.pg_prepared_statements \
UNION ALL SELECT 'pin', 'temporary_object', 'it has temporary tables or other temporary objects' \
WHERE pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0::pg_catalog.oid \
AND EXISTS (SELECT 1 FROM pg_catalog.pg_depend \
WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass \
AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) \
UNION ALL SELECT 'pin', 'held_cursor', 'it has a cursor WITH HOLD' \
WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_cursors WHERE is_holdable) \
UNION ALL SELECT 'pin', 'advisory_lock', 'it holds session advisory locks' \
WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory' \
AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())";

/// The question. Its answer is ASCII, whatever the client's encoding is: lines of JSON in UTF-8,
/// in hexadecimal digits. `names` are custom parameters whose values are wanted.
pub(crate) fn question<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.map(literal).collect();
    let names = format!("ARRAY[{}]", quoted.join(","));
    format!(
        "SELECT pg_catalog.encode(pg_catalog.convert_to(\
         pg_catalog.json_build_array(kind, name, value)::pg_catalog.text, 'UTF8'), 'hex') FROM ({}) AS parts",
        PARTS.replace("{names}", &names)
    )
}

/// A text as a literal of ASCII characters, which means the same in every client encoding and
/// under every setting.
fn literal(text: &str) -> String {
    let mut out = String::from("E'");
    for c in text.chars() {
        match c {
            '\'' => out.push_str("''"),
            '\\' => out.push_str("\\\\"),
            ' '..='~' => out.push(c),
            // Writing to a string does not fail.
            _ => drop(write!(out, "\\U{:08X}", u32::from(c))),
        }
    }
    out.push('\'');
    out
}

/// The statement that gives a setting this value.
pub(crate) fn set_config(name: &str, value: &str) -> String {
    format!(
        "SELECT pg_catalog.set_config({}, {}, false)",
        literal(name),
        literal(value)
    )
}

/// What the server said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Inventory {
    settings: Vec<(String, String)>,
    roles: Vec<(String, String)>,
    listens: Vec<String>,
    parsed: Vec<String>,
    prepared: Vec<(String, String)>,
    pins: Vec<Pin>,
}

/// Fails where the session has drawn from no sequence.
pub(crate) const LAST_VALUE: &str = "SELECT pg_catalog.lastval()";

/// Under which circumstances it was asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// Wall two stands: the read-only default is ours, not the session's.
    pub(crate) walled: bool,
    /// Who is logged in.
    pub(crate) login: &'a str,
}

impl Inventory {
    /// Reads the answer's rows; `None` if they are not the answer to this question.
    pub(crate) fn read(rows: &[Option<String>]) -> Option<Self> {
        let mut found = Self::default();
        for row in rows.iter().take(MOST) {
            let (kind, name, value): (String, Option<String>, Option<String>) =
                serde_json::from_slice(&unhex(row.as_deref()?)?).ok()?;
            let name = name?;
            if name == OWN {
                continue;
            }
            let value = value.unwrap_or_default();
            match kind.as_str() {
                "setting" | "custom" => found.settings.push((name.to_ascii_lowercase(), value)),
                "role" => found.roles.push((name, value)),
                "listen" => found.listens.push(name),
                "parsed" => found.parsed.push(name),
                "prepared" => found.prepared.push((name, value)),
                "pin" => found.pins.push(Pin {
                    kind: KINDS.into_iter().find(|kind| *kind == name)?,
                    reason: value,
                }),
                _ => return None,
            }
        }
        (rows.len() <= MOST).then_some(found)
    }

    /// The session uses its sequence values, and has some.
    pub(crate) fn has_sequence_values(&mut self) {
        self.pins.push(Pin {
            kind: "sequence_values",
            reason: "it uses lastval() or currval(), and another server does not have their values"
                .to_owned(),
        });
    }

    /// Puts what the server said in the place of what was learned.
    pub(crate) fn adopt(
        mut self,
        asked: Asked<'_>,
        sets: &mut SessionSets,
        statements: &mut Statements,
        eyes: &Eyes,
    ) {
        let mut pins = std::mem::take(&mut self.pins);
        pins.extend(self.statements(sets, statements, eyes));
        self.settings(asked, sets);
        if sets.listens.len() != self.listens.len()
            || sets.listens.iter().any(|c| !self.listens.contains(c))
        {
            sets.listens = self.listens;
            sets.version += 1;
        }
        sets.sure(pins);
    }

    /// Settings keep the order in which they were made, since one may be allowed only in a role
    /// set before it. What was not known comes first, in the role of the login.
    fn settings(&mut self, asked: Asked<'_>, sets: &mut SessionSets) {
        let ours = |name: &str| asked.walled && WALL.contains(&name);
        for (name, value) in std::mem::take(&mut self.roles) {
            let known = sets.sets.iter().any(|(n, _)| *n == name);
            if known || !(value == "none" || value == asked.login) {
                self.settings.push((name, value));
            }
        }
        self.settings.retain(|(name, _)| !ours(name));
        let mut new = Vec::new();
        for (name, text) in &sets.sets {
            let given = self.settings.iter().position(|(n, _)| n == name);
            match given.map(|at| self.settings.swap_remove(at)) {
                Some((name, value)) => new.push((name.clone(), set_config(&name, &value))),
                None if ours(name) => new.push((name.clone(), text.clone())),
                None => {}
            }
        }
        self.settings.sort();
        let unknown = self.settings.iter().rev();
        for (name, value) in unknown {
            new.insert(0, (name.clone(), set_config(name, value)));
        }
        if new != sets.sets {
            sets.sets = new;
            sets.version += 1;
        }
    }

    /// Prepared statements: those of SQL are there with their texts, those of the protocol are kept
    /// here or not at all.
    fn statements(
        &mut self,
        sets: &mut SessionSets,
        statements: &mut Statements,
        eyes: &Eyes,
    ) -> Option<Pin> {
        let mut unknown = None;
        let mut texts = std::collections::HashMap::new();
        for (name, source) in self.prepared.drain(..) {
            // The whole text that the statement came in is kept by the server.
            let judged = judge(source.as_bytes(), Reading::default(), eyes);
            let own = judged
                .statements
                .iter()
                .find(|s| matches!(&s.kind, Kind::Prepare { name: n } if *n == name));
            match own.and_then(|s| source.get(s.text.clone())) {
                Some(text) => drop(texts.insert(name, text.to_owned())),
                None => unknown = Some(name),
            }
        }
        if statements.sql != texts {
            statements.sql = texts;
            sets.version += 1;
        }
        statements.keep_only(&self.parsed);
        unknown = unknown.or_else(|| {
            let strange = |name: &&String| !statements.has(name);
            self.parsed.iter().find(strange).cloned()
        });
        unknown.map(|name| Pin {
            kind: "prepared_statement",
            reason: format!("its prepared statement \"{name}\" was not kept"),
        })
    }
}

const KINDS: [&str; 3] = ["temporary_object", "held_cursor", "advisory_lock"];

/// What wall two stands on, and the statement that also sets it.
const WALL: [&str; 2] = ["default_transaction_read_only", "session characteristics"];

pub(super) fn unhex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let digit = |c: u8| {
        char::from(c)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let bytes = pairs
        .iter()
        .map(|[a, b]| Some(digit(*a)? << 4 | digit(*b)?));
    rest.is_empty().then(|| bytes.collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked<'_> = Asked {
        walled: false,
        login: "app",
    };

    fn rows(lines: &[&str]) -> Vec<Option<String>> {
        let hex = |line: &&str| line.bytes().map(|b| format!("{b:02x}")).collect();
        lines.iter().map(|line| Some(hex(line))).collect()
    }

    fn adopt(asked: Asked<'_>, learned: &[(&str, &str)], lines: &[&str]) -> SessionSets {
        let mut sets = SessionSets::default();
        for (name, text) in learned {
            sets.set(name, text);
        }
        let mut statements = Statements::default();
        Inventory::read(&rows(lines)).expect("valid rows").adopt(
            asked,
            &mut sets,
            &mut statements,
            &Eyes::in_tests(),
        );
        sets
    }

    #[test]
    fn values_take_the_place_of_texts_in_their_order() {
        let learned = [
            ("work_mem", "SET work_mem = '1MB'"),
            ("role", "SET ROLE a"),
            ("search_path", "SET search_path = x"),
        ];
        let lines = [
            r#"["setting","search_path","y"]"#,
            r#"["setting","DateStyle","ISO, DMY"]"#,
            r#"["role","role","b"]"#,
            r#"["role","session_authorization","app"]"#,
        ];
        let sets = adopt(ASKED, &learned, &lines);
        let expected = [
            set_config("datestyle", "ISO, DMY"),
            set_config("role", "b"),
            set_config("search_path", "y"),
        ];
        assert_eq!(sets.replay().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_same_answer_twice_changes_nothing() {
        let lines = [r#"["custom","app.user","7"]"#];
        let sets = adopt(ASKED, &[], &lines);
        let mut again = sets.clone();
        Inventory::read(&rows(&lines)).expect("valid rows").adopt(
            ASKED,
            &mut again,
            &mut Statements::default(),
            &Eyes::in_tests(),
        );
        assert_eq!(sets, again);
    }

    #[test]
    fn under_wall_two_the_read_only_default_stays_as_the_client_set_it() {
        let own = (
            "default_transaction_read_only",
            "SET default_transaction_read_only = off",
        );
        let lines = [r#"["setting","default_transaction_read_only","on"]"#];
        let walled = Asked {
            walled: true,
            ..ASKED
        };
        assert_eq!(
            adopt(walled, &[own], &lines).replay().collect::<Vec<_>>(),
            [own.1]
        );
        assert!(adopt(walled, &[], &lines).replay().next().is_none());
    }

    #[test]
    fn a_statement_prepared_in_sql_keeps_its_own_part_of_the_text() {
        let mut statements = Statements::default();
        let mut sets = SessionSets::default();
        let lines = [r#"["prepared","p","SET a.b = 1; PREPARE p AS SELECT 1;"]"#];
        Inventory::read(&rows(&lines)).expect("valid rows").adopt(
            ASKED,
            &mut sets,
            &mut statements,
            &Eyes::in_tests(),
        );
        assert_eq!(
            statements.sql.get("p").map(String::as_str),
            Some("PREPARE p AS SELECT 1")
        );
        assert_eq!(sets.pins().count(), 0);
    }

    #[test]
    fn a_prepared_statement_that_only_the_server_knows_is_a_pin() {
        let sets = adopt(ASKED, &[], &[r#"["parsed","p",null]"#]);
        assert!(sets.pins().any(|p| p.kind == "prepared_statement"));
    }

    #[test]
    fn what_is_no_answer_is_none() {
        assert_eq!(Inventory::read(&rows(&["[]"])), None);
        assert_eq!(
            Inventory::read(&rows(&[r#"["pin","unheard of","x"]"#])),
            None
        );
        assert_eq!(Inventory::read(&[Some("0".into())]), None);
        assert_eq!(Inventory::read(&[None]), None);
    }

    #[test]
    fn a_literal_is_ascii_and_keeps_its_meaning() {
        assert_eq!(literal("a'b\\c\u{e9}"), r"E'a''b\\c\U000000E9'");
    }
}
