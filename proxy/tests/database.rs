//! The database side against real PostgreSQL: login, barrier, fence LSN, promotion, lost writes.
//!
//! Each test starts throw-away clusters on loopback and stops them. The server programs are found
//! through PGBIN, pg_config, or where Debian keeps them; as root they run as `nobody`, since
//! PostgreSQL refuses to run as root.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use writefence::driver::{Driver, DriverError, Pinned, Postgres};
use writefence::evidence::{
    self, BackendFate, BarrierError, Claim, Lifted, OwnBackend, Plan, Token,
};
use writefence::evidence::{Confirmed, NextXid, NotCaughtUp, Suspect, WhyStill, WriteFate};
use writefence::upstream::wire::{Client, Login, LoginError, Secret, cancel, login};
use writefence::upstream::{
    CheckedTarget, Endpoint, History, Identity, Link, Loss, Lsn, Methods, Mismatch,
    NothingInFlight, Observation, Region, Role, Target, Targets, Timeline, Wanted, probe,
};

// ---- throw-away clusters -----------------------------------------------------------------------

const CONF: &str = "
fsync = off
shared_buffers = 16MB
max_connections = 40
max_prepared_transactions = 4
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
autovacuum = off
checkpoint_timeout = 1h
min_wal_size = 32MB
max_wal_size = 256MB
";

fn program(name: &str) -> PathBuf {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    let bin = BIN.get_or_init(|| {
        let config = Command::new("pg_config").arg("--bindir").output().ok();
        let config = config.and_then(|out| String::from_utf8(out.stdout).ok());
        let debian = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten();
        let mut debian: Vec<_> = debian.map(|entry| entry.path().join("bin")).collect();
        debian.sort();
        let named = std::env::var_os("PGBIN").map(PathBuf::from);
        let config = config.map(|text| PathBuf::from(text.trim()));
        let mut all = named
            .into_iter()
            .chain(config)
            .chain(debian.into_iter().rev());
        all.find(|bin| bin.join("initdb").exists())
            .expect("PostgreSQL's server programs are needed; set PGBIN to their directory")
    });
    bin.join(name)
}

/// A command of PostgreSQL, as `nobody` when we are root.
fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    command.current_dir("/").stdin(Stdio::null());
    if let Some((uid, gid)) = nobody() {
        command.uid(uid).gid(gid);
    }
    command
}

fn nobody() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd
        .lines()
        .find(|line| line.starts_with("nobody:"))
        .unwrap();
    let fields: Vec<_> = line.split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

fn run(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(
        out.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

fn scratch() -> TempDir {
    let dir = tempfile::Builder::new()
        .prefix("writefence-db-")
        .tempdir()
        .unwrap();
    if let Some((uid, gid)) = nobody() {
        std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid)).unwrap();
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    dir
}

/// initdb takes seconds, a copy of its result does not. Shared by the tests that run at the same
/// time, removed with the last of them.
struct Template(TempDir);

impl Template {
    fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Template>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap();
        let template = shared.upgrade().unwrap_or_else(|| Arc::new(Self::make()));
        *shared = Arc::downgrade(&template);
        template
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn make() -> Self {
        let template = Self(scratch());
        let data = template.data();
        let settings = [
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ];
        run(command("initdb").arg("-D").arg(&data).args(settings));
        let conf = data.join("postgresql.conf");
        fs::write(&conf, fs::read_to_string(&conf).unwrap() + CONF).unwrap();
        let hba = "host all md5_user 127.0.0.1/32 md5\n\
                   host all scram_user 127.0.0.1/32 scram-sha-256\n\
                   host all clear_user 127.0.0.1/32 password\n\
                   host all all 127.0.0.1/32 trust\n\
                   host replication all 127.0.0.1/32 trust\n";
        fs::write(data.join("pg_hba.conf"), hba).unwrap();
        template
    }
}

struct Cluster {
    dir: TempDir,
    port: u16,
    child: Option<Child>,
    template: Arc<Template>,
}

impl Cluster {
    async fn primary() -> Self {
        let cluster = Self::stopped();
        let copied = cluster.data();
        run(Command::new("cp")
            .arg("-a")
            .arg(cluster.template.data())
            .arg(&copied));
        cluster.started().await
    }

    async fn standby_of(primary: &Self) -> Self {
        let cluster = Self::stopped();
        // By hand: not every installation brings pg_basebackup. Nothing else goes on in it.
        let mut client = primary.client().await;
        one(&mut client, "SELECT pg_backup_start('standby', true)").await;
        run(Command::new("cp")
            .arg("-a")
            .arg(primary.data())
            .arg(cluster.data()));
        let label = one(&mut client, "SELECT labelfile FROM pg_backup_stop(false)").await;
        fs::remove_file(cluster.data().join("postmaster.pid")).unwrap();
        let conninfo = format!(
            "primary_conninfo = 'host=127.0.0.1 port={} user=postgres'\n",
            primary.port
        );
        for (name, text) in [
            ("backup_label", label.as_str()),
            ("standby.signal", ""),
            ("postgresql.auto.conf", &conninfo),
        ] {
            let path = cluster.data().join(name);
            let old = fs::read_to_string(&path).unwrap_or_default();
            fs::write(&path, old + text).unwrap();
            if let Some((uid, gid)) = nobody() {
                std::os::unix::fs::chown(&path, Some(uid), Some(gid)).unwrap();
            }
        }
        let standby = cluster.started().await;
        let streaming = "SELECT count(*) > 0 FROM pg_stat_replication WHERE state = 'streaming'";
        until(&mut client, streaming).await;
        standby
    }

    fn stopped() -> Self {
        Self {
            dir: scratch(),
            port: free_port(),
            child: None,
            template: Template::shared(),
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    async fn started(mut self) -> Self {
        let log = fs::File::create(self.dir.path().join("log")).unwrap();
        let child = command("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string()])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap());
        let start = Instant::now();
        while Client::connect(&self.endpoint(), &superuser())
            .await
            .is_err()
        {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap();
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "did not start: {log}"
            );
            sleep(Duration::from_millis(20)).await;
        }
        self
    }

    fn endpoint(&self) -> Endpoint {
        let methods = Methods {
            md5: true,
            cleartext: true,
        };
        Endpoint::new("127.0.0.1", self.port).over(Link {
            methods,
            ..Link::default()
        })
    }

    fn target(&self, region: &str) -> Target {
        Target {
            region: Region::new(region),
            endpoint: self.endpoint(),
            user: None,
            passwords: writefence_config::Password::None,
            identity: None,
            serial: 0,
        }
    }

    async fn client(&self) -> Client {
        Client::connect(&self.endpoint(), &superuser())
            .await
            .unwrap()
    }

    async fn client_as(&self, user: &str) -> Client {
        Client::connect(&self.endpoint(), &how(user, None))
            .await
            .unwrap()
    }

    async fn history(&self, timeline: Timeline) -> History {
        let mut how = superuser();
        how.params.push(("replication".into(), "true".into()));
        let mut client = Client::connect(&self.endpoint(), &how).await.unwrap();
        History::read(&mut client, timeline).await.unwrap()
    }

    /// As a crash of the machine: the postmaster, and all its children, killed at once.
    fn kill(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        for pid in children(child.id()).into_iter().chain([child.id()]) {
            signal(pid, Signal::KILL);
        }
        child.wait().unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            for pid in children(child.id()) {
                signal(pid, Signal::CONT);
            }
            signal(child.id(), Signal::QUIT);
            let _gone = child.wait();
        }
    }
}

/// A port that nobody listens on, given once: below those that the system hands to outgoing
/// connections, of which one could be there when the server starts, and below those of the
/// end-to-end tests. A name in the system's abstract name space keeps other processes from it.
fn free_port() -> u16 {
    static CLAIMS: Mutex<Vec<UnixDatagram>> = Mutex::new(Vec::new());
    for port in 10_000..15_000 {
        let name = format!("writefence-database-tests-port-{port}");
        let name = SocketAddr::from_abstract_name(name).unwrap();
        let Ok(claim) = UnixDatagram::bind_addr(&name) else {
            continue;
        };
        // Kept also where somebody else listens, so that it is not looked at again.
        CLAIMS.lock().unwrap().push(claim);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port below 15000");
}

fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(Path::new(&path)).unwrap_or_default();
    text.split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

fn signal(pid: u32, which: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _may_be_gone = kill_process(pid, which);
}

fn how(user: &str, password: Option<&str>) -> Login {
    let params = [
        ("user", user),
        ("database", "postgres"),
        ("application_name", "job"),
    ];
    Login {
        params: params
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .to_vec(),
        minor: 0,
        proof: password.map(|text| Secret::new(text.to_owned())).into(),
        timeout: Duration::from_secs(20),
    }
}

fn superuser() -> Login {
    how("postgres", None)
}

/// Waits for a condition on the server; the only place that sleeps.
async fn until(client: &mut Client, sql: &str) {
    let start = Instant::now();
    while client.query(sql).await.unwrap()[0][0].as_deref() != Some("t") {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "never true: {sql}"
        );
        sleep(Duration::from_millis(5)).await;
    }
}

async fn one(client: &mut Client, sql: &str) -> String {
    client.row(sql).await.unwrap().remove(0).unwrap()
}

async fn lsn(client: &mut Client, sql: &str) -> Lsn {
    one(client, sql).await.parse().unwrap()
}

async fn identity(client: &mut Client) -> Identity {
    let seen = probe(client).await.unwrap();
    Identity {
        system_identifier: seen.system_identifier.unwrap(),
        timeline: seen.timeline.unwrap(),
        fork_lsn: None,
    }
}

fn token(run: &str, epoch: u64) -> Token {
    Token::new("i-1/main", run, epoch).unwrap()
}

fn plan<'a>(token: &'a Token, identity: Identity, bound_ms: u64) -> Plan<'a> {
    let bound = Duration::from_millis(bound_ms);
    Plan {
        token,
        identity,
        claim: Claim::Own,
        observers: &[],
        bound,
    }
}

fn no_sessions() -> Vec<OwnBackend> {
    Vec::new()
}

fn timeline(number: u32) -> Timeline {
    Timeline::new(number).unwrap()
}

const BOUND: Duration = Duration::from_secs(30);

// ---- login -------------------------------------------------------------------------------------

#[tokio::test]
async fn login_with_every_method_and_with_none() {
    let server = Cluster::primary().await;
    let mut root = server.client().await;
    root.query(
        "SET password_encryption = 'md5'; CREATE ROLE md5_user LOGIN PASSWORD 'pw-ä'; \
         RESET password_encryption; CREATE ROLE scram_user LOGIN PASSWORD 'pw-ä'; \
         CREATE ROLE clear_user LOGIN PASSWORD 'pw-ä'",
    )
    .await
    .unwrap();
    for user in ["md5_user", "scram_user", "clear_user", "postgres"] {
        let mut client = Client::connect(&server.endpoint(), &how(user, Some("pw-ä")))
            .await
            .unwrap();
        assert_eq!(one(&mut client, "SELECT current_user").await, user);
        assert_eq!(client.param("server_encoding"), Some("UTF8"));
        assert_ne!(client.pid(), 0);
    }
    for user in ["md5_user", "scram_user", "clear_user"] {
        let wrong = login(&server.endpoint(), &how(user, Some("wrong")))
            .await
            .unwrap_err();
        let refusal = wrong.server().unwrap();
        assert_eq!(
            (refusal.sqlstate.as_str(), refusal.severity.as_str()),
            ("28P01", "FATAL")
        );
        let none = login(&server.endpoint(), &how(user, None))
            .await
            .unwrap_err();
        assert!(matches!(none, LoginError::NoPassword { .. }), "{none:?}");
    }
    let mut nowhere = superuser();
    nowhere.params[1].1 = "nowhere".into();
    let error = login(&server.endpoint(), &nowhere).await.unwrap_err();
    assert_eq!(error.server().unwrap().sqlstate, "3D000");
    let by_name = Endpoint::new("localhost", server.port);
    login(&by_name, &superuser()).await.unwrap();
}

#[tokio::test]
async fn a_cancel_request_reaches_its_backend() {
    let server = Cluster::primary().await;
    let connected = login(&server.endpoint(), &superuser()).await.unwrap();
    cancel(&server.endpoint(), connected.pid, &connected.secret, BOUND)
        .await
        .unwrap();
    drop(connected);

    let mut client = server.client().await;
    client.set_timeout(Duration::from_millis(50));
    let error = client.query("SELECT pg_sleep(20)").await.unwrap_err();
    assert!(
        error.to_string().contains("did not answer within 50ms"),
        "{error}"
    );
    assert!(!client.is_usable());
    assert!(
        client
            .query("SELECT 1")
            .await
            .unwrap_err()
            .to_string()
            .contains("given up")
    );
}

#[tokio::test]
async fn one_refused_question_does_not_touch_the_others() {
    let server = Cluster::primary().await;
    let mut client = server.client().await;
    let answers = client
        .query_batch(&["SELECT 1", "SELECT 1/0", "SELECT 2; SELECT 3"])
        .await;
    let answers = answers.unwrap();
    assert_eq!(answers[0].as_ref().unwrap()[0][0][0].as_deref(), Some("1"));
    assert_eq!(answers[1].as_ref().unwrap_err().sqlstate, "22012");
    assert_eq!(answers[2].as_ref().unwrap().len(), 2);
    client
        .query("SELECT pg_terminate_backend(pg_backend_pid())")
        .await
        .unwrap_err();
    assert!(!client.is_usable());
}

// ---- observing ---------------------------------------------------------------------------------

#[tokio::test]
async fn primary_and_standby_describe_themselves() {
    let a = Cluster::primary().await;
    let b = Cluster::standby_of(&a).await;
    let mut root = a.client().await;
    root.query("CREATE TABLE t (n int)").await.unwrap();
    root.query("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'left over'")
        .await
        .unwrap();
    let caught_up = "SELECT replay_lsn = pg_current_wal_flush_lsn() FROM pg_stat_replication";
    until(&mut root, caught_up).await;

    let primary = probe(&mut root).await.unwrap();
    assert_eq!(
        (primary.role, primary.writable),
        (Some(Role::Primary), Some(true))
    );
    assert_eq!(primary.timeline, Some(timeline(1)));
    assert_eq!(primary.lsn, primary.flush_lsn);
    assert_eq!(primary.prepared.as_ref().unwrap()[0].gid, "left over");
    let replica = &primary.replicas.as_ref().unwrap()[0];
    assert_eq!(
        (replica.sync_state.as_deref(), replica.lag_bytes),
        (Some("async"), Some(0))
    );

    let standby = probe(&mut b.client().await).await.unwrap();
    assert_eq!(
        (standby.role, standby.writable),
        (Some(Role::Standby), Some(false))
    );
    assert_eq!(standby.received_timeline, Some(timeline(1)));
    assert_eq!(standby.system_identifier, primary.system_identifier);
    assert_eq!((standby.flush_lsn, standby.lsn), (None, primary.flush_lsn));
    assert!(standby.now > primary.now);

    root.query("CREATE ROLE plain LOGIN").await.unwrap();
    let masked = probe(&mut a.client_as("plain").await).await.unwrap();
    let replica = &masked.replicas.unwrap()[0];
    assert_eq!(
        (replica.replay_lsn, replica.lag_bytes),
        (None, None),
        "masked, not zero"
    );
}

// ---- barrier -----------------------------------------------------------------------------------

#[tokio::test]
async fn the_barrier_ends_foreign_writers_and_nobody_else() {
    let a = Cluster::primary().await;
    let b = Cluster::standby_of(&a).await;
    let mut root = a.client().await;
    root.query("CREATE TABLE t (n int)").await.unwrap();
    let walsender = "SELECT pid FROM pg_stat_replication";
    let sender = one(&mut root, walsender).await;

    let mut walled = a.client().await;
    walled
        .query("SET default_transaction_read_only = on")
        .await
        .unwrap();
    let mut idle = a.client().await;
    let mut writing = a.client().await;
    writing
        .query("BEGIN; INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    let mut overriding = a.client().await;
    overriding
        .query("SET default_transaction_read_only = off")
        .await
        .unwrap();
    overriding
        .query("BEGIN READ WRITE; INSERT INTO t VALUES (2)")
        .await
        .unwrap();
    let mut unwalled = a.client().await;

    let pids = (walled.pid(), unwalled.pid());
    let own = move || {
        let of = |pid, walled| OwnBackend {
            pid,
            login: None,
            walled,
        };
        vec![of(pids.0, true), of(pids.1, false)]
    };
    let me = identity(&mut root).await;
    let t = token("run-1", 3);
    let closed = evidence::raise(&mut root, &plan(&t, me, 30_000), &own)
        .await
        .unwrap();
    let ended: Vec<_> = closed.ended.iter().map(|foreign| foreign.pid).collect();
    for client in [&idle, &writing, &overriding, &unwalled] {
        assert!(ended.contains(&client.pid()), "{closed:?}");
    }
    assert_eq!(ended.len(), 4, "{closed:?}");
    for client in [&mut idle, &mut writing, &mut overriding, &mut unwalled] {
        client.query("SELECT 1").await.unwrap_err();
    }
    walled.query("SELECT 1").await.unwrap();
    assert_eq!(
        one(&mut root, walsender).await,
        sender,
        "replication goes on"
    );
    let mut late = a.client().await;
    let refused = late.query("INSERT INTO t VALUES (3)").await.unwrap_err();
    assert_eq!(refused.server().unwrap().sqlstate, "25006");
    assert_eq!(one(&mut root, "SELECT count(*) FROM t").await, "0");

    let fence = evidence::fence_lsn(&mut root, &t, BOUND).await.unwrap();
    let again = plan(&t, me, 0);
    evidence::stands(&mut root, &again, closed.since, fence.next_xid, &own)
        .await
        .unwrap();
    evidence::raise(&mut root, &plan(&t, me, 30_000), &own)
        .await
        .unwrap();
    assert_eq!(probe(&mut root).await.unwrap().writable, Some(false));
    assert_eq!(
        probe(&mut b.client().await)
            .await
            .unwrap()
            .default_read_only(),
        Some(false)
    );
}

#[tokio::test]
async fn lifting_is_repeatable_and_only_for_its_own_run() {
    let a = Cluster::primary().await;
    let mut root = a.client().await;
    let me = identity(&mut root).await;
    let (first, second) = (token("run-1", 3), token("run-2", 5));
    let lift = evidence::lift;
    evidence::raise(&mut root, &plan(&first, me, 30_000), &no_sessions)
        .await
        .unwrap();
    assert_eq!(
        lift(&mut root, &first, me, Claim::Own, BOUND)
            .await
            .unwrap(),
        Lifted::Lifted
    );
    assert_eq!(
        lift(&mut root, &first, me, Claim::Own, BOUND)
            .await
            .unwrap(),
        Lifted::Already
    );
    assert_eq!(
        probe(&mut a.client().await).await.unwrap().writable,
        Some(true)
    );

    let late = evidence::raise(&mut root, &plan(&first, me, 30_000), &no_sessions).await;
    assert!(matches!(late, Err(BarrierError::Held(_))), "{late:?}");
    assert_eq!(probe(&mut root).await.unwrap().writable, Some(true));

    // Another session, as another daemon would have it.
    let mut other = a.client().await;
    let closed = evidence::raise(&mut other, &plan(&second, me, 30_000), &no_sessions)
        .await
        .unwrap();
    assert_eq!(
        closed.ended.len(),
        1,
        "the first observer is foreign to the second"
    );
    let mut root = a.client().await;
    let late = lift(&mut root, &first, me, Claim::Own, BOUND).await;
    assert!(matches!(late, Err(BarrierError::Held(_))), "{late:?}");
    drop(other);
    assert_eq!(
        lift(&mut root, &second, me, Claim::Own, BOUND)
            .await
            .unwrap(),
        Lifted::Lifted
    );

    let elsewhere = Identity {
        timeline: timeline(2),
        ..me
    };
    let wrong = lift(&mut root, &second, elsewhere, Claim::Own, BOUND).await;
    assert!(matches!(
        wrong,
        Err(BarrierError::OtherServer(Mismatch::Timeline { .. }))
    ));
    let elsewhere = Identity {
        system_identifier: 1,
        ..me
    };
    let wrong = evidence::raise(&mut root, &plan(&second, elsewhere, 0), &no_sessions).await;
    assert!(matches!(
        wrong,
        Err(BarrierError::OtherServer(Mismatch::SystemIdentifier { .. }))
    ));
}

#[tokio::test]
async fn a_login_of_ours_that_is_under_way_is_waited_for_and_not_ended() {
    let a = Cluster::primary().await;
    let mut root = a.client().await;
    let me = identity(&mut root).await;
    let mut ours = a.client().await;
    let mut other = a.client().await;
    let row = ours
        .row("SELECT host(inet_client_addr()), inet_client_port()")
        .await
        .unwrap();
    let [host, port] = [0, 1].map(|n| row[n].clone().unwrap());
    let login = Some(format!("{host}:{port}").parse().unwrap());
    let pid = ours.pid();
    // Known by its address first, then by its process id, and in the end its wall stands.
    let looks = AtomicU32::new(0);
    let own = move || match looks.fetch_add(1, Ordering::Relaxed) {
        0..4 => vec![OwnBackend {
            pid: 0,
            login,
            walled: false,
        }],
        n => vec![OwnBackend {
            pid,
            login: None,
            walled: n > 8,
        }],
    };
    let t = token("run-1", 3);
    let closed = evidence::raise(&mut root, &plan(&t, me, 30_000), &own)
        .await
        .unwrap();
    assert!(closed.passes > 8, "{closed:?}");
    let ended: Vec<_> = closed.ended.iter().map(|foreign| foreign.pid).collect();
    assert_eq!(ended, [other.pid()], "{closed:?}");
    ours.query("SELECT 1").await.unwrap();
    other.query("SELECT 1").await.unwrap_err();
}

#[tokio::test]
async fn a_standing_barrier_keeps_others_out() {
    let a = Cluster::primary().await;
    let mut root = a.client().await;
    let me = identity(&mut root).await;
    let t = token("run-1", 3);
    evidence::raise(&mut root, &plan(&t, me, 30_000), &no_sessions)
        .await
        .unwrap();
    let other = Token::new("i-2/main", "run-9", 50).unwrap();
    let mut second = a.client().await;
    let refused = evidence::raise(&mut second, &plan(&other, me, 30_000), &no_sessions).await;
    assert!(matches!(refused, Err(BarrierError::Held(_))), "{refused:?}");

    // As if the first daemon had died in the middle of its work on the barrier.
    root.query("SELECT pg_advisory_lock(2003201635, 1)")
        .await
        .unwrap();
    let busy = evidence::raise(&mut second, &plan(&other, me, 20), &no_sessions).await;
    let pid = Some(root.pid());
    assert!(
        matches!(busy, Err(BarrierError::Busy { pid: found, .. }) if found == pid),
        "{busy:?}"
    );
    let over = Plan {
        claim: Claim::TakeOver,
        ..plan(&other, me, 30_000)
    };
    evidence::raise(&mut second, &over, &no_sessions)
        .await
        .unwrap();
    root.query("SELECT 1").await.unwrap_err();
    evidence::lift(&mut second, &other, me, Claim::Own, BOUND)
        .await
        .unwrap();
}

#[tokio::test]
async fn readers_that_come_back_do_not_hold_the_barrier_up_but_writers_do() {
    let a = Cluster::primary().await;
    let mut root = a.client().await;
    root.query("CREATE TABLE t (n int)").await.unwrap();
    let me = identity(&mut root).await;
    let endless = |sql: &'static str| {
        let endpoint = a.endpoint();
        tokio::spawn(async move {
            loop {
                if let Ok(mut client) = Client::connect(&endpoint, &superuser()).await {
                    while client.query(sql).await.is_ok() {}
                }
            }
        })
    };
    let reader = endless("SELECT count(*) FROM t");
    let t = token("run-1", 3);
    evidence::raise(&mut root, &plan(&t, me, 10_000), &no_sessions)
        .await
        .unwrap();
    reader.abort();
    let writer = endless("BEGIN READ WRITE; INSERT INTO t VALUES (1); COMMIT");
    until(&mut root, "SELECT count(*) > 0 FROM t").await;
    // A writer that comes back asking for READ WRITE is caught by the barrier, or by the look
    // right before the point of no return; which of them is a matter of timing.
    let held = evidence::raise(&mut root, &plan(&t, me, 1500), &no_sessions).await;
    let error = match held {
        Err(error) => error,
        Ok(closed) => {
            let fence = evidence::fence_lsn(&mut root, &t, BOUND).await.unwrap();
            let more = format!(
                "SELECT pg_snapshot_xmax(pg_current_snapshot()) > '{}'",
                fence.next_xid.value()
            );
            until(&mut root, &more).await;
            let plan = plan(&t, me, 0);
            let stands =
                evidence::stands(&mut root, &plan, closed.since, fence.next_xid, &no_sessions);
            stands.await.unwrap_err()
        }
    };
    writer.abort();
    match error {
        BarrierError::Foreign(foreign) => {
            assert!(
                foreign.to_string().contains("application \"job\""),
                "{foreign}"
            );
        }
        BarrierError::Written { found, wanted } => assert!(found > wanted),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn missing_rights_are_named_and_the_named_grants_suffice() {
    let a = Cluster::primary().await;
    let mut root = a.client().await;
    root.query("CREATE ROLE \"the observer\" LOGIN; CREATE ROLE app LOGIN")
        .await
        .unwrap();
    let me = identity(&mut root).await;
    let t = token("run-1", 3);
    let mut observer = a.client_as("the observer").await;
    let refused = evidence::raise(&mut observer, &plan(&t, me, 5000), &no_sessions).await;
    let Err(BarrierError::Privilege { grants }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(grants.len(), 5, "{grants:?}");
    for grant in grants {
        root.query(&grant).await.unwrap();
    }
    let app = a.client_as("app").await;
    let refused = evidence::raise(&mut observer, &plan(&t, me, 5000), &no_sessions).await;
    let Err(BarrierError::Foreign(foreign)) = refused else {
        panic!("{refused:?}")
    };
    let left: Vec<_> = foreign
        .0
        .iter()
        .map(|foreign| (foreign.pid, foreign.why))
        .collect();
    assert_eq!(
        left,
        [(root.pid(), WhyStill::NotPermitted)],
        "a superuser's session"
    );

    let others = [root.pid()];
    let plan = Plan {
        observers: &others,
        ..plan(&t, me, 5000)
    };
    evidence::raise(&mut observer, &plan, &no_sessions)
        .await
        .unwrap();
    drop(app);
    evidence::lift(&mut observer, &t, me, Claim::Own, BOUND)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_setting_above_the_file_is_reported() {
    let a = Cluster::primary().await;
    let mut root = a.client().await;
    root.query("ALTER ROLE postgres SET default_transaction_read_only = off")
        .await
        .unwrap();
    let me = identity(&mut root).await;
    let t = token("run-1", 3);
    let mut observer = a.client().await;
    drop(root);
    let refused = evidence::raise(&mut observer, &plan(&t, me, 5000), &no_sessions).await;
    assert!(
        matches!(&refused, Err(BarrierError::NotInForce { from, .. }) if from == "user"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_barrier_that_a_standby_has_kept_is_lifted_ahead_of_its_promotion() {
    let a = Cluster::primary().await;
    let mut root = a.client().await;
    let me = identity(&mut root).await;
    let old = token("run-1", 3);
    evidence::raise(&mut root, &plan(&old, me, 30_000), &no_sessions)
        .await
        .unwrap();
    let b = Cluster::standby_of(&a).await;
    let mut standby = b.client().await;
    let (cluster, next) = (me.system_identifier, token("run-2", 4));

    let foreign = Token::new("i-2/main", "run-9", 50).unwrap();
    let refused = evidence::clear_standby(&mut standby, &foreign, cluster, Claim::Own, BOUND).await;
    assert!(matches!(refused, Err(BarrierError::Held(_))), "{refused:?}");
    let refused =
        evidence::clear_standby(&mut standby, &next, cluster + 1, Claim::Own, BOUND).await;
    let Err(BarrierError::OtherServer(Mismatch::SystemIdentifier { .. })) = refused else {
        panic!("{refused:?}")
    };
    // The primary itself, whose barrier stands for good reason, is not meant.
    let refused = evidence::clear_standby(&mut root, &next, cluster, Claim::Own, BOUND).await;
    let Err(BarrierError::OtherServer(Mismatch::NotInRecovery)) = refused else {
        panic!("{refused:?}")
    };

    for expected in [Lifted::Lifted, Lifted::Already] {
        let lifted = evidence::clear_standby(&mut standby, &next, cluster, Claim::Own, BOUND).await;
        assert_eq!(lifted.unwrap(), expected);
    }
    promote(&b, me).await.unwrap();
    let seen = probe(&mut b.client().await).await.unwrap();
    assert_eq!(
        (seen.role, seen.writable),
        (Some(Role::Primary), Some(true))
    );
}

#[tokio::test]
async fn a_barrier_copied_to_the_new_primary_is_lifted_there() {
    let a = Cluster::primary().await;
    let mut root = a.client().await;
    let me = identity(&mut root).await;
    let old = token("run-1", 3);
    evidence::raise(&mut root, &plan(&old, me, 30_000), &no_sessions)
        .await
        .unwrap();
    let b = Cluster::standby_of(&a).await;
    promote(&b, me).await.unwrap();
    let mut new = b.client().await;
    let now = identity(&mut new).await;
    let seen = probe(&mut new).await.unwrap();
    assert_eq!(
        (seen.role, seen.writable),
        (Some(Role::Primary), Some(false))
    );
    let wanted = Wanted::Successor {
        of: me,
        fence_lsn: None,
        loss: Loss::Refused,
    };
    let early = CheckedTarget::check(&b.target("b"), &seen, None, wanted);
    assert_eq!(early.unwrap_err(), Mismatch::ReadOnly);

    let ensure = evidence::ensure_writable_setting;
    let next = token("run-2", 5);
    assert_eq!(
        ensure(&mut new, &next, now, Claim::Own, BOUND)
            .await
            .unwrap(),
        Lifted::Lifted
    );
    assert_eq!(
        ensure(&mut new, &next, now, Claim::Own, BOUND)
            .await
            .unwrap(),
        Lifted::Already
    );
    assert_eq!(probe(&mut new).await.unwrap().writable, Some(true));
    assert_eq!(probe(&mut root).await.unwrap().writable, Some(false));

    new.query("ALTER SYSTEM SET default_transaction_read_only = on")
        .await
        .unwrap();
    new.query("SELECT pg_reload_conf()").await.unwrap();
    until(
        &mut new,
        "SELECT current_setting('default_transaction_read_only') = 'on'",
    )
    .await;
    let foreign = ensure(&mut new, &next, now, Claim::Own, BOUND).await;
    assert!(
        matches!(foreign, Err(BarrierError::NotOurs { .. })),
        "{foreign:?}"
    );
}

// ---- fence LSN ---------------------------------------------------------------------------------

#[tokio::test]
async fn the_fence_lsn_covers_commits_that_were_acknowledged_before_their_flush() {
    let a = Cluster::primary().await;
    let mut root = a.client().await;
    root.query("CREATE TABLE t (n int)").await.unwrap();
    let mut quick = a.client().await;
    quick.query("SET synchronous_commit = off").await.unwrap();
    let (mut unflushed, mut rounds) = (0, 0);
    while rounds < 200 {
        rounds += 1;
        quick
            .query("INSERT INTO t SELECT generate_series(1, 50)")
            .await
            .unwrap();
        let acknowledged = lsn(&mut quick, "SELECT pg_current_wal_insert_lsn()").await;
        let flushed = lsn(&mut quick, "SELECT pg_current_wal_flush_lsn()").await;
        unflushed += u32::from(flushed < acknowledged);
        let fence = evidence::fence_lsn(&mut root, &token("run-1", 3), BOUND)
            .await
            .unwrap();
        assert!(fence.lsn >= acknowledged, "round {rounds}");
        assert_eq!(fence.confirmed, Confirmed::Local);
        assert!(lsn(&mut quick, "SELECT pg_current_wal_flush_lsn()").await >= fence.lsn);
    }
    assert!(unflushed > 0, "the case under test did not occur");
}

#[tokio::test]
async fn the_fence_lsn_does_not_hang_on_a_synchronous_standby() {
    let a = Cluster::primary().await;
    let b = Cluster::standby_of(&a).await;
    let mut root = a.client().await;
    let me = identity(&mut root).await;
    root.query("ALTER SYSTEM SET synchronous_standby_names = '*'")
        .await
        .unwrap();
    root.query("SELECT pg_reload_conf()").await.unwrap();
    let in_sync = "SELECT count(*) > 0 FROM pg_stat_replication WHERE sync_state = 'sync'";
    until(&mut root, in_sync).await;
    let t = token("run-1", 3);
    evidence::raise(&mut root, &plan(&t, me, 30_000), &no_sessions)
        .await
        .unwrap();
    let good = evidence::fence_lsn(&mut root, &t, BOUND).await.unwrap();
    assert_eq!(good.confirmed, Confirmed::BySyncStandby);

    let mut candidate = b.client().await;
    let deadline = Instant::now() + BOUND;
    let reached = evidence::caught_up(&mut candidate, good.lsn, timeline(1), deadline).await;
    assert!(reached.unwrap() >= good.lsn);
    let other = evidence::caught_up(&mut candidate, good.lsn, timeline(2), deadline).await;
    assert!(matches!(other, Err(NotCaughtUp::OtherTimeline { .. })));
    let far: Lsn = "FF/0".parse().unwrap();
    let soon = Instant::now() + Duration::from_millis(30);
    let behind = evidence::caught_up(&mut candidate, far, timeline(1), soon).await;
    assert!(matches!(
        behind,
        Err(NotCaughtUp::Behind {
            replayed: Some(_),
            ..
        })
    ));

    let receiver = one(&mut candidate, "SELECT pid FROM pg_stat_wal_receiver").await;
    signal(receiver.parse().unwrap(), Signal::STOP);
    let bound = Duration::from_millis(200);
    let silent = timeout(BOUND, evidence::fence_lsn(&mut root, &t, bound))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(silent.confirmed, Confirmed::SyncStandbySilent);
    assert!(silent.lsn > good.lsn);
    assert_eq!(one(&mut root, "SHOW synchronous_commit").await, "on");
    signal(receiver.parse().unwrap(), Signal::CONT);
    drop(b);
    until(&mut root, "SELECT count(*) = 0 FROM pg_stat_replication").await;
    let alone = timeout(BOUND, evidence::fence_lsn(&mut root, &t, BOUND))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(alone.confirmed, Confirmed::SyncStandbySilent);
}

// ---- promotion and repoint ---------------------------------------------------------------------

async fn promote(server: &Cluster, old: Identity) -> Result<Observation, DriverError> {
    let driver = Postgres::new(server.endpoint(), superuser());
    let pinned = Pinned {
        system_identifier: old.system_identifier,
        timeline: old.timeline,
    };
    Ok(driver
        .promote(pinned, Instant::now() + BOUND)
        .await?
        .observation)
}

#[tokio::test]
async fn a_probe_sees_a_promotion_on_the_connection_it_had() {
    let mut a = Cluster::primary().await;
    let b = Cluster::standby_of(&a).await;
    let mut watching = b.client().await;
    let old = identity(&mut a.client().await).await;
    let before = probe(&mut watching).await.unwrap();
    assert_eq!(before.role, Some(Role::Standby));
    a.kill();
    promote(&b, old).await.unwrap();
    // A transaction left open by the probe would go on seeing the standby.
    let after = probe(&mut watching).await.unwrap();
    assert_eq!(after.role, Some(Role::Primary));
    assert_eq!(after.writable, Some(true));
}

struct Quiet;
impl NothingInFlight for Quiet {}

#[tokio::test]
async fn a_switchover_by_its_parts() {
    let a = Cluster::primary().await;
    let b = Cluster::standby_of(&a).await;
    let mut root = a.client().await;
    let me = identity(&mut root).await;
    let targets = vec![a.target("a"), b.target("b")];
    let targets = Targets::new(targets, &Region::new("a"), None).unwrap();
    let check = |cluster: &Cluster, seen: &Observation, history, wanted| {
        CheckedTarget::check(&cluster.target("b"), seen, history, wanted)
    };
    let seen = probe(&mut root).await.unwrap();
    let first = CheckedTarget::check(&a.target("a"), &seen, None, Wanted::First).unwrap();
    targets.establish(first).unwrap();

    let t = token("run-1", 3);
    evidence::raise(&mut root, &plan(&t, me, 30_000), &no_sessions)
        .await
        .unwrap();
    let fence = evidence::fence_lsn(&mut root, &t, BOUND).await.unwrap().lsn;
    let wanted = Wanted::Successor {
        of: me,
        fence_lsn: Some(fence),
        loss: Loss::Refused,
    };

    let mut candidate = b.client().await;
    let standby = probe(&mut candidate).await.unwrap();
    assert_eq!(
        check(&b, &standby, None, wanted).unwrap_err(),
        Mismatch::InRecovery
    );
    let deadline = Instant::now() + BOUND;
    evidence::caught_up(&mut candidate, fence, timeline(1), deadline)
        .await
        .unwrap();

    let driver = Postgres::new(b.endpoint(), superuser());
    driver.connect().await.unwrap();
    let pinned = Pinned {
        system_identifier: me.system_identifier,
        timeline: me.timeline,
    };
    let late = driver
        .promote(
            Pinned {
                timeline: timeline(2),
                ..pinned
            },
            deadline,
        )
        .await;
    assert!(
        matches!(late, Err(DriverError::OtherTimeline { found: Some(_), .. })),
        "{late:?}"
    );
    let other = driver
        .promote(
            Pinned {
                system_identifier: 1,
                ..pinned
            },
            deadline,
        )
        .await;
    assert!(
        matches!(other, Err(DriverError::OtherServer(_))),
        "{other:?}"
    );
    assert_eq!(
        driver.observe().await.unwrap().role,
        Some(Role::Standby),
        "nothing was done"
    );

    let done = driver.promote(pinned, deadline).await.unwrap();
    assert!(done.by_us && done.took < Duration::from_secs(3), "{done:?}");
    let again = driver.promote(pinned, deadline).await.unwrap();
    assert!(!again.by_us);
    assert_eq!(again.observation.timeline, Some(timeline(2)));
    let gone = evidence::caught_up(&mut candidate, fence, timeline(1), deadline).await;
    assert!(matches!(gone, Err(NotCaughtUp::Promoted)));

    let history = b.history(timeline(2)).await;
    assert!(history.start().unwrap() >= fence);
    let beyond = history.start().unwrap().value() + 1;
    let strict = Wanted::Successor {
        of: me,
        fence_lsn: Some(Lsn::new(beyond)),
        loss: Loss::Refused,
    };
    let early = check(&b, &done.observation, Some(&history), strict);
    assert!(matches!(early, Err(Mismatch::ForkBeforeFence { .. })));
    let unknown = check(&b, &done.observation, None, wanted);
    assert!(matches!(unknown, Err(Mismatch::ForkUnknown { .. })));
    let old = probe(&mut root).await.unwrap();
    let old = CheckedTarget::check(&a.target("a"), &old, Some(&History::default()), wanted);
    assert!(matches!(old, Err(Mismatch::TimelineNotHigher { .. })));

    let checked = check(&b, &done.observation, Some(&history), wanted).unwrap();
    let new = targets.repoint(&Quiet, checked).unwrap();
    assert_eq!(targets.accepted().region.as_str(), "b");
    assert_eq!(new.identity.unwrap().fork_lsn, history.start());
}

/// The standby's postmaster is stopped while the primary dies, so that the walreceiver its startup
/// process asks for is not there yet when the promotion comes. Without a repeated request the
/// promotion then takes 5 s.
#[tokio::test]
async fn a_promotion_right_after_the_primarys_death_is_not_slept_over() {
    for _ in 0..3 {
        let mut a = Cluster::primary().await;
        let b = Cluster::standby_of(&a).await;
        let me = identity(&mut a.client().await).await;
        let driver = Postgres::new(b.endpoint(), superuser());
        driver.connect().await.unwrap();
        let postmaster = b.child.as_ref().unwrap().id();
        signal(postmaster, Signal::STOP);
        a.kill();
        sleep(Duration::from_millis(100)).await;
        let pinned = Pinned {
            system_identifier: me.system_identifier,
            timeline: me.timeline,
        };
        let go_on = async {
            sleep(Duration::from_millis(10)).await;
            signal(postmaster, Signal::CONT);
        };
        let (done, ()) = tokio::join!(driver.promote(pinned, Instant::now() + BOUND), go_on);
        let done = done.unwrap();
        assert!(done.took < Duration::from_secs(3), "{done:?}");
        assert!(b.history(timeline(2)).await.left(timeline(1)).is_some());
    }
}

#[tokio::test]
async fn a_promotion_without_the_right_names_the_grant() {
    let a = Cluster::primary().await;
    let b = Cluster::standby_of(&a).await;
    let mut root = a.client().await;
    root.query("CREATE ROLE w LOGIN; GRANT pg_monitor TO w")
        .await
        .unwrap();
    let me = identity(&mut root).await;
    let caught_up = "SELECT replay_lsn = pg_current_wal_flush_lsn() FROM pg_stat_replication";
    until(&mut root, caught_up).await;
    let driver = Postgres::new(b.endpoint(), how("w", None));
    let pinned = Pinned {
        system_identifier: me.system_identifier,
        timeline: me.timeline,
    };
    let refused = driver.promote(pinned, Instant::now() + BOUND).await;
    let Err(DriverError::Privilege { grants }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(grants, ["GRANT EXECUTE ON FUNCTION pg_promote TO w;"]);
    root.query(&grants[0]).await.unwrap();
    until(&mut root, caught_up).await;
    assert!(
        driver
            .promote(pinned, Instant::now() + BOUND)
            .await
            .unwrap()
            .by_us
    );
}

// ---- lost writes and predecessors --------------------------------------------------------------

#[tokio::test]
async fn unknown_writes_are_settled_on_the_new_primary() {
    let mut a = Cluster::primary().await;
    let b = Cluster::standby_of(&a).await;
    let mut root = a.client().await;
    let me = identity(&mut root).await;
    root.query("CREATE TABLE t (n int)").await.unwrap();
    let xid = |answer: Vec<Vec<Option<String>>>| -> u64 {
        answer[0][0].as_ref().unwrap().parse().unwrap()
    };
    let id = "SELECT pg_current_xact_id()";
    let committed = xid(root.query(id).await.unwrap());
    root.query("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    let rolled_back = xid(root.query(id).await.unwrap());
    root.query("ROLLBACK; BEGIN; INSERT INTO t VALUES (2)")
        .await
        .unwrap();
    let prepared = xid(root.query(id).await.unwrap());
    root.query("PREPARE TRANSACTION 'p'").await.unwrap();
    let caught_up = "SELECT replay_lsn = pg_current_wal_flush_lsn() FROM pg_stat_replication";
    until(&mut root, caught_up).await;
    let receiver = one(
        &mut b.client().await,
        "SELECT pid FROM pg_stat_wal_receiver",
    )
    .await;
    signal(receiver.parse().unwrap(), Signal::STOP);
    let never_arrived = xid(root.query(id).await.unwrap());
    a.kill();
    // The loss of a child restarts the standby's processes, at a moment of the postmaster's own:
    // only a session that it has ended shows that logins reach the restarted ones.
    let mut witness = b.client().await;
    signal(receiver.parse().unwrap(), Signal::KILL);
    witness.query("SELECT pg_sleep(30)").await.unwrap_err();
    let mut candidate = loop {
        if let Ok(client) = Client::connect(&b.endpoint(), &superuser()).await {
            break client;
        }
        sleep(Duration::from_millis(20)).await;
    };
    until(&mut candidate, "SELECT pg_is_in_recovery()").await;
    promote(&b, me).await.unwrap();
    let mut new = b.client().await;
    let next = NextXid::read(&mut new).await.unwrap();
    // Gives out the id that never arrived to somebody else, who commits it.
    assert_eq!(xid(new.query(id).await.unwrap()), never_arrived);
    let xids = [committed, rolled_back, prepared, never_arrived];
    let fates = evidence::write_fates(&mut new, next, &xids).await.unwrap();
    use WriteFate::{Committed, Lost, Undecided};
    assert_eq!(fates, [Committed, Lost, Undecided, Lost]);
}

#[tokio::test]
async fn backends_are_gone_only_when_that_is_proven() {
    let a = Cluster::primary().await;
    let mut root = a.client().await;
    root.query("CREATE ROLE plain LOGIN").await.unwrap();
    let alive = a.client().await;
    let ended = a.client().await;
    let (alive_pid, ended_pid) = (alive.pid(), ended.pid());
    let now = probe(&mut root).await.unwrap().now.unwrap();
    drop(ended);
    until(
        &mut root,
        &format!("SELECT NOT {ended_pid} = ANY (SELECT pid FROM pg_stat_activity)"),
    )
    .await;
    let later = a.client().await;
    let suspects = [alive_pid, ended_pid, later.pid()];
    let suspects = suspects.map(|pid| Suspect {
        pid,
        seen_at: Some(now),
    });
    let fates = evidence::backend_fates(&mut root, &suspects).await.unwrap();
    assert_eq!(
        fates,
        [BackendFate::Alive, BackendFate::Gone, BackendFate::Gone]
    );
    let mut plain = a.client_as("plain").await;
    let fates = evidence::backend_fates(&mut plain, &suspects)
        .await
        .unwrap();
    assert_eq!(fates, [BackendFate::Unknown; 3]);

    let pids = [alive_pid, ended_pid, later.pid()];
    assert_eq!(
        evidence::still_alive(&mut root, &pids, now).await.unwrap(),
        [alive_pid]
    );
    assert_eq!(
        evidence::older_clients(&mut root, now).await.unwrap(),
        [alive_pid]
    );
}
