//! Groups without a database: HTTP origins or Redis alone are fenced, drained, moved and verified.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use writefence_tests::eventually::until;
use writefence_tests::http::{Raw, Upstream, send};
use writefence_tests::ports::free_port;
use writefence_tests::postgres::skipped;
use writefence_tests::redis::{Redis, RedisClient};
use writefence_tests::{Daemon, DaemonOptions, process};

use crate::http_support::SOON;

const POST: &str = "POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";

/// A daemon before two HTTP origins and nothing else.
struct Origins {
    daemon: Daemon,
    a: Upstream,
    b: Upstream,
    port: u16,
}

impl Origins {
    async fn start(driver: &str, extra: &str) -> Result<Self> {
        let (a, b, port) = (
            Upstream::start("a").await?,
            Upstream::start("b").await?,
            free_port()?,
        );
        let mut options = DaemonOptions::without_database(
            "a",
            &format!(
                "[group.main.region.a]\nhttp = \"http://127.0.0.1:{}\"\n\
                 [group.main.region.b]\nhttp = \"http://127.0.0.1:{}\"\n\
                 [[group.main.listen]]\nkind = \"http\"\naddress = \"127.0.0.1:{port}\"\n",
                a.port(),
                b.port()
            ),
        );
        driver.clone_into(&mut options.driver);
        extra.clone_into(&mut options.extra);
        let daemon = Daemon::start(options).await?;
        Ok(Self { daemon, a, b, port })
    }

    async fn opened(driver: &str, extra: &str) -> Result<Self> {
        let origins = Self::start(driver, extra).await?;
        if driver.is_empty() {
            // Nothing tells which of them takes writes.
            let first = ["open-writes", "--primary", "a"];
            origins.ctl(0, &first).await?;
        }
        let log = || process::tail(&origins.daemon.log());
        origins.daemon.wait_open().await.with_context(log)?;
        Ok(origins)
    }

    async fn ctl(&self, code: i32, args: &[&str]) -> Result<Value> {
        let said = self.daemon.ctl(args).await?;
        ensure!(said.code == code, "{}: {}", args.join(" "), said.text);
        Ok(said.json)
    }

    async fn post(&self) -> Result<(u16, Value)> {
        let reply = send(self.port, "POST", "/orders", "", "").await?;
        let answer = match reply.status {
            200 => reply.json()["server"].clone(),
            _ => reply.json()["executed"].clone(),
        };
        Ok((reply.status, answer))
    }
}

#[tokio::test]
async fn http_origins_alone_move_step_by_step_and_a_held_write_runs_there() -> Result<()> {
    let origins = Origins::opened("", "").await?;
    assert_eq!(origins.post().await?, (200, "a".into()));
    let mut group = Value::Null;
    until("both to be seen", SOON, async || {
        group = origins.daemon.status().await?;
        let regions = group["regions"].as_array().context("regions")?;
        Ok(regions.iter().all(|region| region["reachable"] == true))
    })
    .await?;
    for region in group["regions"].as_array().context("regions")? {
        for unknown in ["role", "writable", "system_identifier", "timeline", "lsn"] {
            assert_eq!(region[unknown], Value::Null, "nobody tells: {region}");
        }
    }
    let prepare = [
        "prepare",
        "--primary",
        "a",
        "--reason",
        "INC-1",
        "--hold",
        "60s",
    ];
    origins.ctl(0, &prepare).await?;
    let mut held = Raw::connect(origins.port).await?;
    held.send(POST).await?;
    until("the write to be held", SOON, async || {
        Ok(origins.daemon.status().await?["in_flight"]["held"] == 1)
    })
    .await?;
    let reads = send(origins.port, "GET", "/orders", "", "").await?;
    assert_eq!(reads.json()["server"], "a", "reads flow");
    origins.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    let promoted = ["promote", "--new-primary", "b", "--confirm"];
    let run = origins.ctl(0, &promoted).await?;
    assert_eq!(run["certificate"]["evidence"]["kind"], "override", "{run}");
    assert_eq!(run["certificate"]["system_identifier"], Value::Null);
    assert_eq!(run["certificate"]["fence_lsn"], Value::Null);
    let exceptions = run["exceptions"].to_string();
    ensure!(exceptions.contains("nothing else is known"), "{exceptions}");
    origins.ctl(0, &["open-writes", "--primary", "b"]).await?;
    assert_eq!(held.reply().await?.json()["server"], "b");
    origins.ctl(0, &["verify", "--primary", "b"]).await?;
    assert_eq!(origins.b.seen_at("/orders").len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_switchover_between_http_origins_goes_there_and_back_and_survives_a_restart() -> Result<()>
{
    let mut origins = Origins::opened("", "").await?;
    let preflight = origins.ctl(0, &["preflight", "--to", "b"]).await?;
    let text = preflight.to_string();
    ensure!(text.contains("your word"), "{text}");
    ensure!(!text.contains("standby"), "no word of databases: {text}");
    for (to, run) in [("b", "INC-1"), ("a", "INC-2"), ("b", "INC-3")] {
        let run = origins
            .ctl(0, &["switchover", "--to", to, "--reason", run])
            .await?;
        assert_eq!(run["state"], "done", "{run}");
        assert_eq!(origins.post().await?, (200, to.into()));
    }
    origins.daemon.stop().await?;
    origins.daemon.launch(&[]).await?;
    origins.daemon.wait_open().await?;
    assert_eq!(
        origins.post().await?,
        (200, "b".into()),
        "the state decides"
    );
    // A kill leaves requests that nobody can ask about: that is for an operator to say.
    origins.daemon.kill()?;
    origins.daemon.launch(&[]).await?;
    origins.daemon.wait_open().await?;
    let prepare = ["prepare", "--primary", "b", "--reason", "t", "--reject"];
    origins.ctl(0, &prepare).await?;
    assert_eq!(origins.post().await?, (503, false.into()));
    origins
        .ctl(4, &["watch-drain", "--max-wait", "300ms"])
        .await?;
    let ack = ["unknown", "ack", "--all", "--reason", "looked at"];
    origins.ctl(0, &ack).await?;
    origins.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    origins.ctl(0, &["abort"]).await?;
    assert_eq!(origins.post().await?, (200, "b".into()));
    Ok(())
}

#[tokio::test]
async fn an_operator_may_open_elsewhere_and_a_drain_waits_for_the_request_before_it() -> Result<()>
{
    let origins = Origins::opened("", "").await?;
    let mut slow = Raw::connect(origins.port).await?;
    slow.send("POST /slow?ms=700 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        .await?;
    until("the request to be there", SOON, async || {
        Ok(origins.a.seen().len() == 1)
    })
    .await?;
    let prepare = ["prepare", "--primary", "a", "--reason", "t", "--reject"];
    origins.ctl(0, &prepare).await?;
    // Not before what was admitted has ended.
    origins.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    assert_eq!(origins.a.done(), 1, "drained before the request had ended");
    assert_eq!(slow.reply().await?.status, 200);
    origins.ctl(0, &["open-writes", "--primary", "b"]).await?;
    assert_eq!(origins.post().await?, (200, "b".into()));
    Ok(())
}

/// A driver whose answers stand in files, one per region, and whose promotion changes them.
fn program(folder: &std::path::Path, promote: &str) -> Result<String> {
    let path = folder.join("driver");
    let text = format!(
        "cd {}\nin=$(cat)\nregion=$(echo \"$in\" | sed 's/.*\"region\":\"\\([a-z]\\)\".*/\\1/')\n\
         echo \"$in\" >> asked\nif [ $WRITEFENCE_VERB = promote ]; then {promote}; fi\ncat $region\n",
        folder.display()
    );
    fs::write(&path, text)?;
    fs::write(folder.join("a"), PRIMARY)?;
    fs::write(folder.join("b"), STANDBY)?;
    Ok(format!(
        // Run by the shell: a file that was just written may be held open by a process that is being
        // started elsewhere.
        "kind = \"command\"\ncommand = [\"sh\", \"{}\"]\ntimeout = \"20s\"",
        path.display()
    ))
}

const PRIMARY: &str = r#"{"role":"primary","writable":true,"identity":"api"}"#;
const STANDBY: &str = r#"{"role":"standby","writable":false,"identity":"api"}"#;

#[tokio::test]
async fn a_program_promotes_and_its_word_decides_whether_writes_open() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path();
    let driver = program(path, &format!("echo '{PRIMARY}' > b"))?;
    let origins = Origins::opened(&driver, "").await?;
    // It says of the old region that it still takes writes: never two.
    let failed = origins
        .ctl(3, &["switchover", "--to", "b", "--reason", "t"])
        .await?;
    let text = failed.to_string();
    ensure!(text.contains("still takes writes"), "{text}");
    assert_eq!(origins.daemon.status().await?["phase"], "fenced");
    fs::write(path.join("a"), STANDBY)?;
    let run = origins.ctl(0, &["resume"]).await?;
    assert_eq!(run["state"], "done", "{run}");
    assert_eq!(origins.post().await?, (200, "b".into()));
    let asked = fs::read_to_string(path.join("asked"))?;
    let promoted = asked.lines().find(|line| line.contains("\"promote\""));
    ensure!(
        promoted
            .context("it was asked")?
            .contains("\"pinned\":null"),
        "{asked}"
    );
    Ok(())
}

#[tokio::test]
async fn a_first_start_that_the_program_contradicts_is_for_the_operator() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let driver = program(folder.path(), "true")?;
    fs::write(folder.path().join("a"), STANDBY)?;
    fs::write(folder.path().join("b"), PRIMARY)?;
    let origins = Origins::start(&driver, "").await?;
    until("the contradiction to be told", SOON, async || {
        let group = origins.daemon.status().await?;
        Ok(group["notices"].to_string().contains("open-writes"))
    })
    .await?;
    assert_eq!(origins.post().await?, (503, false.into()));
    origins.ctl(3, &["open-writes", "--primary", "a"]).await?;
    origins.ctl(0, &["open-writes", "--primary", "b"]).await?;
    assert_eq!(origins.post().await?, (200, "b".into()));
    Ok(())
}

#[tokio::test]
async fn a_first_start_that_nothing_is_told_of_is_for_the_operator() -> Result<()> {
    let origins = Origins::start("", "").await?;
    until("the operator to be asked", SOON, async || {
        let group = origins.daemon.status().await?;
        let notices = group["notices"].to_string();
        Ok(notices.contains("nothing tells which region takes writes"))
    })
    .await?;
    assert_eq!(origins.post().await?, (503, false.into()));
    let read = send(origins.port, "GET", "/orders", "", "").await?;
    assert_eq!(read.status, 200, "reads flow");
    origins.ctl(0, &["open-writes", "--primary", "a"]).await?;
    assert_eq!(origins.post().await?, (200, "a".into()));
    let notices = origins.daemon.status().await?["notices"].to_string();
    ensure!(!notices.contains("first start"), "what is over: {notices}");
    Ok(())
}

#[tokio::test]
async fn a_second_region_that_takes_writes_by_the_programs_word_sounds_the_alarm() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let driver = program(folder.path(), "true")?;
    let origins = Origins::opened(&driver, "").await?;
    let alarms = async || {
        let group = origins.daemon.status().await?;
        anyhow::Ok(group["notices"].to_string().contains("SPLIT BRAIN: b"))
    };
    assert!(!alarms().await?);
    fs::write(folder.path().join("b"), PRIMARY)?;
    until("the alarm", SOON * 2, async || alarms().await).await?;
    // A program that fails says nothing, so nothing is over.
    fs::write(folder.path().join("b"), "broken")?;
    let asked = || fs::read_to_string(folder.path().join("asked")).unwrap_or_default();
    let before = asked().lines().count();
    // Two questions on both regions: the first after the change has been answered.
    until("the program to be asked again", SOON * 3, async || {
        Ok(asked().lines().count() >= before + 4)
    })
    .await?;
    assert!(alarms().await?);
    fs::write(folder.path().join("b"), STANDBY)?;
    until("the alarm's end", SOON * 2, async || Ok(!alarms().await?)).await
}

#[tokio::test]
async fn a_program_that_must_show_the_old_region_stopped_is_required_to() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let flag = folder.path().join("stopped");
    let evidence = format!(
        "[group.main.evidence]\nstopped = [\"test\", \"-e\", \"{}\"]\n",
        flag.display()
    );
    let origins = Origins::opened("", &evidence).await?;
    let failed = origins
        .ctl(3, &["switchover", "--to", "b", "--reason", "t"])
        .await?;
    assert_eq!(failed["error"]["code"], "evidence_missing", "{failed}");
    assert_eq!(origins.post().await?, (200, "a".into()), "it went back");
    fs::write(&flag, "")?;
    let run = origins
        .ctl(0, &["switchover", "--to", "b", "--reason", "t"])
        .await?;
    assert_eq!(run["certificate"]["evidence"]["kind"], "stopped");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_leaves_a_region_whose_origin_is_gone() -> Result<()> {
    let Origins { daemon, a, b, port } = Origins::opened("", "").await?;
    drop(a);
    let args = [
        "failover",
        "--to",
        "b",
        "--reason",
        "t",
        "--accept-loss",
        "--confirm",
    ];
    daemon.ctl(&args).await?.ok()?;
    let reply = send(port, "POST", "/orders", "", "").await?;
    assert_eq!(reply.json()["server"], "b");
    assert_eq!(b.seen().len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_pair_alone_moves_with_its_promotion_as_a_hook() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let a = Redis::start(None).await?;
    let b = Redis::start(Some(&a)).await?;
    b.wait_caught_up(&a).await?;
    let port = free_port()?;
    let mut options = DaemonOptions::without_database(
        "a",
        &format!(
            "[group.main.region.a.tcp]\nredis = \"127.0.0.1:{}\"\n\
             [group.main.region.b.tcp]\nredis = \"127.0.0.1:{}\"\n\
             [[group.main.listen]]\nkind = \"tcp\"\naddress = \"127.0.0.1:{port}\"\n\
             service = \"redis\"\n",
            a.port(),
            b.port()
        ),
    );
    options.extra = format!(
        "[[hook]]\nname = \"promote\"\nat = \"before_promote\"\n\
         command = [\"redis-cli\", \"-p\", \"{}\", \"replicaof\", \"no\", \"one\"]\n",
        b.port()
    );
    let daemon = Daemon::start(options).await?;
    let log = || process::tail(&daemon.log());
    let first = ["open-writes", "--primary", "a"];
    daemon.ctl(&first).await?.ok()?;
    daemon.wait_open().await.with_context(log)?;
    let mut client = RedisClient::connect(port).await?;
    ensure!(client.ask(&["SET", "before", "1"]).await? == "OK");
    b.wait_caught_up(&a).await?;
    let args = ["switchover", "--to", "b", "--reason", "t"];
    daemon.ctl(&args).await?.ok()?;
    client.closed().await.context("the fence closes it")?;
    let mut client = RedisClient::connect(port).await?;
    ensure!(client.ask(&["SET", "after", "1"]).await? == "OK");
    let mut direct = b.client().await?;
    ensure!(direct.ask(&["GET", "before"]).await? == "1");
    ensure!(direct.ask(&["GET", "after"]).await? == "1");
    Ok(())
}
