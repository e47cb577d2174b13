//! What a session's login took from ALTER ROLE … SET and ALTER DATABASE … SET.
//!
//! PostgreSQL reads these once, at login. A session that is moved logs in anew and would take what
//! they say by then; so it is asked before what it has, and on the new server whatever differs is
//! set to that. Only what every user may set: the rest follows the new login. Nothing here does IO.

use super::inventory::{set_config, unhex};
use crate::pg::message::OWN;

/// Most rows that are taken.
const MOST: usize = 10_000;

/// The question, to the old server and to the new one: the values that a RESET would bring back, of
/// all parameters that came from such a default or that have one now. Custom parameters without an
/// extension are in no list. Its answer is ASCII, as that of `question`.
pub(crate) const DEFAULTS: &str = "\
WITH n AS (SELECT pg_catalog.lower(pg_catalog.split_part(c, '=', 1)) AS name \
FROM pg_catalog.pg_db_role_setting s, LATERAL pg_catalog.unnest(s.setconfig) AS c \
WHERE s.setdatabase OPERATOR(pg_catalog.=) ANY (ARRAY[0::pg_catalog.oid, \
(SELECT d.oid FROM pg_catalog.pg_database d \
WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())]) \
AND s.setrole OPERATOR(pg_catalog.=) ANY (ARRAY[0::pg_catalog.oid, \
(SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) session_user)])), \
p AS MATERIALIZED (SELECT pg_catalog.lower(name) AS name, reset_val, context, source \
FROM pg_catalog.pg_settings), \
found AS (SELECT p.name, p.reset_val AS value FROM p \
WHERE p.context OPERATOR(pg_catalog.=) 'user' \
AND (p.source OPERATOR(pg_catalog.=) ANY (ARRAY['global', 'database', 'user', 'database user']) \
OR p.name OPERATOR(pg_catalog.=) ANY (SELECT n.name FROM n)) \
UNION ALL SELECT n.name, pg_catalog.current_setting(n.name, true) FROM n \
WHERE pg_catalog.strpos(n.name, '.') OPERATOR(pg_catalog.>) 0 \
AND NOT EXISTS (SELECT 1 FROM p WHERE p.name OPERATOR(pg_catalog.=) n.name)) \
SELECT pg_catalog.encode(pg_catalog.convert_to(\
pg_catalog.json_build_array(name, value)::pg_catalog.text, 'UTF8'), 'hex') FROM found";

/// Not carried over by value: wall two stands on it, and what the client sees of it is ours.
const APART: [&str; 1] = ["default_transaction_read_only"];

/// Names, in lower case and in order, with their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Defaults(Vec<(String, String)>);

impl Defaults {
    /// Reads the answer's rows; `None` if they are not the answer to this question.
    pub(crate) fn read(rows: &[Option<String>]) -> Option<Self> {
        let mut found = Vec::new();
        for row in rows.iter().take(MOST) {
            let (name, value): (String, Option<String>) =
                serde_json::from_slice(&unhex(row.as_deref()?)?).ok()?;
            if name != OWN && !APART.contains(&name.as_str()) {
                // A custom parameter that is not set reads as an empty one.
                found.push((name, value.unwrap_or_default()));
            }
        }
        found.sort();
        found.dedup_by(|a, b| a.0 == b.0);
        (rows.len() <= MOST).then_some(Self(found))
    }

    fn get(&self, name: &str) -> Option<&str> {
        let at = self
            .0
            .binary_search_by(|(n, _)| n.as_str().cmp(name))
            .ok()?;
        self.0.get(at).map(|(_, value)| value.as_str())
    }

    /// The statements that bring these to a login that got `new`. What is new there and was not
    /// asked here was made in between and stays.
    pub(crate) fn against(&self, new: &Self) -> Vec<String> {
        let differ = |(name, value): &&(String, String)| new.get(name) != Some(value);
        let differing = self.0.iter().filter(differ);
        differing
            .map(|(name, value)| set_config(name, value))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults(lines: &[&str]) -> Defaults {
        let hex = |line: &&str| line.bytes().map(|b| format!("{b:02x}")).collect();
        let rows: Vec<_> = lines.iter().map(|line| Some(hex(line))).collect();
        Defaults::read(&rows).expect("valid rows")
    }

    #[test]
    fn what_differs_or_is_gone_is_set_to_what_the_session_had() {
        let had = defaults(&[
            r#"["work_mem","4096"]"#,
            r#"["statement_timeout","5000"]"#,
            r#"["app.tenant",null]"#,
            r#"["search_path","a, b"]"#,
        ]);
        let new = defaults(&[
            r#"["work_mem","65536"]"#,
            r#"["app.tenant","7"]"#,
            r#"["search_path","a, b"]"#,
            r#"["geqo","off"]"#,
        ]);
        let expected = [
            set_config("app.tenant", ""),
            set_config("statement_timeout", "5000"),
            set_config("work_mem", "4096"),
        ];
        assert_eq!(had.against(&new), expected);
        assert!(had.against(&had).is_empty());
    }

    #[test]
    fn wall_twos_own_is_left_alone() {
        let had = defaults(&[r#"["default_transaction_read_only","on"]"#]);
        assert_eq!(had, Defaults::default());
    }

    #[test]
    fn what_is_no_answer_is_none() {
        assert_eq!(Defaults::read(&[None]), None);
        assert_eq!(Defaults::read(&[Some("5b5d".into())]), None);
    }
}
