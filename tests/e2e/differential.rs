//! The same scripted conversations with PostgreSQL and through writefence: the same answers, byte
//! for byte, however the messages are cut, after a fence, and for reads while it stands.
//!
//! The scripts are in `tests/data/differential.txt`. After each, nothing may count as in flight.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio_postgres::Client;
use writefence_tests::eventually::until;
use writefence_tests::postgres::{Options, skipped};
use writefence_tests::script::{Cut, Script, Talk};
use writefence_tests::{Cluster, Daemon, DaemonOptions, process};

use crate::support::startup;

const SCRIPTS: &str = include_str!("../data/differential.txt");

const SOON: Duration = Duration::from_secs(30);

/// Longer writes are cut at places of even distance instead of at every byte: with a pause at each
/// of some thousand cuts the test would take minutes.
const CUTS: usize = 12;

/// Writes longer than this are not sent byte by byte.
const BYTEWISE: usize = 2_000;

/// A server, the daemon in front of it, and somebody else's connection.
struct Stage {
    daemon: Daemon,
    server: Cluster,
    other: Client,
}

impl Stage {
    async fn set() -> Result<Self> {
        let server = Cluster::create("a", &Options::default()).await?;
        server
            .query("CREATE TABLE diff (a int PRIMARY KEY, b text)")
            .await?;
        server
            .query("INSERT INTO diff VALUES (1, 'one'), (2, 'two'), (3, NULL)")
            .await?;
        let daemon = Daemon::start(DaemonOptions::new(&[&server])).await?;
        daemon.wait_open().await?;
        let other = server.connect("postgres", "postgres").await?;
        Ok(Self {
            daemon,
            server,
            other,
        })
    }

    async fn direct(&self) -> Result<Talk> {
        Talk::start(self.server.port(), &startup()).await
    }

    async fn proxied(&self) -> Result<Talk> {
        Talk::start(self.daemon.port(), &startup()).await
    }

    async fn ctl(&self, args: &[&str]) -> Result<()> {
        let answer = self.daemon.ctl(args).await?;
        let log = process::tail(&self.daemon.log());
        ensure!(answer.code == 0, "{args:?}: {}\n{log}", answer.text);
        Ok(())
    }

    async fn fence(&self) -> Result<()> {
        self.ctl(&["prepare", "--primary", "a", "--reason", "test"])
            .await
    }

    async fn open(&self) -> Result<()> {
        self.ctl(&["abort"]).await
    }

    /// Nothing of a session that has come to rest counts as in flight.
    async fn at_rest(&self) -> Result<()> {
        until("the counts to be zero", SOON, async || {
            let flight = self.daemon.status().await?["in_flight"].clone();
            let kinds = ["executing", "orphaned", "open_transactions", "held"];
            Ok(kinds.iter().all(|kind| flight[kind] == 0))
        })
        .await
    }
}

/// What a direct connection answers, and what the proxy answers under `cut`; both from the start.
async fn play(talk: &mut Talk, script: &Script, cut: Cut, other: &Client) -> Result<Vec<String>> {
    let mut told = talk
        .play(script, cut, other)
        .await
        .with_context(|| script.name.clone())?;
    if !script.ends {
        // Whatever came beyond what was waited for shows here.
        told.extend(talk.query("SELECT 'the end'").await?);
    }
    Ok(told)
}

/// Differences found so far, told together.
#[derive(Default)]
struct Found(String);

impl Found {
    fn compare(&mut self, script: &Script, how: &str, direct: &[String], through: &[String]) {
        if direct == through || script.ends && same_end(direct, through) {
            return;
        }
        let at = direct
            .iter()
            .zip(through)
            .position(|(a, b)| a != b)
            .unwrap_or(direct.len().min(through.len()));
        let line = |told: &[String]| told.get(at).cloned().unwrap_or_else(|| "nothing".into());
        let _ = write!(
            self.0,
            "\n{}, {how}, message {at}:\n  PostgreSQL: {:.300}\n  writefence: {:.300}",
            script.name,
            line(direct),
            line(through)
        );
    }

    fn none(self) -> Result<()> {
        ensure!(self.0.is_empty(), "answers differ:{}", self.0);
        Ok(())
    }
}

/// Both closed the connection, and if PostgreSQL said why, the SQLSTATE is the same. It says
/// nothing about a length that cannot be; we do. The words are everybody's own.
fn same_end(direct: &[String], through: &[String]) -> bool {
    let reason = |told: &[String]| {
        let error = told.iter().rfind(|line| line.starts_with("E "))?;
        let at = error.find("\\x00C")? + 5;
        error.get(at..at + 5).map(str::to_owned)
    };
    let closed = |told: &[String]| told.last().is_some_and(|last| last == "(closed)");
    let expected = reason(direct).unwrap_or_else(|| "08P01".into());
    closed(direct) && closed(through) && reason(through).is_none_or(|own| own == expected)
}

fn scripts() -> Result<Vec<Script>> {
    let scripts = Script::all(SCRIPTS)?;
    ensure!(scripts.len() > 60, "only {} scripts", scripts.len());
    Ok(scripts)
}

#[tokio::test]
async fn answers_are_postgresqls_own_byte_for_byte() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let stage = Stage::set().await?;
    let mut found = Found::default();
    for script in scripts()? {
        let direct = play(
            &mut stage.direct().await?,
            &script,
            Cut::Whole,
            &stage.other,
        )
        .await?;
        for cut in [Cut::Whole, Cut::Bytes] {
            if cut == Cut::Bytes && script.longest() > BYTEWISE {
                continue;
            }
            let mut talk = stage.proxied().await?;
            let through = play(&mut talk, &script, cut, &stage.other).await?;
            found.compare(&script, &format!("{cut:?}"), &direct, &through);
            stage
                .at_rest()
                .await
                .with_context(|| format!("after {}", script.name))?;
        }
    }
    found.none()
}

#[tokio::test]
async fn a_message_may_be_cut_anywhere() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let stage = Stage::set().await?;
    let mut found = Found::default();
    for script in scripts()?.iter().filter(|script| !script.ends) {
        // Parameters are told when they change, so all begin alike.
        let mut direct = stage.direct().await?;
        let first = play(&mut direct, script, Cut::Whole, &stage.other).await?;
        let mut talk = stage.proxied().await?;
        for at in (1..script.longest()).step_by(script.longest().div_ceil(CUTS)) {
            talk.query("DISCARD ALL").await?;
            let through = play(&mut talk, script, Cut::Before(at), &stage.other).await?;
            found.compare(script, &format!("cut before byte {at}"), &first, &through);
        }
    }
    stage.at_rest().await?;
    found.none()
}

#[tokio::test]
async fn a_session_that_saw_a_fence_answers_as_before() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let stage = Stage::set().await?;
    let mut found = Found::default();
    let scripts = scripts()?;
    let mut talks = Vec::new();
    for _ in &scripts {
        talks.push(stage.proxied().await?);
    }
    stage.fence().await?;
    // Wall two stands in each of them before it is taken down again.
    for talk in &mut talks {
        talk.query("SELECT 1").await?;
    }
    stage.open().await?;
    for (script, mut talk) in scripts.iter().zip(talks) {
        let direct = play(&mut stage.direct().await?, script, Cut::Whole, &stage.other).await?;
        let through = play(&mut talk, script, Cut::Whole, &stage.other).await?;
        found.compare(script, "after a fence", &direct, &through);
    }
    stage.at_rest().await?;
    found.none()
}

#[tokio::test]
async fn reads_do_not_notice_a_fence() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let stage = Stage::set().await?;
    let mut found = Found::default();
    stage.fence().await?;
    for script in scripts()?.iter().filter(|script| script.reads) {
        let direct = play(&mut stage.direct().await?, script, Cut::Whole, &stage.other).await?;
        for cut in [Cut::Whole, Cut::Bytes] {
            if cut == Cut::Bytes && script.longest() > BYTEWISE {
                continue;
            }
            let mut talk = stage.proxied().await?;
            let through = play(&mut talk, script, cut, &stage.other).await?;
            found.compare(script, &format!("fenced, {cut:?}"), &direct, &through);
        }
    }
    found.none()
}

/// A startup packet of this protocol version.
fn hello(version: u32, options: &[u8]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend_from_slice(b"user\0postgres\0database\0postgres\0");
    body.extend_from_slice(options);
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap_or_default();
    [&length.to_be_bytes()[..], &body].concat()
}

#[tokio::test]
async fn a_login_is_greeted_as_by_postgresql() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let stage = Stage::set().await?;
    let plain: [&[u8]; 4] = [
        b"",
        b"application_name\0me\0",
        b"options\0-c TimeZone=Asia/Tokyo\0",
        b"_pq_.unheard_of\0on\0",
    ];
    for options in plain {
        let packet = hello(0x0003_0000, options);
        let mut direct = Talk::start(stage.server.port(), &packet).await?.greeting;
        let through = Talk::start(stage.daemon.port(), &packet).await?.greeting;
        // Servers that speak 3.2 name it; what is asked for here is 3.0.
        for line in &mut direct {
            if line.starts_with("v ") {
                *line = line.replace("\\x00\\x03\\x00\\x02", "\\x00\\x03\\x00\\x00");
            }
        }
        ensure!(direct == through, "{direct:#?}\n{through:#?}");
    }
    // 3.2 is spoken; a newer one is negotiated down, and named in full: clients refuse a bare 2.
    let newer = "v \\x00\\x03\\x00\\x02\\x00\\x00\\x00\\x00";
    for (version, first) in [
        (0x0003_0002, "R \\x00\\x00\\x00\\x00"),
        (0x0003_270f, newer),
    ] {
        let greeting = Talk::start(stage.daemon.port(), &hello(version, b""))
            .await?
            .greeting;
        ensure!(
            greeting.first().is_some_and(|line| line == first),
            "{greeting:#?}"
        );
        ensure!(greeting.last().is_some_and(|last| last == "Z I"));
    }
    Ok(())
}
