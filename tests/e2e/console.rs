//! PgBouncer's console: its tables, its users, and a runbook that was written for it.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio_postgres::{Client, SimpleQueryMessage};
use writefence_tests::eventually::until;
use writefence_tests::postgres::{self, Programs, skipped};
use writefence_tests::script::Talk;

use crate::support::{Pair, sqlstate, startup_of, value};

const SOON: Duration = Duration::from_secs(30);

const USERS: &str = "[console]\nadmin_users = [\"ops\"]\nstats_users = [\"monitor\"]\n";

async fn pair() -> Result<Pair> {
    Pair::start(|options| USERS.clone_into(&mut options.extra)).await
}

async fn console(pair: &Pair, user: &str, database: &str) -> Result<Client> {
    Ok(postgres::connect(pair.daemon.port(), user, database).await?)
}

/// Rows of a SHOW, each as pairs of column and value.
async fn rows(console: &Client, sql: &str) -> Result<Vec<Vec<(String, Option<String>)>>> {
    let messages = console.simple_query(sql).await?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(
            (0..row.len())
                .map(|n| {
                    let name = row.columns()[n].name().to_owned();
                    (name, row.get(n).map(str::to_owned))
                })
                .collect(),
        ),
        _ => None,
    });
    Ok(rows.collect())
}

fn of<'a>(row: &'a [(String, Option<String>)], column: &str) -> Option<&'a str> {
    let found = row.iter().find(|(name, _)| name == column);
    found.and_then(|(_, value)| value.as_deref())
}

async fn is_paused(console: &Client) -> Result<bool> {
    let state = rows(console, "SHOW STATE").await?;
    let paused = state.iter().find(|row| of(row, "key") == Some("paused"));
    Ok(paused.is_some_and(|row| of(row, "value") == Some("yes")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_shows_pgbouncers_tables() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = pair().await?;
    let client = pair.client().await?;
    client.batch_execute("INSERT INTO t VALUES (1)").await?;
    let ops = console(&pair, "ops", "pgbouncer").await?;
    let columns = [
        ("STATE", "key value"),
        ("VERSION", "version"),
        (
            "POOLS",
            "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req \
             sv_active sv_active_cancel sv_being_canceled sv_idle sv_used sv_tested sv_login \
             maxwait maxwait_us pool_mode load_balance_hosts",
        ),
        (
            "CLIENTS",
            "type user database replication state addr port local_addr local_port connect_time \
             request_time wait wait_us close_needed ptr link remote_pid tls application_name \
             prepared_statements id",
        ),
        (
            "SERVERS",
            "type user database replication state addr port local_addr local_port connect_time \
             request_time wait wait_us close_needed ptr link remote_pid tls application_name \
             prepared_statements id",
        ),
        (
            "DATABASES",
            "name host port database force_user pool_size min_pool_size reserve_pool_size \
             server_lifetime pool_mode load_balance_hosts max_connections current_connections \
             max_client_connections current_client_connections paused disabled",
        ),
        (
            "STATS",
            "database total_server_assignment_count total_xact_count total_query_count \
             total_received total_sent total_xact_time total_query_time total_wait_time \
             total_client_parse_count total_server_parse_count total_bind_count \
             avg_server_assignment_count avg_xact_count avg_query_count avg_recv avg_sent \
             avg_xact_time avg_query_time avg_wait_time avg_client_parse_count \
             avg_server_parse_count avg_bind_count",
        ),
        (
            "STATS_TOTALS",
            "database server_assignment_count xact_count query_count bytes_received bytes_sent \
             xact_time query_time wait_time client_parse_count server_parse_count bind_count",
        ),
        (
            "USERS",
            "name pool_size reserve_pool_size pool_mode max_user_connections \
             current_connections max_user_client_connections current_client_connections",
        ),
        ("LISTS", "list items"),
        ("CONFIG", "key value default changeable"),
        ("DNS_HOSTS", "hostname ttl addrs"),
    ];
    for (what, names) in columns {
        let rows = rows(&ops, &format!("SHOW {what};")).await?;
        let first = rows.first().with_context(|| format!("{what} is empty"))?;
        let found: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
        let expected: Vec<&str> = names.split_whitespace().collect();
        ensure!(found == expected, "SHOW {what}: {found:?}");
    }
    let pools = rows(&ops, "show pools").await?;
    let own = pools.iter().find(|row| of(row, "user") == Some("postgres"));
    let own = own.context("the pool of postgres")?;
    ensure!(
        of(own, "cl_active") == Some("1") && of(own, "sv_idle") == Some("1"),
        "{own:?}"
    );
    ensure!(of(own, "pool_mode") == Some("session"), "{own:?}");
    let stats = rows(&ops, "SHOW STATS").await?;
    let own = stats
        .iter()
        .find(|row| of(row, "database") == Some("postgres"));
    let own = own.context("the statistics of postgres")?;
    ensure!(of(own, "total_xact_count") == Some("1"), "{own:?}");
    // What is not measured is not known, and not nothing.
    ensure!(of(own, "total_query_time").is_none(), "{own:?}");
    let config = rows(&ops, "SHOW CONFIG").await?;
    let sessions = config
        .iter()
        .find(|row| of(row, "key") == Some("limits.sessions"));
    let sessions = sessions.context("limits.sessions")?;
    ensure!(of(sessions, "default") == Some("5000") && of(sessions, "changeable") == Some("yes"));
    // In the place of the server: psql and drivers ask and set this without being told to.
    ensure!(value(&ops, "SHOW client_encoding").await? == "UTF-8");
    ops.batch_execute("SET extra_float_digits = 3").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_named_users_have_a_console_and_some_may_only_look() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = pair().await?;
    let refused = postgres::connect(pair.daemon.port(), "postgres", "pgbouncer").await;
    let error = refused.err().context("it was let in")?;
    ensure!(sqlstate(&error) == "42501", "{error:?}");
    let monitor = console(&pair, "monitor", "writefence").await?;
    ensure!(!is_paused(&monitor).await?);
    for command in [
        "PAUSE",
        "RESUME",
        "RELOAD",
        "KILL",
        "KILL_CLIENT 1",
        "RECONNECT",
        "WAIT_CLOSE",
    ] {
        let error = monitor.simple_query(command).await.err();
        let error = error.with_context(|| format!("{command} was done"))?;
        ensure!(sqlstate(&error) == "42501", "{command}: {error:?}");
    }
    let ops = console(&pair, "ops", "pgbouncer").await?;
    for (command, expected) in [
        ("SUSPEND", "0A000"),
        ("SHUTDOWN", "0A000"),
        ("DISABLE postgres", "0A000"),
        ("SHOW FDS", "0A000"),
        ("PAUSE pgbouncer", "0A000"),
        ("SELECT 1 + 1", "42601"),
        ("PAUSE; RESUME", "42601"),
        ("RESUME", "55000"),
        ("KILL_CLIENT x", "22023"),
    ] {
        let error = ops.simple_query(command).await.err();
        let error = error.with_context(|| format!("{command} was done"))?;
        ensure!(sqlstate(&error) == expected, "{command}: {error:?}");
    }
    ensure!(!is_paused(&ops).await?);
    Ok(())
}

/// psql, as a runbook calls it.
async fn psql(pair: &Pair, script: &str) -> Result<String> {
    let mut command = Programs::find()?.client("psql", std::path::Path::new("/"))?;
    command.args(["-X", "-At", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1"]);
    command.args([
        "-p",
        &pair.daemon.port().to_string(),
        "-U",
        "ops",
        "-d",
        "pgbouncer",
    ]);
    for line in script.lines().filter(|line| !line.is_empty()) {
        command.args(["-c", line]);
    }
    command.stdin(Stdio::null());
    let output = tokio::process::Command::from(command).output().await?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(output.status.success(), "psql: {text}");
    Ok(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runbook_of_pgbouncer_pauses_reloads_and_resumes_unchanged() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = pair().await?;
    let client = pair.client().await?;
    ensure!(
        psql(&pair, "PAUSE;\nSHOW STATE;")
            .await?
            .contains("paused|yes")
    );
    let status = pair.group().await?;
    ensure!(
        status["phase"] == "fenced" && status["run"]["reason"] == "PAUSE",
        "{status}"
    );
    // Reads wait as well, and nobody sees an error.
    let read = tokio::spawn(async move { value(&client, "SELECT 42").await });
    pair.until_held(1).await?;
    pair.daemon.options.extra = format!("{USERS}[limits]\nsessions_per_user = 7\n");
    pair.daemon.write_config()?;
    let told = psql(&pair, "RELOAD;\nSHOW CONFIG;\nRESUME;\nSHOW STATE;").await?;
    ensure!(told.contains("limits.sessions_per_user|7|0|yes"), "{told}");
    ensure!(
        told.contains("active|yes") && told.contains("paused|no"),
        "{told}"
    );
    ensure!(read.await?? == "42");
    ensure!(pair.group().await?["phase"] == "open");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_waits_for_open_transactions_and_a_cancel_opens_again() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|options| {
        USERS.clone_into(&mut options.extra);
        // A pause lets transactions end as they are, beyond the grace of a fence.
        "50ms".clone_into(&mut options.grace);
        "100ms".clone_into(&mut options.deadline);
    })
    .await?;
    let writer = pair.client().await?;
    writer
        .batch_execute("BEGIN; INSERT INTO t VALUES (1)")
        .await?;
    let ops = console(&pair, "ops", "pgbouncer").await?;
    let look = console(&pair, "monitor", "pgbouncer").await?;
    let cancel = ops.cancel_token();
    let pausing = tokio::spawn(async move {
        let done = ops.simple_query("PAUSE").await;
        (ops, done)
    });
    until("the pause", SOON, async || is_paused(&look).await).await?;
    writer.batch_execute("INSERT INTO t VALUES (2)").await?;
    ensure!(!pausing.is_finished());
    cancel.cancel_query(tokio_postgres::NoTls).await?;
    let (ops, done) = pausing.await?;
    let error = done.err().context("PAUSE ended well")?;
    ensure!(sqlstate(&error) == "57014", "{error:?}");
    ensure!(!is_paused(&look).await?);
    // The same, and this time the transaction ends.
    let pausing = tokio::spawn(async move {
        let done = ops.simple_query("PAUSE").await;
        (ops, done)
    });
    until("the pause", SOON, async || is_paused(&look).await).await?;
    writer.batch_execute("COMMIT").await?;
    let (ops, done) = pausing.await?;
    done?;
    ensure!(pair.rows(&pair.a).await? == "2");
    ops.simple_query("RESUME").await?;
    writer.batch_execute("INSERT INTO t VALUES (3)").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_is_overtaken_says_so_and_resume_ends_no_run_of_another() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = pair().await?;
    let writer = pair.client().await?;
    writer
        .batch_execute("BEGIN; INSERT INTO t VALUES (1)")
        .await?;
    let ops = console(&pair, "ops", "pgbouncer").await?;
    let other = console(&pair, "ops", "writefence").await?;
    let pausing = tokio::spawn(async move {
        let done = ops.simple_query("PAUSE").await;
        (ops, done)
    });
    until("the pause", SOON, async || is_paused(&other).await).await?;
    other.simple_query("RESUME").await?;
    let (ops, done) = pausing.await?;
    let error = done.err().context("PAUSE ended well")?;
    let said = error.as_db_error().map(|e| e.message().to_owned());
    ensure!(
        said.is_some_and(|said| said.contains("overtaken")),
        "{error:?}"
    );
    writer.batch_execute("COMMIT").await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "CHG-1"])
        .await?;
    for command in ["RESUME", "PAUSE"] {
        let error = ops.simple_query(command).await.err().context(command)?;
        ensure!(sqlstate(&error) == "55000", "{error:?}");
    }
    pair.ctl(0, &["abort"]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_survives_a_restart_and_is_resumed_from_the_console() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = pair().await?;
    psql(&pair, "PAUSE;").await?;
    pair.daemon.kill()?;
    pair.daemon.launch(&[]).await?;
    ensure!(psql(&pair, "SHOW STATE;").await?.contains("paused|yes"));
    psql(&pair, "RESUME;").await?;
    let client = pair.client().await?;
    client.batch_execute("INSERT INTO t VALUES (1)").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_ends_every_session_and_stays_paused_until_resume() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = pair().await?;
    let (idle, busy) = (pair.client().await?, pair.client().await?);
    busy.batch_execute("BEGIN; INSERT INTO t VALUES (1)")
        .await?;
    let ops = console(&pair, "ops", "pgbouncer").await?;
    let clients = rows(&ops, "SHOW CLIENTS").await?;
    let first = clients
        .iter()
        .find(|row| of(row, "user") == Some("postgres"));
    let id = first
        .and_then(|row| of(row, "id"))
        .context("an id")?
        .to_owned();
    ops.simple_query(&format!("KILL_CLIENT {id}")).await?;
    ops.simple_query("KILL").await?;
    for client in [&idle, &busy] {
        until("the connection to end", SOON, async || {
            Ok(client.is_closed())
        })
        .await?;
    }
    ensure!(is_paused(&ops).await?);
    until("the transaction to be undone", SOON, async || {
        Ok(pair.group().await?["drain"]["outcome"] == "drained")
    })
    .await?;
    ensure!(pair.rows(&pair.a).await? == "0");
    ops.simple_query("RESUME").await?;
    pair.client()
        .await?
        .batch_execute("INSERT INTO t VALUES (2)")
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wait_close_ends_when_the_sessions_that_reconnect_marked_are_gone() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = pair().await?;
    let client = pair.client().await?;
    let ops = console(&pair, "ops", "pgbouncer").await?;
    ops.simple_query("WAIT_CLOSE").await?;
    ops.simple_query("RECONNECT").await?;
    let waiting = tokio::spawn(async move { ops.simple_query("WAIT_CLOSE").await.map(|_| ()) });
    let look = console(&pair, "monitor", "pgbouncer").await?;
    let clients = rows(&look, "SHOW CLIENTS").await?;
    ensure!(
        clients
            .iter()
            .any(|row| of(row, "close_needed") == Some("1"))
    );
    ensure!(!waiting.is_finished());
    // One that came later is not waited for.
    let _later = pair.client().await?;
    drop(client);
    waiting.await??;
    Ok(())
}

/// A command tag, or the SQLSTATE of a refusal and what it offers.
type Comes = Result<&'static str, (&'static str, &'static str)>;

/// The commands of PgBouncer's manual ("Admin console"), as its examples have them, and what comes of
/// each: its command tag, or the SQLSTATE of a refusal and what it offers instead.
const MANUAL: [(&str, Comes); 46] = [
    ("SHOW HELP;", Ok("SHOW")),
    ("SHOW STATS;", Ok("SHOW")),
    ("SHOW STATS_TOTALS;", Ok("SHOW")),
    ("SHOW STATS_AVERAGES;", Ok("SHOW")),
    ("SHOW TOTALS;", Ok("SHOW")),
    ("SHOW SERVERS;", Ok("SHOW")),
    ("SHOW CLIENTS;", Ok("SHOW")),
    ("SHOW POOLS;", Ok("SHOW")),
    ("SHOW PEER_POOLS;", Ok("SHOW")),
    ("SHOW LISTS;", Ok("SHOW")),
    ("SHOW USERS;", Ok("SHOW")),
    ("SHOW DATABASES;", Ok("SHOW")),
    ("SHOW PEERS;", Ok("SHOW")),
    ("SHOW CONFIG;", Ok("SHOW")),
    ("SHOW DNS_HOSTS;", Ok("SHOW")),
    ("SHOW DNS_ZONES;", Ok("SHOW")),
    ("SHOW VERSION;", Ok("SHOW")),
    ("SHOW STATE;", Ok("SHOW")),
    ("SHOW FDS;", Err(("0A000", "SHOW CLIENTS"))),
    ("SHOW MEM;", Err(("0A000", "SHOW CLIENTS"))),
    ("SHOW SOCKETS;", Err(("0A000", "SHOW CLIENTS"))),
    ("SHOW ACTIVE_SOCKETS;", Err(("0A000", "SHOW CLIENTS"))),
    ("SET log_connections = 1;", Err(("0A000", "RELOAD"))),
    ("SET server_check_query TO 2;", Err(("0A000", "RELOAD"))),
    ("DISABLE postgres;", Err(("0A000", "PAUSE"))),
    ("ENABLE postgres;", Err(("0A000", "PAUSE"))),
    ("SUSPEND;", Err(("0A000", "PAUSE"))),
    ("SHUTDOWN;", Err(("0A000", "stop the service"))),
    (
        "SHUTDOWN WAIT_FOR_SERVERS;",
        Err(("0A000", "stop the service")),
    ),
    (
        "SHUTDOWN WAIT_FOR_CLIENTS;",
        Err(("0A000", "stop the service")),
    ),
    ("KILL_CLIENT 999999;", Err(("22023", "not found"))),
    ("RELOAD;", Ok("RELOAD")),
    // It is not paused.
    ("RESUME;", Err(("55000", "not paused"))),
    ("PAUSE;", Ok("PAUSE")),
    ("PAUSE;", Err(("55000", "already suspended/paused"))),
    ("RESUME;", Ok("RESUME")),
    ("PAUSE postgres;", Ok("PAUSE")),
    ("SHOW DATABASES;", Ok("SHOW")),
    ("RESUME postgres;", Ok("RESUME")),
    ("WAIT_CLOSE;", Ok("WAIT_CLOSE")),
    ("WAIT_CLOSE postgres;", Ok("WAIT_CLOSE")),
    ("RECONNECT other;", Ok("RECONNECT")),
    ("RECONNECT;", Ok("RECONNECT")),
    ("KILL postgres;", Ok("KILL")),
    ("RESUME postgres;", Ok("RESUME")),
    ("KILL;", Ok("KILL")),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_command_of_pgbouncers_manual_works_or_names_what_is_offered_instead() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = pair().await?;
    let client = pair.client().await?;
    client.batch_execute("SELECT 1").await?;
    let mut talk = Talk::start(pair.daemon.port(), &startup_of("ops", "pgbouncer")).await?;
    for (command, expected) in MANUAL {
        let told = talk.query(command).await?.join("\n");
        match expected {
            Ok(tag) => ensure!(
                told.contains(&format!("C {tag}\\x00")) && !told.contains("SERROR"),
                "{command}: {told}"
            ),
            Err((sqlstate, offered)) => ensure!(
                told.contains(&format!("C{sqlstate}")) && told.contains(offered),
                "{command}: {told}"
            ),
        }
    }
    until("the session to end", SOON, async || Ok(client.is_closed())).await?;
    ensure!(talk.query("RESUME;").await?.join("").contains("C RESUME"));
    pair.client().await?.batch_execute("SELECT 1").await?;
    Ok(())
}
