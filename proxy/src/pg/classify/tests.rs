//! The tables of `tests/data/classify`, and what no table can say: bounds, readings, damage.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::pg::catalog::Facts;

const KNOWN: Reading = Reading {
    standard_strings: Some(true),
    plain_ascii: Some(true),
};

fn eyes(policy: Policy) -> Eyes {
    Eyes::of_facts(policy, &Facts::plain_tables())
}

fn lens() -> Lens<'static> {
    const POLICY: &Policy = &Policy {
        pass: Effects::NONE,
        strict: false,
        temporaries: false,
    };
    Lens {
        policy: POLICY,
        model: None,
    }
}

fn verdict(sql: &str) -> Verdict {
    judge(sql.as_bytes(), KNOWN, &eyes(Policy::default())).verdict()
}

fn only(sql: &[u8], policy: &Policy) -> Statement {
    let mut statements = judge(sql, KNOWN, &eyes(*policy)).statements;
    assert_eq!(statements.len(), 1, "{}", String::from_utf8_lossy(sql));
    statements.remove(0)
}

/// `verdict | rule[:decided_by] | kind | statement`; "!" behind the verdict marks a way out.
fn check_line(file: &Path, line: &str) {
    let parts: Vec<&str> = line.splitn(4, '|').map(str::trim).collect();
    let columns: [&str; 4] = parts.try_into().expect("a row has four columns");
    let [verdict, rule, kind, sql] = columns;
    let statement = only(sql.as_bytes(), &Policy::default());
    let way_out = if statement.is_way_out() { "!" } else { "" };
    let found = (
        format!("{}{way_out}", statement.verdict.name()),
        format!("{:?}", statement.kind),
    );
    let kind = if kind.is_empty() { "Other" } else { kind };
    assert_eq!(
        found,
        (verdict.to_owned(), kind.to_owned()),
        "{}: {line}",
        file.display()
    );
    let by = statement.decided_by.unwrap_or_default();
    let reason = if by.is_empty() {
        statement.rule.to_owned()
    } else {
        format!("{}:{by}", statement.rule)
    };
    assert_eq!(reason, rule, "{}: {line}", file.display());
}

fn table_files() -> Vec<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/classify");
    let entries = fs::read_dir(folder).expect("the tables are part of the repository");
    entries
        .map(|entry| entry.expect("readable folder").path())
        .collect()
}

fn table_lines() -> Vec<(std::path::PathBuf, String)> {
    let mut lines = Vec::new();
    for file in table_files() {
        let text = fs::read_to_string(&file).expect("readable table");
        let rows = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.extend(rows.map(|line| (file.clone(), line.to_owned())));
    }
    lines
}

#[test]
fn every_table_row_holds() {
    let lines = table_lines();
    assert!(lines.len() > 200, "tables are missing: {}", lines.len());
    for (file, line) in lines {
        check_line(&file, &line);
    }
}

#[test]
fn an_empty_text_is_a_read() {
    for sql in ["", " \n", ";;;", "-- only a comment", "/* only */ ;"] {
        let judgement = judge(sql.as_bytes(), Reading::default(), &eyes(Policy::default()));
        assert_eq!(judgement, Judgement::default(), "{sql}");
        assert_eq!(judgement.verdict(), Verdict::Read);
    }
}

#[test]
fn statements_of_one_text_are_judged_one_by_one() {
    let sql = "SELECT 1; /* é */ BEGIN;\nDELETE FROM orders ;COMMIT AND CHAIN; SELECT f()";
    let judgement = judge(sql.as_bytes(), Reading::default(), &eyes(Policy::default()));
    let seen: Vec<_> = judgement
        .statements
        .iter()
        .map(|each| (&sql[each.text.clone()], each.verdict))
        .collect();
    assert_eq!(
        seen,
        [
            ("SELECT 1", Verdict::Read),
            ("BEGIN", Verdict::Boundary),
            ("DELETE FROM orders ", Verdict::Write),
            ("COMMIT AND CHAIN", Verdict::Boundary),
            ("SELECT f()", Verdict::Uncertain),
        ]
    );
    assert_eq!(judgement.verdict(), Verdict::Write);
    assert!(judgement.has_way_out());
    let ends: Vec<_> = judgement
        .statements
        .iter()
        .map(Statement::is_transaction_end)
        .collect();
    assert_eq!(ends, [false, false, false, true, false]);
}

/// A session replays a statement by its place in the text.
#[test]
fn a_statement_cut_out_of_its_text_is_judged_the_same() {
    let sql: Vec<String> = table_lines()
        .iter()
        .filter(|(_, line)| !line.contains("| unparsable |") && !line.contains("--"))
        .filter_map(|(_, line)| line.splitn(4, '|').nth(3).map(|sql| sql.trim().to_owned()))
        .collect();
    for pair in sql.chunks(3) {
        let text = format!("/* first; */ {} ; ", pair.join("\n;-- next\n  "));
        let judgement = judge(text.as_bytes(), KNOWN, &eyes(Policy::default()));
        assert_eq!(judgement.statements.len(), pair.len(), "{text}");
        for mut statement in judgement.statements {
            let place = std::mem::replace(&mut statement.text, 0..0);
            let mut again = judge(
                text[place.clone()].as_bytes(),
                KNOWN,
                &eyes(Policy::default()),
            );
            assert_eq!(again.statements.len(), 1, "{}", &text[place]);
            again.statements[0].text = 0..0;
            assert_eq!(again.statements[0], statement);
        }
    }
}

#[test]
fn the_gravest_statement_decides() {
    assert_eq!(verdict("SELECT 1; SHOW work_mem"), Verdict::Read);
    assert_eq!(verdict("SELECT 1; BEGIN; COMMIT"), Verdict::Boundary);
    assert_eq!(verdict("BEGIN; SELECT f(); COMMIT"), Verdict::Uncertain);
    assert_eq!(verdict("SELECT f(); NOTIFY c; SELECT 1"), Verdict::Write);
}

#[test]
fn prepare_keeps_the_finding_of_its_statement() {
    let inner = |sql: &str| {
        only(sql.as_bytes(), &Policy::default())
            .prepared
            .map(|it| it.verdict)
    };
    assert_eq!(inner("PREPARE p AS SELECT 1"), Some(Verdict::Read));
    assert_eq!(inner("PREPARE p AS SELECT f($1)"), Some(Verdict::Uncertain));
    assert_eq!(
        inner("PREPARE p AS SELECT * FROM orders FOR UPDATE"),
        Some(Verdict::Write)
    );
    assert_eq!(
        inner("PREPARE p AS DELETE FROM orders"),
        Some(Verdict::Write)
    );
    assert_eq!(inner("EXECUTE p(1)"), Some(Verdict::Read));
    assert_eq!(inner("EXECUTE p(f(1))"), Some(Verdict::Uncertain));
}

#[test]
fn an_effect_that_passes_is_left_to_wall_two() {
    let lines = table_lines();
    let all = Policy {
        pass: Effect::ALL.iter().copied().collect(),
        strict: false,
        temporaries: false,
    };
    let mut met = std::collections::HashSet::new();
    for (_, line) in lines {
        let sql = line
            .splitn(4, '|')
            .nth(3)
            .expect("checked elsewhere")
            .trim()
            .as_bytes();
        let before = only(sql, &Policy::default());
        let Ok(effect) = before.rule.parse::<Effect>() else {
            continue;
        };
        if before.verdict == Verdict::Write {
            assert_eq!(only(sql, &all).verdict, Verdict::Uncertain, "{line}");
            let one = Policy {
                pass: [effect].into_iter().collect(),
                strict: false,
                temporaries: false,
            };
            assert_eq!(only(sql, &one).verdict, Verdict::Uncertain, "{line}");
            met.insert(effect);
        }
    }
    assert_eq!(
        met.len(),
        Effect::ALL.len(),
        "an effect without a row in effects.txt"
    );
}

#[test]
fn arguments_of_an_effect_that_passes_are_still_judged() {
    let pass = Policy {
        pass: Effect::ALL.iter().copied().collect(),
        strict: false,
        temporaries: false,
    };
    assert_eq!(only(b"CALL p(nextval('s'))", &pass).rule, rule::SEQUENCE);
    assert_eq!(
        only(b"SELECT pg_notify('c', nextval('s')::text)", &pass).rule,
        rule::SEQUENCE
    );
    let files = b"COPY (DELETE FROM orders RETURNING 1) TO '/tmp/x'";
    assert_eq!(only(files, &pass).rule, rule::DML);
}

#[test]
fn strict_takes_the_unknown_for_a_write() {
    let strict = Policy {
        strict: true,
        ..Policy::default()
    };
    for sql in [
        "SELECT f()",
        "SELECT 1 @#@ 2",
        "SELECT 1::positive",
        "SELECT JSON_SCALAR(1)",
    ] {
        assert_eq!(
            only(sql.as_bytes(), &strict).verdict,
            Verdict::Write,
            "{sql}"
        );
        assert_eq!(
            only(sql.as_bytes(), &Policy::default()).verdict,
            Verdict::Uncertain,
            "{sql}"
        );
    }
    assert_eq!(only(b"SELECT lower('A')", &strict).verdict, Verdict::Read);
    assert_eq!(only(b"FETCH c", &strict).verdict, Verdict::Uncertain);
}

#[test]
fn unreadable_texts_are_writes_with_their_reason() {
    let long = vec![b' '; MAX_TEXT + 1];
    for (sql, rule) in [
        (&b"SELECT 1\0; DELETE FROM orders"[..], rule::ZERO_BYTE),
        (b"SELECT '\xff\xff'", rule::NOT_UTF8),
        (b"SELECT '\xed\xa0\x80'", rule::NOT_UTF8),
        (&long, rule::TOO_LARGE),
    ] {
        let statement = only(sql, &Policy::default());
        assert_eq!((statement.verdict, statement.rule), (Verdict::Write, rule));
        assert_eq!(statement.text, 0..sql.len());
    }
}

#[test]
fn a_backslash_cannot_hide_a_statement() {
    let sql = br"SELECT 'a\''; BEGIN READ WRITE; DELETE FROM orders; --'";
    let at = |standard| {
        let reading = Reading {
            standard_strings: standard,
            plain_ascii: Some(true),
        };
        judge(sql, reading, &eyes(Policy::default()))
    };
    assert_eq!(at(Some(true)).verdict(), Verdict::Read);
    assert_eq!(at(Some(false)).statements.len(), 3);
    assert_eq!(at(Some(false)).verdict(), Verdict::Write);
    assert_eq!(at(None).statements[0].rule, rule::STRINGS);
    assert_eq!(
        only(br"SELECT E'a\\', 'b'", &Policy::default()).verdict,
        Verdict::Read
    );
}

#[test]
fn a_character_cannot_swallow_a_backslash() {
    let sql = "SELECT E'あ\\'; DELETE FROM orders; --'".as_bytes();
    let at = |plain| {
        let reading = Reading {
            standard_strings: Some(true),
            plain_ascii: plain,
        };
        judge(sql, reading, &eyes(Policy::default()))
            .statements
            .remove(0)
    };
    assert_eq!(at(Some(true)).verdict, Verdict::Read);
    assert_eq!(at(None).rule, rule::ENCODING);
    assert_eq!(at(Some(false)).rule, rule::ENCODING);
    assert_eq!(
        only("SELECT 'ä'".as_bytes(), &Policy::default()).verdict,
        Verdict::Read
    );
}

#[test]
fn reported_settings_become_a_reading() {
    assert_eq!(Reading::reported(None, None), Reading::default());
    assert_eq!(Reading::reported(Some("on"), Some("UTF8")), KNOWN);
    let sjis = Reading {
        standard_strings: Some(false),
        plain_ascii: Some(false),
    };
    assert_eq!(Reading::reported(Some("off"), Some("sjis")), sjis);
}

/// Texts of `size` bytes that make a careless parser or walker recurse.
fn deep(size: usize) -> Vec<String> {
    let nested = |open: &str, core: &str, close: &str| {
        let times = size / (open.len() + close.len());
        format!("{}{core}{}", open.repeat(times), close.repeat(times))
    };
    let chained = |first: &str, more: &str| format!("{first}{}", more.repeat(size / more.len()));
    vec![
        chained("SELECT 1", "+1"),
        chained("SELECT 1", " OR 1"),
        chained("SELECT 1", " UNION SELECT 1"),
        chained("SELECT a", "[1]"),
        chained("SELECT a", "::int"),
        chained("SELECT a", ".a"),
        chained("SELECT * FROM a", " JOIN a ON true"),
        chained("SELECT * FROM a", ",a"),
        chained("", "SELECT 1;"),
        chained("", ";"),
        chained("SELECT ", "NOT "),
        chained("SELECT ", "-"),
        chained("", "EXPLAIN "),
        chained("", "/*"),
        chained("SELECT ", "$a"),
        chained("SELECT 1", "+"),
        chained("SELECT 1 ", "*-"),
        chained("SELECT 1 ", "@+"),
        chained("", "/"),
        chained("", "--"),
        chained("", &format!("/{} ", "*".repeat(200))),
        chained("", &format!("{} ", "/*".repeat(127))),
        chained("SELECT 1 ", &format!("{} ", "+-".repeat(127))),
        chained("SELECT ", "'a'\n"),
        chained("SELECT ", "'a' "),
        chained("SELECT ", "U&'a'"),
        chained("SELECT ", "E'\\"),
        chained("SELECT $a$", "$a"),
        chained("SELECT $a$", "$$"),
        chained("SELECT a", ",a"),
        chained("SELECT a", " a"),
        chained("SELECT a", ".1"),
        chained("SELECT a", "1.."),
        chained("SELECT 1", "e+"),
        chained("SELECT ", "\"a\"."),
        chained("SELECT 1 ", "\n"),
        chained("WITH a AS (SELECT 1)", ",a AS (SELECT 1)"),
        chained("SELECT f(1", ",a=>1"),
        chained("GRANT a", ",a"),
        chained("INSERT INTO a VALUES (1)", ",(1)"),
        chained("CREATE TABLE a (a int", ",a int"),
        nested("(", "SELECT 1", ")"),
        format!("SELECT {}", nested("(", "1", ")")),
        format!("SELECT {}", nested("(SELECT ", "1", ")")),
        format!("SELECT {}", nested("f(", "1", ")")),
        format!("SELECT {}", nested("ARRAY[", "1", "]")),
        format!("SELECT {}", nested("CASE WHEN true THEN ", "1", " END")),
        format!("SELECT * FROM {}", nested("(SELECT * FROM ", "a", ") x")),
        nested("WITH x AS (", "SELECT 1", ") SELECT 1"),
        format!("INSERT INTO a VALUES {}", nested("(", "1", ")")),
    ]
}

#[test]
fn depth_neither_aborts_nor_panics_on_a_small_stack() {
    let worker = thread::Builder::new().stack_size(2 << 20).spawn(|| {
        for size in [1 << 10, 10 << 10, MAX_TEXT - 100, 100 << 10] {
            for sql in deep(size) {
                let start = Instant::now();
                let _ = judge(sql.as_bytes(), Reading::default(), &eyes(Policy::default()));
                if size > MAX_TEXT && !parse::is_costly(sql.as_bytes()) {
                    // Longer than what is ever parsed: the bound must not be what saves the stack.
                    let done = with_room(|| {
                        let raw = parse::statements(&sql, pg_query::ParserOptions::DEFAULT);
                        let _ = raw.map(|raw| decide::all(&sql, raw, lens()));
                    });
                    assert_eq!(done, Some(()));
                }
                let spent = start.elapsed();
                assert!(spent < Duration::from_secs(10), "{spent:?}: {}", &sql[..40]);
            }
        }
    });
    let worker = worker.expect("a thread can be started");
    assert!(worker.join().is_ok());
}

/// Chains that people and programs write; each is longer than 100 levels.
#[test]
fn long_chains_are_looked_through() {
    let chains = [
        format!("SELECT 1{}", "+1".repeat(3000)),
        format!("SELECT ''{}", " || a.b".repeat(1500)),
        format!("SELECT 1 WHERE true{}", " AND a = 1".repeat(3000)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(1000)),
        format!("SELECT * FROM t{}", " JOIN t USING (a)".repeat(1000)),
        format!("SELECT {}1{}", "coalesce(".repeat(500), ")".repeat(500)),
    ];
    for sql in chains {
        assert_eq!(verdict(&sql), Verdict::Read, "{}", &sql[..40]);
        let last = format!("{sql} -- ");
        let hidden = last
            .replacen('1', "nextval('s')", 1)
            .replacen("''", "nextval('s')", 1);
        let hidden = hidden.replacen("FROM t ", "FROM t, nextval('s') ", 1);
        assert_eq!(verdict(&hidden), Verdict::Write, "{}", &sql[..40]);
    }
}

/// The deepest texts that are judged in place, on half of an ordinary thread's stack.
#[test]
fn what_is_judged_in_place_is_shallow() {
    let worker = thread::Builder::new().stack_size(1 << 20).spawn(|| {
        for size in (0..2000).step_by(10) {
            for sql in deep(size).iter().filter(|sql| room::is_shallow(sql)) {
                let _ = judge_text(sql, Reading::default(), lens());
            }
        }
    });
    assert!(worker.expect("a thread can be started").join().is_ok());
}

#[test]
fn ordinary_depth_is_not_too_deep() {
    let sum = format!("SELECT 1{}", "+1".repeat(30));
    let nested = format!("SELECT {}1{}", "(SELECT ".repeat(10), ")".repeat(10));
    let or = format!("SELECT 1 WHERE {} true", "a = 1 OR ".repeat(2000));
    let list = format!("SELECT 1 WHERE a IN (1{})", ", 1".repeat(10_000));
    for sql in [sum, nested, or, list] {
        assert_eq!(verdict(&sql), Verdict::Read, "{}", &sql[..40]);
    }
}

/// Small repeatable random numbers; the seed is fixed so that a failure can be run again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % limit.max(1) as u64).expect("below a usize")
    }
}

#[test]
fn damaged_texts_never_panic() {
    let texts: Vec<Vec<u8>> = table_lines()
        .iter()
        .filter_map(|(_, line)| {
            line.splitn(4, '|')
                .nth(3)
                .map(|sql| sql.trim().as_bytes().to_vec())
        })
        .collect();
    let mut dice = Dice(1);
    for _ in 0..20_000 {
        let mut sql = texts[dice.below(texts.len())].clone();
        let other = &texts[dice.below(texts.len())];
        for _ in 0..=dice.below(4) {
            let at = dice.below(sql.len());
            match dice.below(5) {
                0 => drop(sql.drain(at..)),
                1 => sql.insert(at, b"'\"\\();$/*-,.\x00\xff "[dice.below(15)]),
                2 => sql.extend_from_slice(&other[dice.below(other.len())..]),
                3 => sql.splice(at..at, other.iter().copied()).for_each(drop),
                _ => sql.truncate(at),
            }
        }
        for statement in judge(&sql, Reading::default(), &eyes(Policy::default())).statements {
            assert!(statement.text.end <= sql.len());
        }
    }
}

#[test]
fn rules_are_distinct_words() {
    let effects = Effect::ALL.iter().map(|effect| effect.word());
    let mut words: Vec<_> = rule::ALL.iter().copied().chain(effects).collect();
    let all = words.len();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), all);
}

#[test]
fn effects_are_read_by_their_words() {
    for effect in Effect::ALL {
        assert_eq!(effect.word().parse(), Ok(*effect));
    }
    let unknown = "lo".parse::<Effect>();
    assert_eq!(
        unknown,
        Err(UnknownEffect {
            word: "lo".to_owned()
        })
    );
    assert!(unknown.is_err_and(|error| error.to_string().contains("large-objects")));
}

#[test]
fn built_in_lists_are_sorted_and_whole() {
    for text in [
        include_str!("data/functions.txt"),
        include_str!("data/operators.txt"),
        include_str!("data/types.txt"),
    ] {
        let names: Vec<_> = text
            .lines()
            .filter(|line| !line.starts_with("-- "))
            .collect();
        assert!(names.len() > 50);
        assert!(names.is_sorted());
    }
    let listed = |name: &str| {
        include_str!("data/functions.txt")
            .lines()
            .any(|line| line == name)
    };
    for name in [
        "nextval",
        "txid_current",
        "lo_put",
        "set_config",
        "pg_notify",
        "query_to_xml",
    ] {
        assert!(!listed(name), "{name}");
    }
}
