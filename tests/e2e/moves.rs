//! Sessions take their state along, and those that cannot are told why.

use std::time::Duration;

use anyhow::{Result, ensure};
use writefence_tests::eventually::until;
use writefence_tests::postgres::{connect, skipped};

use crate::support::{Pair, value};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn settings_role_and_prepared_statements_move() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    pair.a.query("CREATE ROLE other").await?;
    pair.a.query("GRANT ALL ON t TO other").await?;
    let client = pair.client().await?;
    client
        .batch_execute("SET work_mem = '7MB'; SET search_path = public, pg_temp")
        .await?;
    client
        .batch_execute("SELECT set_config('application_name', 'moved', false)")
        .await?;
    client
        .batch_execute("SET ROLE other; PREPARE p AS SELECT 42; LISTEN news")
        .await?;
    let insert = client.prepare("INSERT INTO t VALUES ($1)").await?;
    client.execute(&insert, &[&1i32]).await?;
    pair.b.wait_caught_up(&pair.a).await?;
    pair.ctl(0, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    client.execute(&insert, &[&2i32]).await?;
    ensure!(value(&client, "SHOW work_mem").await? == "7MB");
    ensure!(value(&client, "SHOW search_path").await? == "public, pg_temp");
    ensure!(value(&client, "SHOW application_name").await? == "moved");
    ensure!(value(&client, "SELECT current_user").await? == "other");
    ensure!(value(&client, "EXECUTE p").await? == "42");
    ensure!(value(&client, "SELECT pg_listening_channels()").await? == "news");
    ensure!(value(&client, "SELECT inet_server_port()").await? == pair.b.port().to_string());
    ensure!(pair.rows(&pair.b).await? == "2");
    Ok(())
}

/// PostgreSQL reads them at login; a session that is moved has the ones of its own.
#[tokio::test]
async fn what_is_altered_for_a_role_or_database_after_a_login_does_not_reach_it_by_a_move()
-> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let alter = async |what: &[&str]| {
        for sql in what {
            pair.a.query(&format!("ALTER {sql}")).await?;
        }
        anyhow::Ok(())
    };
    pair.a.query("CREATE ROLE app LOGIN").await?;
    pair.a.query("GRANT ALL ON t TO app").await?;
    alter(&[
        "ROLE app SET work_mem = '5MB'",
        "ROLE app SET statement_timeout = '77s'",
        "ROLE app SET app.tenant = 'one'",
        "DATABASE postgres SET search_path = a, \"B\"",
    ])
    .await?;
    let login = async || connect(pair.daemon.port(), "app", "postgres").await;
    let (idle, own) = (login().await?, login().await?);
    own.batch_execute("SET work_mem = '9MB'; INSERT INTO public.t VALUES (1)")
        .await?;
    alter(&[
        "ROLE app SET work_mem = '64MB'",
        "ROLE app RESET statement_timeout",
        "ROLE app SET app.tenant = 'two'",
        "ROLE app SET log_min_duration_statement = 0",
        "DATABASE postgres SET search_path = public",
        "DATABASE postgres SET lock_timeout = '3s'",
    ])
    .await?;
    let read = async |client: &tokio_postgres::Client| {
        let mut all = Vec::new();
        for name in [
            "work_mem",
            "statement_timeout",
            "app.tenant",
            "search_path",
            "lock_timeout",
        ] {
            all.push(value(client, &format!("SHOW {name}")).await?);
        }
        anyhow::Ok(all.join(" | "))
    };
    pair.b.wait_caught_up(&pair.a).await?;
    pair.ctl(0, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    for (client, memory) in [(&idle, "5MB"), (&own, "9MB")] {
        let at = value(client, "SELECT inet_server_port()").await?;
        ensure!(at == pair.b.port().to_string(), "it is still on {at}");
        let has = read(client).await?;
        ensure!(
            has == format!("{memory} | 77s | one | a, \"B\" | 0"),
            "{has}"
        );
    }
    // Those that log in now have the new ones, and so has a RESET: there is no other way back.
    let new = "64MB | 0 | two | public | 3s";
    ensure!(read(&login().await?).await? == new);
    own.batch_execute("RESET ALL").await?;
    ensure!(read(&own).await? == new);
    Ok(())
}

#[tokio::test]
async fn a_session_that_cannot_move_is_ended_with_the_reason() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let (temp, lock, plain) = (
        pair.client().await?,
        pair.client().await?,
        pair.client().await?,
    );
    temp.batch_execute("CREATE TEMP TABLE mine (a int)").await?;
    lock.batch_execute("SELECT pg_advisory_lock(1)").await?;
    pair.ctl(0, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    plain.batch_execute("INSERT INTO t VALUES (1)").await?;
    // Ended as soon as the primary has moved; a driver that was waiting for nothing sees the end.
    for client in [&temp, &lock] {
        until("the session to be ended", SOON, async || {
            Ok(client.is_closed())
        })
        .await?;
    }
    let ended = std::fs::read_to_string(pair.daemon.log())?;
    ensure!(ended.contains("it has temporary tables"), "{ended}");
    ensure!(ended.contains("it holds session advisory locks"), "{ended}");
    ensure!(pair.rows(&pair.b).await? == "1");
    Ok(())
}

#[tokio::test]
async fn copy_in_and_out_pass_and_move() -> Result<()> {
    use futures_util::SinkExt;
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let client = pair.client().await?;
    for region in ["b", ""] {
        let sink = client.copy_in("COPY t FROM STDIN").await?;
        let mut sink = Box::pin(sink);
        for _ in 0..100 {
            sink.send(bytes::Bytes::from("1\n".repeat(1000))).await?;
        }
        ensure!(sink.as_mut().finish().await? == 100_000);
        client.batch_execute("SELECT 1").await?;
        if !region.is_empty() {
            pair.b.wait_caught_up(&pair.a).await?;
            pair.ctl(0, &["switchover", "--to", region, "--reason", "x"])
                .await?;
        }
    }
    ensure!(value(&client, "SELECT count(*) FROM t").await? == "200000");
    Ok(())
}

#[tokio::test]
async fn a_message_of_many_megabytes_streams_both_ways() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let client = pair.client().await?;
    let text = "x".repeat(64 * 1024 * 1024);
    let row = client
        .query_one("SELECT length($1::text), $1::text", &[&text])
        .await?;
    ensure!(row.get::<_, i32>(0) as usize == text.len() && row.get::<_, String>(1) == text);
    let long = format!("SELECT length('{text}')");
    ensure!(value(&client, &long).await? == text.len().to_string());
    Ok(())
}
