//! Pieces of code and what they say.

use super::*;

fn found(code: &str) -> (Vec<Effect>, bool) {
    let scan = scan(code, true);
    let effects = Effect::ALL.iter().copied();
    let effects = effects
        .filter(|e| scan.nature.effects.contains(*e))
        .collect();
    (effects, scan.nature.way_out)
}

#[test]
fn names_with_effects_are_found_where_they_are_called() {
    let cases: &[(&str, &[Effect])] = &[
        ("BEGIN PERFORM pg_notify('c', 'x'); END", &[Effect::Notify]),
        (
            "PERFORM pg_catalog.PG_NOTIFY ('c', 'x');",
            &[Effect::Notify],
        ),
        ("PERFORM \"pg_notify\"('c', 'x');", &[Effect::Notify]),
        ("-- pg_notify('c', 'x')\nRETURN 1;", &[]),
        ("/* pg_notify( /* nested */ pg_notify( */ RETURN 1;", &[]),
        ("RAISE NOTICE 'pg_notify(1, 2)';", &[]),
        (
            "EXECUTE 'select pg_notify(''c'', ''x'')';",
            &[Effect::Notify],
        ),
        (
            "EXECUTE $q$select lo_create(0)$q$;",
            &[Effect::LargeObjects],
        ),
        ("EXECUTE E'select\\tlo_create(0)';", &[Effect::LargeObjects]),
        ("pg_notify := 1;", &[]),
        ("NOTIFY channel;", &[Effect::Notify]),
        ("SELECT notify FROM t;", &[]),
        ("IF x THEN LOCK TABLE t; END IF;", &[Effect::Lock]),
        ("LOCK t IN ACCESS EXCLUSIVE MODE;", &[Effect::Lock]),
        ("LOCK \"in\"; RAISE 'exclusive mode';", &[Effect::Lock]),
        ("LOCK t IN EXCLUSIVE MODE;", &[]),
        ("LOCK TABLE t, u IN SHARE ROW EXCLUSIVE MODE NOWAIT;", &[]),
        ("COPY t TO PROGRAM 'cat';", &[Effect::ServerFiles]),
        ("COPY (SELECT 1) TO '/tmp/x';", &[Effect::ServerFiles]),
        ("COPY t FROM PROGRAM 'cat';", &[Effect::ServerFiles]),
        ("COPY t FROM '/tmp/x';", &[]),
        (
            "EXECUTE 'copy t to program ''cat''';",
            &[Effect::ServerFiles],
        ),
        ("ANALYZE t;", &[Effect::Maintenance]),
    ];
    for (code, effects) in cases {
        assert_eq!(found(code).0, *effects, "{code}");
    }
}

#[test]
fn ways_out_of_read_only_are_found() {
    for code in [
        "PERFORM set_config('default_transaction_read_only', 'off', false);",
        "PERFORM set_config('transaction_' || 'read_only', 'off', false);",
        "PERFORM set_config(name, value, false);",
        "SET default_transaction_read_only = off;",
        "SET LOCAL transaction_read_only TO off;",
        "RESET default_transaction_read_only;",
        "COMMIT; SET TRANSACTION READ WRITE;",
        "EXECUTE 'SET transaction_read_only = off';",
        "UPDATE pg_settings SET setting = 'off';",
        "UPDATE pg_catalog.pg_settings SET setting = 'off';",
    ] {
        assert!(found(code).1, "{code}");
    }
    for code in [
        "PERFORM set_config('work_mem', '1MB', false);",
        "RETURN current_setting('transaction_read_only');",
        "SELECT setting FROM pg_settings;",
    ] {
        assert!(!found(code).1, "{code}");
    }
}

#[test]
fn other_languages_are_taken_word_by_word() {
    let python = "plpy.execute(\"select pg_notify('a', 'b')\")  # note";
    assert!(scan(python, false).nature.effects.contains(Effect::Notify));
}

#[test]
fn code_that_does_not_end_is_looked_through_to_its_end() {
    for code in [
        "'", "\"", "/*", "$", "$$", "$a$ x", "E'", "E'\\", "--", "é", "'é", "$é$x", "+-", "/",
        "a$b$",
    ] {
        let _ = scan(code, true);
        let _ = scan(code, false);
    }
    assert_eq!(cut("$1+$2").len(), 5);
}
