//! Verdicts. Known writes, dressed up in ways that keep what they mean, are never reads; a text
//! that is a read stops being one when a write is put behind it; nothing panics.
//!
//! The first byte chooses between the two, the rest is the recipe or the text.

#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use writefence::fuzzing::is_read;

/// Statements that write, and which of the dresses fit.
const WRITES: &[(&str, Form)] = &[
    ("INSERT INTO orders VALUES (1, 'it''s')", Form::Dml),
    ("UPDATE shop.orders SET total = 0 WHERE id = 7", Form::Dml),
    ("DELETE FROM ONLY orders WHERE id IN (1, 2)", Form::Dml),
    (
        "INSERT INTO orders SELECT id FROM news ON CONFLICT DO NOTHING",
        Form::Dml,
    ),
    ("SELECT nextval('s')", Form::Query),
    ("SELECT setval('s', 1)", Form::Query),
    ("SELECT id FROM orders FOR UPDATE", Form::Query),
    ("SELECT pg_notify('c', 'x')", Form::Query),
    ("SELECT lo_create(0)", Form::Query),
    ("SELECT 1 INTO copy_of", Form::Plain),
    ("CREATE TABLE copy_of AS SELECT 1", Form::Plain),
    ("CREATE TABLE t (a int)", Form::Plain),
    ("DROP TABLE orders", Form::Plain),
    ("TRUNCATE orders", Form::Plain),
    ("ALTER TABLE orders ADD COLUMN c int", Form::Plain),
    ("GRANT SELECT ON orders TO PUBLIC", Form::Plain),
    ("COPY orders FROM STDIN", Form::Plain),
    ("CALL settle(1)", Form::Plain),
    ("DO $$ BEGIN DELETE FROM orders; END $$", Form::Plain),
    ("NOTIFY c, 'x'", Form::Plain),
    ("COMMIT PREPARED 'x'", Form::Plain),
    ("VACUUM orders", Form::Plain),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// INSERT, UPDATE, DELETE: may stand in a WITH.
    Dml,
    /// A query: may stand where a query may, in parentheses.
    Query,
    /// Stands for itself.
    Plain,
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&which, rest)) = data.split_first() else {
        return;
    };
    if which % 2 == 0 {
        // Too short a recipe ends in its defaults; there is always a statement.
        if let Ok(sql) = dressed(&mut Unstructured::new(rest)) {
            assert!(!is_read(sql.as_bytes()), "taken for a read: {sql}");
        }
    } else if is_read(rest) {
        let behind = [rest, b"\n;DELETE FROM orders"].concat();
        assert!(
            !is_read(&behind),
            "hides a write: {:?}",
            behind.escape_ascii()
        );
    }
});

fn dressed(u: &mut Unstructured<'_>) -> Result<String> {
    let (text, mut form) = *u.choose(WRITES)?;
    let mut sql = text.to_owned();
    let mut explained = false;
    for _ in 0..u.int_in_range(0..=4)? {
        (sql, form) = match (u.int_in_range(0..=9)?, form) {
            (0, Form::Dml) => (
                format!("WITH w AS ({sql} RETURNING 1) SELECT 1"),
                Form::Query,
            ),
            (1, Form::Dml) => (
                format!("WITH r AS (SELECT 1), w AS ({sql} RETURNING 1) TABLE w"),
                Form::Query,
            ),
            (0, Form::Query) => (format!("({sql})"), form),
            // Data that is changed in a WITH has to stand at the top, and PostgreSQL says so; here
            // it is a write wherever it stands.
            (1, Form::Query) => (format!("SELECT * FROM ({sql}) q"), form),
            (2, Form::Query) => (format!("SELECT 1 WHERE EXISTS ({sql})"), form),
            (3, Form::Dml | Form::Query) if !explained => {
                explained = true;
                let how = *u.choose(&[
                    "EXPLAIN ANALYZE",
                    "EXPLAIN (COSTS OFF, ANALYZE)",
                    "EXPLAIN (ANALYZE true) ",
                ])?;
                (format!("{how} {sql}"), Form::Plain)
            }
            (4, Form::Dml | Form::Query) => (format!("PREPARE p AS {sql}"), Form::Plain),
            (5, _) => (format!("SELECT 1; {sql}"), Form::Plain),
            (6, _) => (format!("{sql};\nSELECT 1"), Form::Plain),
            (7, _) => (format!("BEGIN; {sql}; COMMIT"), Form::Plain),
            (8, Form::Query) if sql.starts_with("SELECT nextval('s')") => {
                let name = *u.choose(&[
                    "\"nextval\"",
                    "pg_catalog.nextval",
                    "U&\"\\006eextval\"",
                    "U&\"n!0065xtval\" UESCAPE '!'",
                ])?;
                (sql.replacen("nextval", name, 1), form)
            }
            (8, Form::Query) => (format!("SELECT 1 UNION ALL ({sql})"), form),
            _ => (format!(" ;; {sql} ;"), Form::Plain),
        };
    }
    respelled(u, &sql)
}

/// Changes the case of words and the kind of white space, both outside of quotes only.
fn respelled(u: &mut Unstructured<'_>, sql: &str) -> Result<String> {
    const SPACES: [&str; 7] = [
        " ",
        "\n\t\r\x0c",
        " /* a */ ",
        "/* SELECT /* nested */ 1 */",
        " -- SELECT 1\n",
        "/*'*/",
        " --\"\n",
    ];
    let mut out = String::with_capacity(sql.len() * 2);
    let mut rest = sql;
    while let Some(c) = rest.chars().next() {
        let quote = ["$$", "'", "\""]
            .into_iter()
            .find(|mark| rest.starts_with(mark));
        if let Some(mark) = quote {
            let end = rest[mark.len()..]
                .find(mark)
                .map_or(rest.len(), |at| at + 2 * mark.len());
            let (kept, after) = rest.split_at(end);
            out += kept;
            rest = after;
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match c {
            ' ' => out += *u.choose(&SPACES)?,
            c if c.is_ascii_lowercase() && u.ratio(1, 3)? => out.push(c.to_ascii_uppercase()),
            c if u.ratio(1, 3)? => out.push(c.to_ascii_lowercase()),
            c => out.push(c),
        }
    }
    Ok(out)
}
