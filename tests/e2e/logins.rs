//! Every way to log in, what is left of it for the server, and what becomes of it when the primary
//! moves.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use writefence_tests::eventually::{pause, until};
use writefence_tests::pki::{Pki, Valid};
use writefence_tests::postgres::skipped;
use writefence_tests::{DaemonOptions, process};

use crate::secure::{PASSWORD, Secure};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scram_is_verified_here_with_and_without_channel_binding() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let world = Secure::start(Secure::scram).await?;
    for binding in ["disable", "prefer", "require"] {
        let with = format!("sslmode=verify-full channel_binding={binding}");
        ensure!(world.answer(&with, "SELECT current_user").await? == "app");
    }
    // Wrong, unknown, and known to the server but not here: the same words.
    for with in ["password=wrong", "user=nobody", "user=postgres"] {
        let said = world.refusal(&format!("sslmode=require {with}")).await?;
        let user = with.strip_prefix("user=").unwrap_or("app");
        let expected = format!("password authentication failed for user \"{user}\"");
        ensure!(said.contains(&expected), "{with}: {said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_switchover_with_tls_and_scram_on_both_legs_loses_nothing() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let world = Secure::start(|pki, verifier, options| {
        options.be_patient();
        Secure::scram(pki, verifier, options)
    })
    .await?;
    let mut command = world.a.program("pgbench");
    let script = world.pki.path("insert.sql");
    std::fs::write(
        &script,
        "INSERT INTO t VALUES (:client_id);\nSELECT count(*) FROM pg_class;\n",
    )?;
    let port = world.daemon.port().to_string();
    let ca = world.pki.path("ca.pem");
    command
        .args([
            "-n",
            "-M",
            "prepared",
            "-c",
            "6",
            "-j",
            "2",
            "-T",
            "8",
            "-h",
            "localhost",
            "-p",
            &port,
        ])
        .args(["-U", "app", "-f"])
        .arg(&script)
        .arg("postgres")
        .env("PGPASSWORD", PASSWORD)
        .env("PGSSLMODE", "verify-full")
        .env("PGSSLROOTCERT", &ca)
        .env("PGHOSTADDR", "127.0.0.1")
        .env("PGCHANNELBINDING", "require");
    let (output, moved) = tokio::join!(
        tokio::process::Command::from(command)
            .kill_on_drop(true)
            .output(),
        async {
            pause(Duration::from_secs(3)).await;
            world
                .daemon
                .ctl(&["switchover", "--to", "b", "--reason", "test"])
                .await?
                .ok()
        }
    );
    moved.with_context(|| process::tail(&world.daemon.log()))?;
    let output = output?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{complaints}");
    ensure!(!complaints.contains("ERROR"), "{complaints}");
    let done = said
        .lines()
        .find_map(|line| line.strip_prefix("number of transactions actually processed: "))
        .with_context(|| said.clone())?;
    ensure!(
        world.b.value("SELECT count(*) FROM t").await? == done,
        "{said}"
    );
    // And whoever comes now logs in on the new primary with the same key.
    let with = "sslmode=verify-full channel_binding=require";
    let port = world.answer(with, "SHOW port").await?;
    ensure!(port == world.b.port().to_string(), "{port}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_that_are_in_no_file_are_asked_for_at_the_server() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let ask = |pki: &Pki, _: &str, options: &mut DaemonOptions| {
        // It fails for a name of seven letters.
        let query = "SELECT rolname, rolpassword FROM pg_authid \
            WHERE rolname = $1 AND rolcanlogin AND 1 / (length($1) - 7) IS NOT NULL";
        options.listen = format!(
            "auth = \"scram\"\nauth_query = {query:?}\n{}",
            Secure::front(pki)
        );
        Ok(())
    };
    let world = Secure::start(ask).await?;
    let with = "sslmode=require channel_binding=require";
    ensure!(world.answer(with, "SELECT current_user").await? == "app");
    let said = world.refusal("sslmode=require user=nobody").await?;
    ensure!(said.contains("password authentication failed"), "{said}");
    let said = world.refusal("sslmode=require user=trouble").await?;
    ensure!(said.contains("could not be looked up"), "{said}");
    // What one question leaves behind does not keep the next from being asked.
    world.a.query("ALTER ROLE app PASSWORD 'other'").await?;
    until("the new password", Duration::from_secs(30), async || {
        let output = world
            .psql(&format!("{with} password=other"), "SELECT 1")
            .await?;
        Ok(output.status.success())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_says_who_it_is_by_its_name_and_the_map() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let by_cert = |pki: &Pki, _: &str, options: &mut DaemonOptions| {
        pki.issue("ann", "ann@example.com", &[], Valid::Long)?;
        pki.issue("late", "ann@example.com", &[], Valid::Expired)?;
        let map = pki.path("map");
        std::fs::write(&map, "ann@example.com app\n")?;
        let ca = pki.path("ca.pem");
        // The server still wants a password, which is ours to know.
        let pass = pki.secret("pgpass", &format!("*:*:*:app:{PASSWORD}\n"))?;
        options.region += &format!("\npassfile = {pass:?}\n");
        options.listen = format!(
            "auth = \"cert\"\ncert_map = {map:?}\n{}tls.client_ca = {ca:?}\n",
            Secure::front(pki)
        );
        Ok(())
    };
    let world = Secure::start(by_cert).await?;
    let of = |name: &str| {
        let file = |end: &str| world.pki.path(&format!("{name}.{end}"));
        let (cert, key) = (file("pem"), file("key"));
        format!(
            "sslmode=require sslcert={} sslkey={}",
            cert.display(),
            key.display()
        )
    };
    ensure!(world.answer(&of("ann"), "SELECT current_user").await? == "app");
    let said = world
        .refusal(&format!("{} user=postgres", of("ann")))
        .await?;
    let expected = "the client's certificate is for \"ann@example.com\", which is not good for user \"postgres\"";
    ensure!(said.contains(expected), "{said}");
    let said = world.refusal(&of("late")).await?;
    ensure!(said.contains("certificate expired"), "{said}");
    let said = world.refusal("sslmode=require sslcert=/nowhere").await?;
    ensure!(
        said.contains("certificate required") || said.contains("SSL"),
        "{said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_is_passed_through_works_and_its_session_ends_with_the_move() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    // SCRAM cannot be bound across two encrypted legs, so one of them is plain here.
    let through = |_: &Pki, _: &str, options: &mut DaemonOptions| {
        options.listen = "auth = \"passthrough\"".to_owned();
        Ok(())
    };
    let world = Secure::start(through).await?;
    ensure!(
        world
            .answer("sslmode=disable", "SELECT current_user")
            .await?
            == "app"
    );
    let said = world.refusal("sslmode=disable password=wrong").await?;
    ensure!(
        said.contains("password authentication failed for user \"app\""),
        "{said}"
    );
    let mut command = world.a.program("psql");
    let base = format!(
        "host=127.0.0.1 port={} dbname=postgres user=app password={PASSWORD}",
        world.daemon.port()
    );
    command.args(["-X", "-d", &base]);
    command.stdin(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::piped());
    let mut child = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .spawn()?;
    let mut input = child.stdin.take().context("its input")?;
    tokio::io::AsyncWriteExt::write_all(&mut input, b"SELECT 1;\n").await?;
    until("the session", Duration::from_secs(30), async || {
        let sessions = world.daemon.ctl(&["sessions"]).await?.ok()?;
        Ok(sessions.text.contains("passthrough"))
    })
    .await?;
    world
        .daemon
        .ctl(&["switchover", "--to", "b", "--reason", "test"])
        .await?
        .ok()?;
    tokio::io::AsyncWriteExt::write_all(&mut input, b"SELECT 2;\n").await?;
    drop(input);
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await??;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(said.contains("cannot be moved with it"), "{said}");
    ensure!(said.contains("passthrough"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_bound_to_a_certificate_is_not_passed_through_and_says_what_to_do() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let through = |pki: &Pki, _: &str, options: &mut DaemonOptions| {
        options.listen = format!("auth = \"passthrough\"\n{}", Secure::front(pki));
        Ok(())
    };
    let world = Secure::start(through).await?;
    // libpq binds where it can; that it could not because of us, the server would take for an attack.
    let said = world.refusal("sslmode=verify-full").await?;
    ensure!(
        said.contains("auth = \"scram\"") && said.contains("channel_binding=disable"),
        "{said}"
    );
    let said = world
        .refusal("sslmode=verify-full channel_binding=require")
        .await?;
    ensure!(said.contains("channel binding"), "{said}");
    let with = "sslmode=verify-full channel_binding=disable";
    ensure!(world.answer(with, "SELECT current_user").await? == "app");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_a_listener_keep_users_and_databases_out() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let lists = |pki: &Pki, verifier: &str, options: &mut DaemonOptions| {
        let text = format!("\"app\" \"{verifier}\"\n\"other\" \"{verifier}\"\n");
        let users = pki.secret("users.txt", &text)?;
        options.listen = format!(
            "auth = \"scram\"\nusers_file = {users:?}\nusers = [\"app\"]\ndatabases = [\"postgres\"]\n{}",
            Secure::front(pki)
        );
        Ok(())
    };
    let world = Secure::start(lists).await?;
    ensure!(world.answer("sslmode=require", "SELECT 1").await? == "1");
    // To a user that may not log in here, as to one that does not exist.
    let said = world.refusal("sslmode=require user=other").await?;
    ensure!(
        said.contains("password authentication failed for user \"other\""),
        "{said}"
    );
    let said = world.refusal("sslmode=require dbname=template1").await?;
    ensure!(
        said.contains("database \"template1\" is not served by this listener"),
        "{said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_guesses_passwords_is_slowed_down_and_others_are_not() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let world = Secure::start(Secure::scram).await?;
    // So many at a time that the pace at which failures are forgotten is far below theirs.
    let guesses = (0..40).map(|_| world.refusal("sslmode=require user=guessed"));
    let said = futures_util::future::try_join_all(guesses).await?;
    ensure!(
        said.iter()
            .any(|said| said.contains("too many failed logins for user \"guessed\"")),
        "{said:?}"
    );
    ensure!(world.answer("sslmode=require", "SELECT 1").await? == "1");
    Ok(())
}
