//! A real API on PostgreSQL behind both fronts: requests and their SQL are fenced in order.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use writefence_tests::api::Api;
use writefence_tests::daemon::HttpOptions;
use writefence_tests::eventually::{pause, until};
use writefence_tests::ledger::{Outcome, Plan, Report, Rows, Shape, Window};
use writefence_tests::ports::free_port;
use writefence_tests::postgres::skipped;
use writefence_tests::{DaemonOptions, Ledger};

use crate::support::Pair;

const SOON: Duration = Duration::from_secs(30);

/// Load before and after a move.
const AROUND: Duration = Duration::from_millis(1500);

/// The pair with an instance of the API in each region, and the HTTP front before them.
struct Stage {
    pair: Pair,
    front: u16,
    ledger: Ledger,
    apis: [Option<Api>; 2],
}

impl Stage {
    async fn start(tune: impl FnOnce(&mut DaemonOptions)) -> Result<Self> {
        let (a, b) = (free_port()?, free_port()?);
        let http = HttpOptions::new(&[a, b])?;
        let front = http.port;
        let pair = Pair::start(|options| {
            options.front = Some(http);
            options.be_patient();
            tune(options);
        })
        .await?;
        let ledger = Ledger::create(&pair.a).await?;
        pair.b.wait_caught_up(&pair.a).await?;
        let database = Ledger::endpoint(pair.daemon.port());
        let apis = [
            Some(Api::start("a", a, database.clone())?),
            Some(Api::start("b", b, database)?),
        ];
        Ok(Self {
            pair,
            front,
            ledger,
            apis,
        })
    }

    /// A switchover to `b` under load, and what it did.
    async fn moved(&self) -> Result<Report> {
        let plan = Plan::new(Ledger::endpoint(self.pair.daemon.port())).with_api(self.front);
        let load = self.ledger.load(&plan)?;
        load.warm().await?;
        pause(AROUND).await;
        let from = load.now();
        self.pair
            .ctl(0, &["switchover", "--to", "b", "--reason", "test"])
            .await?;
        pause(AROUND).await;
        let window = Window {
            from,
            to: load.now(),
        };
        let left = Rows::read(&self.pair.a, load.run()).await.ok();
        let history = load.stop().await?;
        self.ledger
            .check(&history, window, &self.pair.b, left.as_ref())
            .await
    }

    /// Starts a request and does not wait.
    async fn post(&self, path: &str) -> Result<TcpStream> {
        self.send("POST", path).await
    }

    async fn get(&self, path: &str) -> Result<String> {
        answer(self.send("GET", path).await?).await
    }

    async fn send(&self, method: &str, path: &str) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.front)).await?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: api.test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        Ok(stream)
    }
}

async fn answer(mut stream: TcpStream) -> Result<String> {
    let mut text = String::new();
    let read = stream.read_to_string(&mut text);
    tokio::time::timeout(Duration::from_secs(60), read)
        .await
        .context("no answer")??;
    Ok(text)
}

fn nothing_lost(report: &Report) -> Result<()> {
    let f = &report.findings;
    ensure!(f.acked_lost.is_empty(), "acknowledged and lost\n{report}");
    ensure!(
        f.acked_only_on_old.is_empty(),
        "only on the old primary\n{report}"
    );
    ensure!(f.duplicates.is_empty(), "doubled\n{report}");
    ensure!(f.refused_present.is_empty(), "refused, yet there\n{report}");
    ensure!(
        report.count(Outcome::Unknown) == 0,
        "unknown outcomes\n{report}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_and_its_database_move_under_load_and_no_client_sees_an_error() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let stage = Stage::start(|_| ()).await?;
    let report = stage.moved().await?;
    nothing_lost(&report)?;
    ensure!(report.errors() == 0, "clients saw errors\n{report}");
    ensure!(
        report.connections_lost() == 0,
        "connections were closed\n{report}"
    );
    println!("{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_that_is_refused_was_not_executed() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let stage = Stage::start(|options| options.answer = "reject".to_owned()).await?;
    let report = stage.moved().await?;
    nothing_lost(&report)?;
    let refused: u64 = report
        .shapes
        .iter()
        .filter(|shape| Shape::API.contains(&shape.shape))
        .filter_map(|shape| shape.outcomes.get(&Outcome::Refused))
        .sum();
    ensure!(refused > 0, "no request was refused\n{report}");
    println!("{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_admitted_before_the_fence_does_all_its_writes_and_a_later_one_waits()
-> Result<()> {
    if skipped() {
        return Ok(());
    }
    let stage = Stage::start(|options| "60s".clone_into(&mut options.http_deadline)).await?;
    let pair = &stage.pair;
    // Its first row waits for us, so that it is under way for as long as it has to be.
    let locked = pair.a.connect("postgres", "app").await?;
    locked
        .batch_execute("BEGIN; LOCK TABLE ledger IN SHARE MODE")
        .await?;
    let steps = Shape::ApiSteps.code();
    let before = stage.post(&format!("/steps/9/{steps}/0/1")).await?;
    until("its first row to be on its way", SOON, async || {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        Ok(pair.a.value(waits).await? == "1")
    })
    .await?;
    let prepare = pair.ctl(0, &["prepare", "--primary", "a", "--reason", "test"]);
    let goes_on = async {
        until("its lane to be fenced", SOON, async || {
            Ok(pair.group().await?["lanes"]["http"]["phase"] == "fenced")
        })
        .await?;
        let status = pair.group().await?;
        ensure!(
            status["lanes"]["sql"]["phase"] == "open",
            "the sql lane waits for it: {status}"
        );
        Ok(locked.batch_execute("COMMIT").await?)
    };
    let (prepared, went_on) = tokio::join!(prepare, goes_on);
    went_on?;
    prepared?;
    let status = pair.group().await?;
    ensure!(status["phase"] == "fenced", "{status}");
    let text = answer(before).await?;
    ensure!(
        text.starts_with("HTTP/1.1 201"),
        "all three writes were done: {text}"
    );
    let after = stage
        .post(&format!("/orders/9/{}/0/2", Shape::ApiWrite.code()))
        .await?;
    pair.until_held(1).await?;
    let drain = pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    ensure!(drain["outcome"] == "drained", "{drain}");
    pair.ctl(0, &["promote", "--new-primary", "b", "--confirm"])
        .await?;
    pair.ctl(0, &["open-writes", "--primary", "b"]).await?;
    let text = answer(after).await?;
    ensure!(
        text.starts_with("HTTP/1.1 201"),
        "the later one runs after the move: {text}"
    );
    ensure!(text.contains("served-by: b"), "in the new region: {text}");
    let rows = pair.b.connect("postgres", "app").await?;
    let rows = rows
        .query_one("SELECT count(*) FROM ledger WHERE run = 9", &[])
        .await?;
    ensure!(rows.get::<_, i64>(0) == 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_goes_to_the_other_region_while_the_primarys_cannot_be_reached() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut stage = Stage::start(|_| ()).await?;
    let read = stage.get("/orders/1").await?;
    ensure!(
        read.contains("served-by: a"),
        "the primary's own region: {read}"
    );
    stage.apis[0] = None;
    // The standby has to have been seen once.
    until("a read to go to the other one", SOON, async || {
        let read = stage.get("/orders/1").await?;
        Ok(read.starts_with("HTTP/1.1 200") && read.contains("served-by: b"))
    })
    .await?;
    let write = stage
        .post(&format!("/orders/9/{}/0/1", Shape::ApiWrite.code()))
        .await?;
    let write = answer(write).await?;
    ensure!(
        !write.starts_with("HTTP/1.1 2"),
        "a write goes nowhere else: {write}"
    );
    Ok(())
}
