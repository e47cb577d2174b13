//! A real API on PostgreSQL behind both fronts: requests and their SQL are fenced in order.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use writefence_tests::api::Api;
use writefence_tests::eventually::{pause, until};
use writefence_tests::ledger::{Outcome, Plan, Report, Rows, Shape, Window};
use writefence_tests::ports::free_port;
use writefence_tests::postgres::skipped;
use writefence_tests::{DaemonOptions, Ledger};

use crate::support::Pair;

const SOON: Duration = Duration::from_secs(5);

/// Load before and after a move.
const AROUND: Duration = Duration::from_millis(1500);

/// The pair with an instance of the API in each region, and the HTTP front before them.
struct Stage {
    pair: Pair,
    front: u16,
    ledger: Ledger,
    _apis: [Api; 2],
}

impl Stage {
    async fn start(tune: impl FnOnce(&mut DaemonOptions)) -> Result<Self> {
        let (front, a, b) = (free_port()?, free_port()?, free_port()?);
        let pair = Pair::start(|options| {
            options.http = vec![("a".to_owned(), a), ("b".to_owned(), b)];
            options.extra = format!(
                "[[group.main.listen]]\nkind = \"http\"\naddress = \"127.0.0.1:{front}\"\n"
            );
            tune(options);
        })
        .await?;
        let ledger = Ledger::create(&pair.a).await?;
        pair.b.wait_caught_up(&pair.a).await?;
        let database = Ledger::endpoint(pair.daemon.port());
        let apis = [
            Api::start("a", a, database.clone())?,
            Api::start("b", b, database)?,
        ];
        Ok(Self {
            pair,
            front,
            ledger,
            _apis: apis,
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
        let mut stream = TcpStream::connect(("127.0.0.1", self.front)).await?;
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: api.test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
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
    let stage = Stage::start(|_| ()).await?;
    let pair = &stage.pair;
    let steps = Shape::ApiSteps.code();
    let before = stage.post(&format!("/steps/9/{steps}/0/1")).await?;
    until("its first row", SOON, async || {
        let rows = pair.a.connect("postgres", "app").await?;
        let rows = rows
            .query_one("SELECT count(*) FROM ledger WHERE run = 9", &[])
            .await?;
        Ok(rows.get::<_, i64>(0) > 0)
    })
    .await?;
    let begin = Instant::now();
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "test"])
        .await?;
    let took = begin.elapsed();
    let status = pair.group().await?;
    ensure!(status["phase"] == "fenced", "{status}");
    let text = answer(before).await?;
    ensure!(
        text.starts_with("HTTP/1.1 201"),
        "all three writes were done: {text}"
    );
    ensure!(
        took > Duration::from_millis(150),
        "the sql lane waited for it: {took:?}"
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
