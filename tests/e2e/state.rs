//! What a session has goes with it: settings however they were made, role, prepared statements.

use anyhow::{Result, ensure};
use tokio_postgres::Client;
use writefence_tests::postgres::skipped;

use crate::support::{Pair, value};
use crate::wire::{Wire, parameters};

/// Moves the primary to `b` without a word to the clients.
async fn moved(pair: &Pair) -> Result<()> {
    pair.b.wait_caught_up(&pair.a).await?;
    pair.ctl(0, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    Ok(())
}

async fn shows(client: &Client, expected: &[(&str, &str)]) -> Result<()> {
    for (sql, expected) in expected {
        let found = value(client, sql).await?;
        ensure!(
            found == *expected,
            "{sql}: {found:?} instead of {expected:?}"
        );
    }
    Ok(())
}

/// Sets a custom parameter and one of the server's, of which neither text nor tag tells.
const SETTER: &str = "CREATE FUNCTION become(text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN \
     PERFORM set_config('app.tenant', $1, false); \
     PERFORM set_config('work_mem', '9MB', false); END $$";

#[tokio::test]
async fn settings_made_inside_functions_move() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    pair.a.query(SETTER).await?;
    let client = pair.client().await?;
    client
        .batch_execute("SELECT become('bl\u{fc}e ''n'' \\')")
        .await?;
    client
        .query("SELECT set_config('app.user', $1, false)", &[&"42"])
        .await?;
    moved(&pair).await?;
    shows(
        &client,
        &[
            ("SHOW app.tenant", "bl\u{fc}e 'n' \\"),
            ("SHOW work_mem", "9MB"),
            ("SELECT current_setting('app.user')", "42"),
        ],
    )
    .await
}

#[tokio::test]
async fn what_was_asked_before_outlives_a_killed_primary() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|_| ()).await?;
    pair.a.query(SETTER).await?;
    let client = pair.client().await?;
    client
        .batch_execute("SELECT become('blue'); SET application_name = 'mine'")
        .await?;
    pair.b.wait_caught_up(&pair.a).await?;
    pair.ctl(0, &["preflight", "--to", "b"]).await?;
    pair.a.kill()?;
    let failover = [
        "failover",
        "--to",
        "b",
        "--reason",
        "x",
        "--accept-loss",
        "--confirm",
    ];
    pair.ctl(0, &failover).await?;
    shows(
        &client,
        &[
            ("SHOW app.tenant", "blue"),
            ("SHOW work_mem", "9MB"),
            ("SHOW application_name", "mine"),
            ("SELECT inet_server_port()", &pair.b.port().to_string()),
        ],
    )
    .await
}

#[tokio::test]
async fn what_a_transaction_left_is_what_moves() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let plain = value(&pair.client().await?, "SHOW work_mem").await?;
    let back = pair.client().await?;
    let both = pair.client().await?;
    let failed = pair.client().await?;
    let local = pair.client().await?;
    back.batch_execute(
        "BEGIN; SET work_mem = '5MB'; SAVEPOINT s; SET work_mem = '6MB'; SET app.x = 'y'; \
         ROLLBACK TO s; COMMIT",
    )
    .await?;
    both.execute("BEGIN", &[]).await?;
    both.execute("SET work_mem = '5MB'", &[]).await?;
    both.execute("SAVEPOINT s", &[]).await?;
    both.execute("SET maintenance_work_mem = '7MB'", &[])
        .await?;
    both.execute("RELEASE s", &[]).await?;
    both.execute("COMMIT", &[]).await?;
    failed.batch_execute("BEGIN; SET work_mem = '5MB'").await?;
    drop(failed.batch_execute("SELECT 1/0").await);
    failed.batch_execute("COMMIT").await?;
    local
        .batch_execute(
            "BEGIN; SET LOCAL work_mem = '5MB'; SELECT set_config('app.x', 'z', true); COMMIT",
        )
        .await?;
    moved(&pair).await?;
    shows(&back, &[("SHOW work_mem", "5MB")]).await?;
    shows(
        &both,
        &[
            ("SHOW work_mem", "5MB"),
            ("SHOW maintenance_work_mem", "7MB"),
        ],
    )
    .await?;
    shows(&failed, &[("SHOW work_mem", &plain)]).await?;
    shows(&local, &[("SHOW work_mem", &plain)]).await?;
    for client in [&back, &local] {
        // Reset to nothing rather than unheard of: that is what the first server left as well.
        shows(
            client,
            &[("SELECT coalesce(current_setting('app.x', true), '')", "")],
        )
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn roles_move_in_the_order_that_allows_them() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    pair.a
        .query("CREATE ROLE one; CREATE ROLE two; GRANT two TO one")
        .await?;
    let client = pair.client().await?;
    client
        .batch_execute(
            "SET session_replication_role = replica; SET SESSION AUTHORIZATION one; SET ROLE two; \
             SET search_path = two, public",
        )
        .await?;
    let gone = pair.client().await?;
    gone.batch_execute(
        "SET ROLE one; RESET ROLE; SET SESSION AUTHORIZATION one; RESET SESSION AUTHORIZATION",
    )
    .await?;
    moved(&pair).await?;
    shows(
        &client,
        &[
            ("SELECT session_user", "one"),
            ("SELECT current_user", "two"),
            ("SHOW session_replication_role", "replica"),
            ("SHOW search_path", "two, public"),
        ],
    )
    .await?;
    shows(
        &gone,
        &[
            ("SELECT session_user", "postgres"),
            ("SELECT current_user", "postgres"),
        ],
    )
    .await
}

#[tokio::test]
async fn what_was_discarded_does_not_come_back() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let client = pair.client().await?;
    let plain = value(&client, "SHOW work_mem").await?;
    client
        .batch_execute("SET work_mem = '5MB'; PREPARE p AS SELECT 1; LISTEN news; SET app.x = 'y'")
        .await?;
    client.batch_execute("DISCARD ALL").await?;
    let some = pair.client().await?;
    some.batch_execute(
        "PREPARE p AS SELECT 1; PREPARE q AS SELECT 2; DEALLOCATE p; LISTEN a; LISTEN b; UNLISTEN a; \
         SET work_mem = '5MB'; SET maintenance_work_mem = '7MB'; RESET work_mem",
    )
    .await?;
    some.batch_execute("DISCARD PLANS").await?;
    some.batch_execute("DISCARD SEQUENCES").await?;
    moved(&pair).await?;
    let prepared = "SELECT string_agg(name, ',') FROM pg_prepared_statements WHERE from_sql";
    shows(
        &client,
        &[
            ("SHOW work_mem", &plain),
            ("SELECT count(*) FROM pg_prepared_statements", "0"),
            ("SELECT count(*) FROM pg_listening_channels()", "0"),
            ("SELECT current_setting('app.x', true) IS NULL", "t"),
        ],
    )
    .await?;
    shows(
        &some,
        &[
            ("SHOW work_mem", &plain),
            ("SHOW maintenance_work_mem", "7MB"),
            (prepared, "q"),
            (
                "SELECT string_agg(c, ',') FROM pg_listening_channels() c",
                "b",
            ),
        ],
    )
    .await
}

#[tokio::test]
async fn startup_options_and_reported_parameters_move_and_are_told_once() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    // A server that would greet its clients otherwise.
    pair.b
        .query("ALTER SYSTEM SET DateStyle = 'SQL, DMY'")
        .await?;
    pair.b.query("SELECT pg_reload_conf()").await?;
    let params = [
        ("options", "-c work_mem=3MB -c app.opt=1"),
        ("application_name", "wired"),
        ("TimeZone", "Asia/Tokyo"),
        ("client_encoding", "LATIN1"),
    ];
    let (mut wire, _) = Wire::login(pair.daemon.port(), &params).await?;
    let told = wire.query("SET IntervalStyle = 'iso_8601'").await?;
    ensure!(parameters(&told) == ["IntervalStyle"], "{told:?}");
    moved(&pair).await?;
    let mut told = Vec::new();
    for (sql, expected) in [
        ("SHOW work_mem", "3MB"),
        ("SHOW app.opt", "1"),
        ("SHOW application_name", "wired"),
        ("SHOW TimeZone", "Asia/Tokyo"),
        ("SHOW client_encoding", "LATIN1"),
        ("SHOW IntervalStyle", "iso_8601"),
        ("SHOW DateStyle", "ISO, MDY"),
    ] {
        let answer = wire.query(sql).await?;
        let found = crate::wire::value(&answer);
        ensure!(
            found == expected,
            "{sql}: {found:?} instead of {expected:?}"
        );
        told.extend(parameters(&answer));
    }
    ensure!(
        told.is_empty(),
        "nothing changed for the client, and it was told: {told:?}"
    );
    Ok(())
}

#[tokio::test]
async fn the_unnamed_statement_outlives_a_fence_and_a_move() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let (mut wire, _) = Wire::login(pair.daemon.port(), &[]).await?;
    wire.parse("INSERT INTO t VALUES (1)").await?;
    // The wall goes up in the session and comes down again.
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    pair.ctl(0, &["abort"]).await?;
    wire.execute().await?;
    pair.ctl(0, &["sessions"]).await?;
    wire.execute().await?;
    moved(&pair).await?;
    wire.execute().await?;
    ensure!(pair.rows(&pair.b).await? == "3");
    Ok(())
}

#[tokio::test]
async fn a_prepared_statement_that_became_impossible_does_not_end_its_session() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    pair.a.query("CREATE TABLE gone (a int)").await?;
    let client = pair.client().await?;
    let dead = client.prepare("SELECT a FROM gone").await?;
    let alive = client.prepare("SELECT count(*) FROM t").await?;
    client
        .batch_execute("PREPARE dead AS SELECT * FROM gone")
        .await?;
    pair.a.query("DROP TABLE gone").await?;
    moved(&pair).await?;
    ensure!(client.query(&dead, &[]).await.is_err());
    client.query(&alive, &[]).await?;
    ensure!(pair.rows(&pair.b).await? == "0");
    Ok(())
}

#[tokio::test]
async fn a_session_that_made_itself_read_only_stays_so() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let own = pair.client().await?;
    own.batch_execute("SET default_transaction_read_only = on")
        .await?;
    let all = pair.client().await?;
    all.batch_execute(
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE",
    )
    .await?;
    let none = pair.client().await?;
    none.batch_execute("SELECT 1").await?;
    pair.ctl(0, &["preflight", "--to", "b"]).await?;
    moved(&pair).await?;
    for client in [&own, &all] {
        shows(client, &[("SHOW transaction_read_only", "on")]).await?;
    }
    shows(&all, &[("SHOW transaction_isolation", "serializable")]).await?;
    shows(&none, &[("SHOW default_transaction_read_only", "off")]).await?;
    none.batch_execute("INSERT INTO t VALUES (1)").await?;
    Ok(())
}
