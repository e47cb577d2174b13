//! What a database's own objects make of a verdict: the catalog as PostgreSQL has it, and a fence.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use writefence_tests::eventually::{eventually, until};
use writefence_tests::postgres::{connect, skipped};
use writefence_tests::{Cluster, Daemon, DaemonOptions};

use crate::support::{Gate, Pair, Raw, sqlstate};

const SOON: Duration = Duration::from_secs(30);

/// One object of every kind that can lead to a function, each with a harmless twin.
const OBJECTS: &str = "
CREATE TABLE plain (a int, b text);
CREATE FUNCTION adds(a int) RETURNS int LANGUAGE sql AS 'SELECT a + 1';
CREATE FUNCTION adds(a text, b text) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
CREATE FUNCTION counts() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM plain; END;
CREATE FUNCTION opaque() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN 1; END';
CREATE FUNCTION tells(int) RETURNS int LANGUAGE plpgsql IMMUTABLE
  AS 'BEGIN PERFORM pg_notify(''c'', ''x''); RETURN $1; END';
CREATE FUNCTION tells_atomic() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT tells(1); END;
CREATE FUNCTION by_default(a int DEFAULT tells(1)) RETURNS int LANGUAGE sql AS 'SELECT a';
CREATE FUNCTION opens() RETURNS text LANGUAGE sql
  AS 'SELECT set_config(''transaction_read_only'', ''off'', false)';
CREATE FUNCTION carries() RETURNS int LANGUAGE sql SET default_transaction_read_only = on AS 'SELECT 1';
CREATE SCHEMA shadow;
CREATE FUNCTION shadow.upper(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
CREATE FUNCTION shadow.minus(int, int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN tells($1); END';
CREATE OPERATOR shadow.- (LEFTARG = int, RIGHTARG = int, FUNCTION = shadow.minus);
CREATE OPERATOR @+@ (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl);
CREATE VIEW quiet AS SELECT a + 1 AS a, adds(a) AS c FROM plain;
CREATE VIEW loud AS SELECT tells(a) AS a FROM plain;
CREATE VIEW deep AS SELECT * FROM loud;
CREATE TABLE guarded (a int);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON guarded USING (tells(a) > 0);
CREATE DOMAIN small AS int CHECK (VALUE < 10);
CREATE DOMAIN loud_int AS int CHECK (tells(VALUE) > 0);
CREATE TYPE colour AS ENUM ('red');
CREATE TYPE pair AS (a loud_int);
CREATE TYPE shape AS (a int);
CREATE FUNCTION shape_text(shape) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN tells(1); END';
CREATE CAST (shape AS text) WITH FUNCTION shape_text(shape) AS IMPLICIT;
CREATE TABLE shapes (a shape);
CREATE AGGREGATE quiet_sum(int) (SFUNC = int4pl, STYPE = int);
CREATE FUNCTION loud_step(int, int) RETURNS int LANGUAGE sql AS 'SELECT tells($1) + $2';
CREATE AGGREGATE loud_sum(int) (SFUNC = loud_step, STYPE = int);
CREATE FUNCTION plain_field(plain) RETURNS int LANGUAGE sql AS 'SELECT tells(1)';
CREATE TABLE dropped (a int);
CREATE RULE r AS ON INSERT TO dropped DO INSTEAD NOTHING;
CREATE TABLE kept (a int);
CREATE RULE r AS ON INSERT TO kept WHERE new.a > 1 DO INSTEAD NOTHING;
CREATE FUNCTION compares(int, int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN tells(1); END';
CREATE OPERATOR CLASS loud_ops FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=,
  OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 compares(int, int);
CREATE TABLE indexed (a int);
CREATE INDEX ON indexed (a loud_ops);
CREATE FOREIGN DATA WRAPPER far_away;
CREATE SERVER far FOREIGN DATA WRAPPER far_away;
CREATE FOREIGN TABLE ft (a int) SERVER far;
CREATE TABLE parts (a int) PARTITION BY RANGE (a);
CREATE FOREIGN TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (10) SERVER far;
";

/// Statement, verdict, rule, and what is named as having decided.
const EXPECTED: &[(&str, &str, &str, &str)] = &[
    ("SELECT a FROM plain WHERE b = 'x'", "read", "query", ""),
    ("SELECT adds(1)", "read", "query", ""),
    ("SELECT adds('a', 'b')", "uncertain", "function", "adds"),
    ("SELECT counts()", "read", "query", ""),
    ("SELECT opaque()", "uncertain", "function", "opaque"),
    ("SELECT tells(1)", "write", "notify", "tells > its code"),
    (
        "SELECT tells_atomic()",
        "write",
        "notify",
        "tells_atomic > public.tells > its code",
    ),
    (
        "SELECT by_default()",
        "write",
        "notify",
        "by_default > public.tells > its code",
    ),
    (
        "SELECT opens()",
        "write",
        "way-out",
        "opens > transaction_read_only",
    ),
    ("SELECT carries()", "write", "way-out", "carries"),
    ("SELECT lower('A')", "read", "query", ""),
    ("SELECT upper('a')", "uncertain", "function", "upper"),
    ("SELECT pg_catalog.upper('a')", "read", "query", ""),
    (
        "SELECT 2 - 1",
        "write",
        "notify",
        "- > shadow.minus > tells > its code",
    ),
    ("SELECT - 1", "read", "query", ""),
    ("SELECT 1 @+@ 1", "read", "query", ""),
    ("SELECT * FROM quiet", "read", "query", ""),
    (
        "SELECT * FROM deep",
        "write",
        "notify",
        "deep > public.loud > public.tells > its code",
    ),
    (
        "SELECT * FROM guarded",
        "write",
        "notify",
        "guarded > public.tells > its code",
    ),
    (
        "SELECT * FROM indexed WHERE a = 1",
        "write",
        "notify",
        "indexed > public.compares > tells > its code",
    ),
    ("SELECT 1::small", "read", "query", ""),
    (
        "SELECT 1::loud_int",
        "write",
        "notify",
        "loud_int > public.tells > its code",
    ),
    ("SELECT 'red'::colour", "read", "query", ""),
    (
        "SELECT '(1)'::pair",
        "write",
        "notify",
        "pair > public.loud_int > public.tells > its code",
    ),
    (
        "SELECT * FROM shapes",
        "write",
        "notify",
        "shapes > public.shape_text > tells > its code",
    ),
    ("SELECT quiet_sum(a) FROM plain", "read", "query", ""),
    (
        "SELECT loud_sum(a) FROM plain",
        "write",
        "notify",
        "loud_sum > public.loud_step > tells > its code",
    ),
    (
        "SELECT plain.plain_field FROM plain",
        "write",
        "notify",
        "plain_field > tells > its code",
    ),
    (
        "INSERT INTO dropped VALUES (1)",
        "uncertain",
        "rewritten",
        "dropped",
    ),
    ("INSERT INTO kept VALUES (1)", "write", "dml", "kept"),
    ("SELECT * FROM ft", "write", "foreign-tables", "ft"),
    (
        "SELECT * FROM parts",
        "write",
        "foreign-tables",
        "parts > public.part",
    ),
    ("SELECT * FROM nosuch", "uncertain", "relation", "nosuch"),
    ("SELECT count(*) FROM pg_stat_activity", "read", "query", ""),
    (
        "SELECT * FROM information_schema.tables",
        "read",
        "query",
        "",
    ),
];

async fn explain(daemon: &Daemon, args: &[&str]) -> Result<Value> {
    let mut all = vec!["explain-sql"];
    all.extend_from_slice(args);
    Ok(daemon.ctl(&all).await?.json)
}

#[tokio::test]
async fn a_verdict_knows_what_the_names_in_a_statement_stand_for() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let server = Cluster::create("a", &Default::default()).await?;
    server.query(OBJECTS).await?;
    let daemon = Daemon::start(DaemonOptions::new(&[&server])).await?;
    daemon.wait_open().await?;
    let mut wrong = Vec::new();
    for (sql, verdict, rule, by) in EXPECTED {
        let found = explain(&daemon, &[sql]).await?;
        let decided = found["decided_by"].as_str().unwrap_or_default();
        let seen = (found["verdict"].as_str(), found["rule"].as_str(), decided);
        if seen != (Some(*verdict), Some(*rule), *by) {
            wrong.push(format!("{sql}: {found}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[tokio::test]
async fn a_catalog_that_cannot_be_had_is_said_and_makes_nothing_a_read() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let server = Cluster::create("a", &Default::default()).await?;
    let daemon = Daemon::start(DaemonOptions::new(&[&server])).await?;
    daemon.wait_open().await?;
    let sql = "SELECT lower('A')";
    let found = explain(&daemon, &["--database", "nosuch", sql]).await?;
    ensure!(
        found["verdict"] == "uncertain" && found["rule"] == "no-catalog",
        "{found}"
    );
    let why = found["no_catalog"].as_str().unwrap_or_default();
    ensure!(
        why.contains("nosuch") && found["database"] == "nosuch",
        "{found}"
    );
    let found = explain(&daemon, &[sql]).await?;
    ensure!(
        found["verdict"] == "read" && found["no_catalog"].is_null(),
        "{found}"
    );
    ensure!(found["database"] == "postgres", "{found}");
    Ok(())
}

/// The function that stands in front of a built-in one waits for the gate, then writes.
const SHADOW: &str = "
CREATE SCHEMA shadow;
CREATE FUNCTION shadow.lower(text) RETURNS text LANGUAGE plpgsql
  AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(4711); INSERT INTO public.t VALUES (1); RETURN $1; END';
";

async fn in_flight(pair: &Pair, query: &str) -> Result<()> {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '{}'",
        query.replace('\'', "''")
    );
    until("the statement to run", SOON, async || {
        Ok(pair.a.value(&sql).await? == "1")
    })
    .await
}

/// Fences while `query` is in flight in a session with the search_path; whether its row was there
/// once the drain said that nothing is in flight.
async fn drained_behind(pair: &Pair, query: &str) -> Result<String> {
    let gate = Gate::shut(&pair.a).await?;
    let mut raw = Raw::login(pair.daemon.port()).await?;
    raw.send("SET search_path = shadow, pg_catalog, public")
        .await?;
    raw.send(query).await?;
    in_flight(pair, query).await?;
    pair.ctl(
        0,
        &["prepare", "--primary", "a", "--reason", "x", "--reject"],
    )
    .await?;
    pair.ctl(4, &["watch-drain", "--max-wait", "1s"]).await?;
    gate.open().await?;
    pair.ctl(0, &["watch-drain", "--max-wait", "10s"]).await?;
    pair.rows(&pair.a).await
}

#[tokio::test]
async fn a_shadowed_built_in_in_flight_at_a_fence_is_waited_for() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|o| o.deadline = "60s".into()).await?;
    pair.a.query(SHADOW).await?;
    ensure!(drained_behind(&pair, "SELECT lower('A')").await? == "1");
    Ok(())
}

/// The function is made behind the daemon's back while the catalog it has is a fresh one, so only
/// one more look behind the fence can tell.
#[tokio::test]
async fn a_shadow_that_was_made_since_the_catalog_was_read_is_waited_for() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|o| o.deadline = "60s".into()).await?;
    let other = pair.client().await?;
    eventually("the catalog to be read", SOON, async || {
        let found = explain(&pair.daemon, &["SELECT lower('A')"]).await?;
        Ok((found["verdict"] == "read").then_some(()))
    })
    .await?;
    pair.a.query(SHADOW).await?;
    ensure!(drained_behind(&pair, "SELECT lower('A')").await? == "1");
    drop(other);
    Ok(())
}

/// The other side of it: what is proven to read does not keep a drain waiting.
#[tokio::test]
async fn a_long_read_in_flight_at_a_fence_does_not_keep_the_drain() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    pair.a.query("INSERT INTO t VALUES (1)").await?;
    let mut raw = Raw::login(pair.daemon.port()).await?;
    let query = "SELECT count(*) FROM t WHERE pg_sleep(120) IS NOT NULL";
    raw.send(query).await?;
    in_flight(&pair, query).await?;
    pair.ctl(
        0,
        &["prepare", "--primary", "a", "--reason", "x", "--reject"],
    )
    .await?;
    pair.ctl(0, &["watch-drain", "--max-wait", "20s"]).await?;
    in_flight(&pair, query).await?;
    Ok(())
}

#[tokio::test]
async fn an_effect_behind_a_function_is_refused_while_fenced() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|o| o.answer = "reject".into()).await?;
    let client = pair.client().await?;
    // Made through the daemon: known at once.
    client
        .batch_execute(
            "CREATE FUNCTION makes() RETURNS oid LANGUAGE plpgsql \
               AS 'BEGIN RETURN lo_create(0); END'; \
             CREATE VIEW made AS SELECT makes() AS a; \
             CREATE FUNCTION lies() RETURNS oid LANGUAGE plpgsql IMMUTABLE \
               AS 'BEGIN RETURN lo_create(0); END'; \
             CREATE FUNCTION reads() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'",
        )
        .await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    for sql in [
        "SELECT makes()",
        "TABLE made",
        "SELECT * FROM made LIMIT 1",
        "EXPLAIN SELECT lies()",
    ] {
        let error = client.batch_execute(sql).await.expect_err(sql);
        ensure!(sqlstate(&error) == "25006", "{sql}: {error}");
    }
    client
        .batch_execute("SELECT reads(); EXPLAIN SELECT makes()")
        .await?;
    let large = pair
        .a
        .value("SELECT count(*) FROM pg_largeobject_metadata")
        .await?;
    ensure!(large == "0", "{large} large objects");
    Ok(())
}

#[tokio::test]
async fn the_first_statement_in_a_database_behind_a_fence_waits_for_its_catalog() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|o| o.answer = "reject".into()).await?;
    pair.a.query("CREATE DATABASE other").await?;
    let direct = pair.a.connect("postgres", "other").await?;
    direct
        .batch_execute(
            "CREATE FUNCTION makes() RETURNS oid LANGUAGE plpgsql \
               AS 'BEGIN RETURN lo_create(0); END'",
        )
        .await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    let client = connect(pair.daemon.port(), "postgres", "other").await?;
    let error = client.batch_execute("SELECT makes()").await;
    let error = error.expect_err("it was refused");
    ensure!(sqlstate(&error) == "25006", "{error}");
    let rows = direct.query("TABLE pg_largeobject_metadata", &[]).await?;
    ensure!(rows.is_empty(), "{} large objects", rows.len());
    Ok(())
}
