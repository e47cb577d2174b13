//! The algebra on databases made by hand: what a statement comes to, and what decided.

use super::facts::{
    Class, Edge, Event, Name, Oid, Operator, Relation, Routine, Rule, Storage, Type, Used,
};
use super::*;
use crate::pg::classify::{Effect, Eyes, Policy, Reading, Verdict, judge};

/// A database under construction; numbers are given in order.
#[derive(Default)]
struct Database(Facts, Oid);

impl Database {
    fn name(&mut self, name: &str) -> Name {
        self.1 += 1;
        let (schema, local) = name.split_once('.').unwrap_or(("public", name));
        Name {
            oid: self.1,
            schema: schema.to_owned(),
            local: local.to_owned(),
        }
    }

    fn routine(&mut self, name: &str, arguments: usize, language: &str, body: &str) -> Oid {
        let name = self.name(name);
        let oid = name.oid;
        self.0.routines.push(Routine {
            name,
            language: language.to_owned(),
            volatile: true,
            least: arguments,
            most: arguments,
            body: body.to_owned(),
            ..Routine::default()
        });
        oid
    }

    fn relation(&mut self, name: &str, of: impl FnOnce(&mut Relation)) -> Oid {
        let mut relation = Relation {
            name: self.name(name),
            ..Relation::default()
        };
        of(&mut relation);
        self.0.relations.push(relation);
        self.1
    }

    fn view(&mut self, name: &str, query: &str) -> Oid {
        self.relation(name, |r| r.view = Some(query.to_owned()))
    }

    fn type_(&mut self, name: &str, check: Option<&str>) -> Oid {
        let name = self.name(name);
        self.0.types.push(Type {
            name,
            opaque: false,
            checks: check.map(str::to_owned).into_iter().collect(),
        });
        self.1
    }

    fn uses(&mut self, from: (Class, Oid), to: (Class, Oid)) {
        self.0.edges.push(Edge {
            from: Some(from),
            to: Used::Own(to.0, to.1),
        });
    }

    fn judge_with(&self, policy: Policy, sql: &str) -> (Verdict, &'static str, String) {
        let eyes = Eyes::of_facts(policy, &self.0);
        let judged = judge(sql.as_bytes(), Reading::default(), &eyes);
        let worst = judged.statements.into_iter().max_by_key(|s| s.verdict);
        let worst = worst.expect("a statement");
        (
            worst.verdict,
            worst.rule,
            worst.decided_by.unwrap_or_default(),
        )
    }

    #[track_caller]
    fn check(&self, cases: &[(&str, Verdict, &str)]) {
        for (sql, verdict, rule) in cases {
            let found = self.judge_with(Policy::default(), sql);
            assert_eq!((found.0, found.1), (*verdict, *rule), "{sql}: {found:?}");
        }
    }
}

use Verdict::{Read, Uncertain, Write};

#[test]
fn a_function_in_sql_is_looked_through() {
    let mut db = Database::default();
    db.relation("t", |_| {});
    db.routine("pure", 1, "sql", "SELECT $1 + 1");
    db.routine("reads", 0, "sql", "SELECT count(*) FROM t");
    db.routine("twice", 0, "sql", "SELECT pure(1) + pure(reads()::int)");
    db.routine("writes", 0, "sql", "UPDATE t SET a = 1");
    db.routine("tells", 0, "sql", "SELECT pg_notify('c', '')");
    db.routine("tells_twice", 0, "sql", "SELECT 1; NOTIFY c");
    db.routine("opaque", 0, "plpgsql", "BEGIN RETURN 1; END");
    db.routine(
        "opens",
        0,
        "sql",
        "SELECT set_config('transaction_read_only', 'off', true)",
    );
    db.routine("sets", 0, "sql", "SET default_transaction_read_only = off");
    db.routine("broken", 0, "sql", "SELECT (");
    db.check(&[
        ("SELECT pure(1)", Read, "query"),
        ("SELECT public.pure(1)", Read, "query"),
        ("SELECT twice()", Read, "query"),
        ("SELECT pure()", Uncertain, "function"),
        ("SELECT other.pure(1)", Uncertain, "function"),
        ("SELECT writes()", Uncertain, "function"),
        ("SELECT tells()", Write, "notify"),
        ("SELECT tells_twice()", Write, "notify"),
        ("SELECT opaque()", Uncertain, "function"),
        ("SELECT opens()", Write, "way-out"),
        ("SELECT sets()", Write, "way-out"),
        ("SELECT broken()", Uncertain, "function"),
        ("SELECT missing()", Uncertain, "function"),
    ]);
}

#[test]
fn a_standard_body_is_looked_through() {
    let mut db = Database::default();
    for (name, body) in [
        ("adds", "RETURN (a + 1)"),
        (
            "tells",
            "BEGIN ATOMIC\n SELECT pg_notify('c'::text, ''::text);\nEND",
        ),
        ("harmless", "BEGIN ATOMIC\n SELECT 1;\n SELECT 2;\nEND"),
    ] {
        db.routine(name, 0, "sql", "");
        let routine = db.0.routines.last_mut().expect("just added");
        routine.standard_body = Some(body.to_owned());
    }
    db.check(&[
        ("SELECT adds()", Read, "query"),
        ("SELECT tells()", Write, "notify"),
        ("SELECT harmless()", Read, "query"),
    ]);
}

#[test]
fn functions_that_call_each_other_in_a_circle_are_settled() {
    let mut db = Database::default();
    db.routine("even", 1, "sql", "SELECT $1 = 0 OR odd($1 - 1)");
    db.routine("odd", 1, "sql", "SELECT $1 <> 0 AND even($1 - 1)");
    db.routine("ping", 0, "sql", "SELECT pong()");
    db.routine("pong", 0, "sql", "SELECT ping(), pg_notify('c', '')");
    db.check(&[
        ("SELECT even(3)", Read, "query"),
        ("SELECT ping()", Write, "notify"),
    ]);
}

/// Whatever the search_path is, the built-in one may not be the one that is called.
#[test]
fn a_name_of_a_built_in_stands_for_the_users_too() {
    let mut db = Database::default();
    db.routine("shadow.lower", 1, "plpgsql", "BEGIN RETURN $1; END");
    db.routine("shadow.upper", 1, "sql", "SELECT pg_catalog.upper($1)");
    db.routine("shadow.abs", 1, "plpgsql", "BEGIN NOTIFY c; RETURN $1; END");
    let plus = db.routine("shadow.plus", 2, "plpgsql", "BEGIN RETURN 1; END");
    let name = db.name("shadow.+");
    let operator = name.oid;
    db.0.operators.push(Operator { name, unary: false });
    db.uses((Class::Operator, operator), (Class::Routine, plus));
    db.type_("shadow.date", Some("length(VALUE::text) > opaque()"));
    db.check(&[
        ("SELECT lower('A')", Uncertain, "function"),
        ("SELECT pg_catalog.lower('A')", Read, "query"),
        ("SELECT upper('a')", Read, "query"),
        ("SELECT abs(1)", Write, "notify"),
        ("SELECT 1 + 2", Uncertain, "operator"),
        ("SELECT + 2", Read, "query"),
        ("SELECT 1 - 2", Read, "query"),
        ("SELECT 1 OPERATOR(pg_catalog.+) 2", Read, "query"),
        ("SELECT 'x'::date", Uncertain, "type"),
        ("SELECT 'x'::pg_catalog.date", Read, "query"),
    ]);
}

#[test]
fn keywords_that_stand_for_operators_are_looked_up() {
    let mut db = Database::default();
    let eq = db.routine("s.eq", 2, "plpgsql", "BEGIN NOTIFY c; END");
    let name = db.name("s.=");
    let operator = name.oid;
    db.0.operators.push(Operator { name, unary: false });
    db.uses((Class::Operator, operator), (Class::Routine, eq));
    db.relation("t", |_| {});
    db.check(&[
        ("SELECT 1 IN (1, 2)", Write, "notify"),
        ("SELECT 1 IN (SELECT 1)", Write, "notify"),
        ("SELECT CASE 1 WHEN 1 THEN 2 END", Write, "notify"),
        ("SELECT * FROM t JOIN t AS u USING (a)", Write, "notify"),
        ("SELECT * FROM t NATURAL JOIN t AS u", Write, "notify"),
        ("SELECT CASE WHEN true THEN 2 END", Read, "query"),
        ("SELECT 1 BETWEEN 1 AND 2", Read, "query"),
    ]);
}

#[test]
fn every_way_to_a_function_leads_to_it() {
    let mut db = Database::default();
    let tells = db.routine(
        "tells",
        1,
        "plpgsql",
        "BEGIN PERFORM pg_notify('c', ''); END",
    );
    let of = (Class::Routine, tells);
    db.relation("t", |_| {});
    db.view("seen", "SELECT public.tells(1)");
    db.view("deep", "SELECT * FROM public.seen");
    db.relation("guarded", |r| r.policies.push("public.tells(1)".into()));
    db.type_("checked", Some("public.tells(VALUE)"));
    let row = db.type_("tuple", None);
    db.uses((Class::Type, row), (Class::Type, row - 1));
    let aggregate = db.routine("sums", 1, "internal", "aggregate_dummy");
    db.0.routines.last_mut().expect("just added").aggregate = true;
    db.uses((Class::Routine, aggregate), of);
    let convertible = db.relation("convertible", |_| {});
    db.uses((Class::Relation, convertible), of);
    db.routine("defaults", 0, "sql", "SELECT 1");
    db.0.routines.last_mut().expect("just added").defaults = Some("public.tells(1)".into());
    db.routine(
        "runs_text",
        0,
        "plpgsql",
        "BEGIN EXECUTE 'SELECT tells(1)'; END",
    );
    db.routine("asks_view", 0, "plpgsql", "BEGIN PERFORM 1 FROM deep; END");
    db.routine("renamed", 1, "internal", "pg_notify");
    db.routine("carries", 0, "sql", "SELECT 1");
    db.0.routines.last_mut().expect("just added").settings =
        vec!["transaction_read_only=off".into()];
    db.check(&[
        ("SELECT * FROM t, seen", Write, "notify"),
        ("TABLE deep", Write, "notify"),
        ("COPY deep TO STDOUT", Write, "notify"),
        ("COPY (TABLE deep) TO STDOUT", Write, "notify"),
        ("SELECT a FROM guarded", Write, "notify"),
        ("SELECT 1::checked", Write, "notify"),
        ("SELECT checked('1')", Write, "notify"),
        ("SELECT '(1)'::tuple", Write, "notify"),
        (
            "PREPARE p(checked) AS SELECT $1; EXECUTE p(1)",
            Uncertain,
            "execute",
        ),
        ("SELECT sums(1)", Write, "notify"),
        ("SELECT * FROM convertible", Write, "notify"),
        ("SELECT t.tells FROM t", Write, "notify"),
        ("SELECT (t).tells FROM t", Write, "notify"),
        ("SELECT t.a FROM t", Read, "query"),
        ("SELECT (t).a FROM t", Read, "query"),
        ("SELECT defaults()", Write, "notify"),
        ("SELECT runs_text()", Write, "notify"),
        ("SELECT asks_view()", Write, "notify"),
        ("SELECT renamed(1)", Write, "notify"),
        ("SELECT carries()", Write, "way-out"),
        ("EXPLAIN TABLE deep", Uncertain, "notify"),
        ("WITH deep AS (SELECT 1) TABLE deep", Read, "query"),
        (
            "SELECT (WITH deep AS (SELECT 1) SELECT 1), a FROM deep",
            Write,
            "notify",
        ),
    ]);
}

#[test]
fn explain_is_refused_where_the_planner_may_run_an_effect() {
    let mut db = Database::default();
    db.routine("tells", 0, "plpgsql", "BEGIN NOTIFY c; END");
    db.routine("lies", 0, "plpgsql", "BEGIN NOTIFY c; RETURN 1; END");
    if let Some(lies) = db.0.routines.last_mut() {
        lies.volatile = false;
    }
    db.view("seen", "SELECT lies()");
    db.check(&[
        ("EXPLAIN SELECT tells()", Uncertain, "notify"),
        ("EXPLAIN SELECT lies()", Write, "notify"),
        ("EXPLAIN TABLE seen", Write, "notify"),
        ("EXPLAIN DELETE FROM t WHERE a = lies()", Write, "notify"),
    ]);
}

#[test]
fn what_decided_is_named_from_the_outside_inwards() {
    let mut db = Database::default();
    let tells = db.routine("tells", 0, "plpgsql", "BEGIN NOTIFY c; END");
    let seen = db.view("seen", "SELECT public.tells()");
    db.uses((Class::Relation, seen), (Class::Routine, tells));
    let found = db.judge_with(Policy::default(), "TABLE seen");
    assert_eq!(found.2, "seen > public.tells > its code");
}

#[test]
fn conversions_between_built_in_types_concern_every_query() {
    let mut db = Database::default();
    let tells = db.routine("tells", 1, "plpgsql", "BEGIN NOTIFY c; END");
    db.0.edges.push(Edge {
        from: None,
        to: Used::Own(Class::Routine, tells),
    });
    db.check(&[
        ("SELECT 1", Write, "notify"),
        ("SHOW work_mem", Read, "show"),
    ]);
}

#[test]
fn a_relation_that_is_not_known_is_left_to_postgresql() {
    let db = Database::default();
    db.check(&[
        ("SELECT * FROM made_since", Uncertain, "relation"),
        ("COPY made_since TO STDOUT", Uncertain, "relation"),
    ]);
    let strict = Policy {
        strict: true,
        ..Policy::default()
    };
    let found = db.judge_with(strict, "SELECT * FROM made_since");
    assert_eq!(found.0, Uncertain);
}

#[test]
fn foreign_tables_are_an_effect_of_their_own_but_for_files() {
    let mut db = Database::default();
    let far = db.relation("far", |r| r.storage = Storage::Foreign);
    db.relation("file", |r| r.storage = Storage::ForeignFile);
    let parent = db.relation("parent", |_| {});
    db.uses((Class::Relation, parent), (Class::Relation, far));
    db.check(&[
        ("SELECT * FROM far", Write, "foreign-tables"),
        ("SELECT * FROM parent", Write, "foreign-tables"),
        ("SELECT * FROM file", Read, "query"),
    ]);
    let pass = Policy {
        pass: [Effect::ForeignTables].into_iter().collect(),
        strict: false,
        temporaries: false,
    };
    assert_eq!(db.judge_with(pass, "SELECT * FROM far").0, Uncertain);
}

/// One that passes does not hide another one that does not.
#[test]
fn an_effect_that_passes_hides_no_other() {
    let mut db = Database::default();
    db.routine(
        "both",
        0,
        "plpgsql",
        "BEGIN NOTIFY c; PERFORM lo_create(0); END",
    );
    db.routine("both_sql", 0, "sql", "NOTIFY c; SELECT lo_create(0)");
    for one in [Effect::Notify, Effect::LargeObjects] {
        let pass = Policy {
            pass: [one].into_iter().collect(),
            strict: false,
            temporaries: false,
        };
        assert_eq!(db.judge_with(pass, "SELECT both()").0, Write);
        assert_eq!(db.judge_with(pass, "SELECT both_sql()").0, Write);
    }
}

#[test]
fn a_rule_may_take_the_place_of_a_change() {
    let mut db = Database::default();
    let rule = |event, replaces, does: &str| Rule {
        event,
        replaces,
        definition: format!("CREATE RULE r AS ON INSERT TO public.x DO {does}"),
    };
    db.relation("nothing", |r| {
        r.rules.push(rule(Event::Insert, true, "INSTEAD NOTHING"));
        r.rules.push(rule(Event::Update, true, "INSTEAD SELECT 1"));
    });
    db.relation("elsewhere", |r| {
        let does = "INSTEAD INSERT INTO public.t VALUES (1)";
        r.rules.push(rule(Event::Insert, true, does));
    });
    db.relation("also", |r| {
        r.rules.push(rule(Event::Insert, false, "ALSO NOTIFY c"));
    });
    db.relation("tells", |r| {
        r.rules.push(rule(Event::Insert, true, "INSTEAD NOTIFY c"));
    });
    db.relation("a.twice", |r| {
        r.rules.push(rule(Event::Insert, true, "INSTEAD NOTHING"));
    });
    db.relation("b.twice", |_| {});
    db.check(&[
        ("INSERT INTO nothing VALUES (1)", Uncertain, "rewritten"),
        ("INSERT INTO nothing SELECT nextval('s')", Write, "sequence"),
        ("UPDATE nothing SET a = 1", Uncertain, "rewritten"),
        ("DELETE FROM nothing", Write, "dml"),
        ("COPY nothing FROM STDIN", Write, "copy-from"),
        ("INSERT INTO elsewhere VALUES (1)", Write, "dml"),
        ("INSERT INTO also VALUES (1)", Write, "dml"),
        ("INSERT INTO tells VALUES (1)", Write, "notify"),
        ("INSERT INTO twice VALUES (1)", Write, "dml"),
        ("INSERT INTO a.twice VALUES (1)", Uncertain, "rewritten"),
    ]);
}

#[test]
fn without_a_catalog_only_what_cannot_be_shadowed_is_a_read() {
    let eyes = Eyes::without_catalog(Policy::default(), "a test");
    let verdict = |sql: &str| judge(sql.as_bytes(), Reading::default(), &eyes).verdict();
    for sql in ["SELECT 1", "SELECT pg_catalog.lower('A')", "SHOW work_mem"] {
        assert_eq!(verdict(sql), Read, "{sql}");
    }
    for sql in [
        "SELECT lower('A')",
        "SELECT 1 + 1",
        "TABLE t",
        "SELECT 'x'::date",
    ] {
        assert_eq!(verdict(sql), Uncertain, "{sql}");
    }
    assert_eq!(verdict("DELETE FROM t"), Write);
}

#[test]
fn a_change_during_a_reading_is_not_overlooked() {
    let shelf = Shelf::new(Catalog::missing("not read"));
    let began = crate::clock::now();
    shelf.changed();
    shelf.put(Catalog::of(Model::default(), 1), began);
    assert!(shelf.catalog().model().is_none());
    let later = crate::clock::now() + std::time::Duration::from_millis(1);
    shelf.put(Catalog::of(Model::default(), 1), later);
    assert!(shelf.catalog().model().is_some());
    shelf.changed();
    assert!(shelf.catalog().model().is_none());
}
