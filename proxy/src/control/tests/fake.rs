//! Two servers of one cluster that do as the test says, and a group's control on top of them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use writefence_admin::api::{ApiError, Code};
use writefence_admin::runbook::{FenceLsn, Pinned};

use super::super::boot::{Boot, GroupParts, begin, desk};
use super::super::desk::Desk;
use super::super::servers::{Older, Own, Seen, Servers, StillBarred, Ticket, Under, Work};
use super::super::settings::Settings;
use super::super::trail::Trail;
use crate::evidence::WriteFate;
use crate::fleet::{LocalStore, MemoryStore, Predecessor, Store, Written};
use crate::gate::{Answer, Begin, Gate, Limits};
use crate::group::{self, Group, NoLogins};
use crate::pg::catalog::Catalogs;
use crate::pg::classify::Policy;
use crate::pg::params::Params;
use crate::sessions::{Bounds, Sessions};
use crate::shutdown::{Tasks, pair};
use crate::unknown::UnknownLedger;
use crate::upstream::wire::Login;
use crate::upstream::{
    CheckedTarget, Endpoint, History, Lsn, Need, Observation, Prepared, ReadOnlyDefault, Region,
    Role, Survey, Target, Targets, Timeline, Wanted,
};

const SYSTEM: u64 = 42;

fn nobody(_: &Target, _: &str) -> Login {
    Login {
        params: Vec::new(),
        minor: 0,
        proof: Default::default(),
        timeout: Duration::ZERO,
    }
}

fn endpoint(region: &str) -> Endpoint {
    Endpoint::new(region, 5432)
}

fn observation(region: &str, role: Role, timeline: u32) -> Observation {
    let is_primary = role == Role::Primary;
    let lsn = Some(Lsn::new(1000));
    Observation {
        endpoint: endpoint(region),
        role: Some(role),
        writable: Some(is_primary),
        read_only: Some(ReadOnlyDefault {
            on: false,
            source: "default".to_owned(),
            file: None,
        }),
        barrier: None,
        system_identifier: Some(SYSTEM),
        timeline: Timeline::new(timeline),
        received_timeline: if is_primary {
            None
        } else {
            Timeline::new(timeline)
        },
        lsn,
        insert_lsn: if is_primary { lsn } else { None },
        flush_lsn: if is_primary { lsn } else { None },
        receive_lsn: if is_primary { None } else { lsn },
        replay_lsn: if is_primary { None } else { lsn },
        replay_age: None,
        replicas: None,
        prepared: Some(Vec::new()),
        unbroken_since: None,
        next_xid: Some(1000),
        server_version: Some(150_000),
        now: None,
    }
}

/// A primary that takes writes.
pub(in crate::control) fn primary(region: &str, timeline: u32) -> Observation {
    observation(region, Role::Primary, timeline)
}

/// A standby that has replayed everything.
pub(in crate::control) fn standby(region: &str, timeline: u32) -> Observation {
    observation(region, Role::Standby, timeline)
}

/// See the module.
pub(super) struct Fake {
    state: Mutex<State>,
    moved: watch::Sender<u64>,
    store: Arc<MemoryStore>,
}

#[derive(Default)]
struct State {
    servers: HashMap<String, Observation>,
    silent: HashMap<String, Instant>,
    failing: HashMap<&'static str, ApiError>,
    blocked: HashSet<&'static str>,
    calls: Vec<String>,
    lines: HashMap<String, Vec<String>>,
}

impl Fake {
    fn new(store: Arc<MemoryStore>) -> Arc<Self> {
        let mut state = State::default();
        state.servers.insert("a".to_owned(), primary("a", 1));
        state.servers.insert("b".to_owned(), standby("b", 1));
        Arc::new(Self {
            state: Mutex::new(state),
            moved: watch::Sender::new(0),
            store,
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Every call so far, as `verb region`.
    pub(super) fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    /// The journal as it was when this call was made last.
    pub(super) fn lines_at(&self, verb: &str) -> Vec<String> {
        self.state().lines.get(verb).cloned().unwrap_or_default()
    }

    /// From now on these calls fail.
    pub(super) fn fail(&self, verb: &'static str, error: ApiError) {
        self.state().failing.insert(verb, error);
    }

    /// They work again.
    pub(super) fn heal(&self, verb: &'static str) {
        self.state().failing.remove(verb);
    }

    /// From now on these calls do not return.
    pub(super) fn block(&self, verb: &'static str) {
        self.state().blocked.insert(verb);
    }

    /// They return again.
    pub(super) fn unblock(&self, verb: &'static str) {
        self.state().blocked.remove(verb);
    }

    /// A server that answers nobody.
    pub(super) fn silence(&self, region: &str) {
        let now = Instant::now();
        self.state().silent.insert(region.to_owned(), now);
    }

    /// Resolves once such a call was made.
    pub(super) async fn reached(&self, verb: &str) {
        let mut moved = self.moved.subscribe();
        while !self.calls().iter().any(|call| call.starts_with(verb)) {
            moved.changed().await.unwrap();
        }
    }

    async fn called(&self, verb: &'static str, region: &str) -> Result<Observation, ApiError> {
        let lines = self.store.written().into_iter().filter_map(|w| match w {
            Written::Line { line, .. } => Some(line),
            Written::Gate(_) => None,
        });
        let lines = lines.collect();
        let (blocked, answer) = {
            let mut state = self.state();
            state.calls.push(format!("{verb} {region}"));
            state.lines.insert(verb.to_owned(), lines);
            let silent = state.silent.contains_key(region);
            let answer = match state.failing.get(verb) {
                Some(error) => Err(error.clone()),
                None if silent => Err(ApiError::new(Code::TargetUnreachable, "no answer")),
                None => Ok(state.servers[region].clone()),
            };
            (state.blocked.contains(verb), answer)
        };
        self.moved.send_modify(|n| *n += 1);
        if blocked {
            std::future::pending::<()>().await;
        }
        answer
    }

    fn change(&self, region: &str, seen: Observation) {
        self.state().servers.insert(region.to_owned(), seen);
    }
}

impl Servers for Fake {
    fn seen(&self, region: &Region) -> Option<Arc<Seen>> {
        let state = self.state();
        let seen = state.servers.get(region.as_str()).cloned()?;
        let (at, silent) = (Instant::now(), state.silent.get(region.as_str()));
        let answer = match silent {
            Some(_) => Err("no answer".to_owned()),
            None => Ok(seen.clone()),
        };
        Some(Arc::new(Seen {
            answer,
            last: Some(seen),
            last_at: Some(*silent.unwrap_or(&at)),
            at,
        }))
    }

    fn observe<'a>(&'a self, region: &'a Region) -> Work<'a, Observation> {
        Box::pin(self.called("observe", region.as_str()))
    }

    fn survey<'a>(&'a self, region: &'a Region, _: &'a [Need]) -> Work<'a, Survey> {
        // No call of a run's: the tripwire asks too, whenever it likes.
        let _ = region;
        Box::pin(async { Ok(Survey::default()) })
    }

    fn ask<'a>(&'a self, region: &'a Region, _: &'a str) -> Work<'a, Option<String>> {
        Box::pin(async move {
            self.called("ask", region.as_str()).await?;
            Ok(Some("1".to_owned()))
        })
    }

    fn observers(&self) -> Option<String> {
        None
    }

    fn warm<'a>(&'a self, _: &'a [Region]) -> Work<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn clear<'a>(&'a self, _: &'a Region, _: &'a Ticket) -> Work<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn check<'a>(
        &'a self,
        region: &'a Region,
        wanted: Wanted,
        _: Option<&'a Ticket>,
        _: Option<Observation>,
    ) -> Work<'a, CheckedTarget> {
        Box::pin(async move {
            let seen = self.called("check", region.as_str()).await?;
            let history = History::parse(match seen.timeline.map(Timeline::value) {
                Some(1) | None => "",
                Some(_) => "1\t0/3E8\tno recovery target specified\n",
            });
            CheckedTarget::check(&target(region.as_str()), &seen, history.as_ref(), wanted)
                .map_err(|e| ApiError::new(Code::IdentityMismatch, e.to_string()))
        })
    }

    fn bar<'a>(
        &'a self,
        region: &'a Region,
        _: &'a Ticket,
        _: Own,
        _: Instant,
    ) -> Work<'a, String> {
        Box::pin(async move {
            let mut seen = self.called("bar", region.as_str()).await?;
            seen.writable = Some(false);
            seen.read_only = seen.read_only.map(|r| ReadOnlyDefault { on: true, ..r });
            self.change(region.as_str(), seen);
            Ok("barred".to_owned())
        })
    }

    fn barred<'a>(&'a self, region: &'a Region, _: &'a Ticket, _: Own) -> Work<'a, StillBarred> {
        Box::pin(async move {
            self.called("barred", region.as_str()).await?;
            Ok(StillBarred::Stands)
        })
    }

    fn unbar<'a>(&'a self, region: &'a Region, _: &'a Ticket) -> Work<'a, ()> {
        Box::pin(async move {
            let mut seen = self.called("unbar", region.as_str()).await?;
            seen.writable = Some(seen.role == Some(Role::Primary));
            seen.read_only = seen.read_only.map(|r| ReadOnlyDefault { on: false, ..r });
            self.change(region.as_str(), seen);
            Ok(())
        })
    }

    fn fence_lsn<'a>(
        &'a self,
        region: &'a Region,
        _: &'a Ticket,
        _: Instant,
    ) -> Work<'a, FenceLsn> {
        Box::pin(async move {
            self.called("fence_lsn", region.as_str()).await?;
            Ok(FenceLsn {
                lsn: Lsn::new(1000).to_string(),
                system_identifier: SYSTEM.to_string(),
                timeline: 1,
            })
        })
    }

    fn replayed<'a>(&'a self, region: &'a Region, lsn: &'a FenceLsn, _: Instant) -> Work<'a, Lsn> {
        Box::pin(async move {
            self.called("replayed", region.as_str()).await?;
            Ok(lsn.lsn.parse().unwrap())
        })
    }

    fn pin<'a>(&'a self, region: &'a Region) -> Work<'a, Pinned> {
        Box::pin(async move {
            let seen = self.called("pin", region.as_str()).await?;
            Ok(Pinned {
                region: region.to_string(),
                system_identifier: seen.system_identifier.map(|id| id.to_string()),
                timeline: seen.timeline.map(Timeline::value),
            })
        })
    }

    fn promote<'a>(&'a self, pinned: &'a Pinned, _: Instant) -> Work<'a, Observation> {
        Box::pin(async move {
            self.called("promote", &pinned.region).await?;
            let seen = primary(&pinned.region, 2);
            self.change(&pinned.region, seen.clone());
            Ok(seen)
        })
    }

    fn older<'a>(&'a self, _: &'a Region, _: Older, _: Duration) -> Work<'a, Vec<i32>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn alive<'a>(&'a self, _: &'a Region, _: Vec<(i32, Duration)>) -> Work<'a, Vec<i32>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn running_xids<'a>(&'a self, _: &'a Region) -> Work<'a, Vec<(i32, u64)>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn fates<'a>(
        &'a self,
        region: &'a Region,
        _: Under,
        xids: Vec<u64>,
    ) -> Work<'a, Vec<WriteFate>> {
        Box::pin(async move {
            self.called("fates", region.as_str()).await?;
            Ok(vec![WriteFate::Lost; xids.len()])
        })
    }

    fn verifiers<'a>(&'a self, _: &'a Region) -> Work<'a, Vec<(String, String)>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn prepared<'a>(&'a self, _: &'a Region) -> Work<'a, Vec<Prepared>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn canary<'a>(&'a self, region: &'a Region, _: &'a str) -> Work<'a, Lsn> {
        Box::pin(async move {
            self.called("canary", region.as_str()).await?;
            Ok(Lsn::new(2000))
        })
    }

    fn synchronous(&self, _: &Region, _: &Region) -> Result<String, String> {
        Err("nothing was synchronous".to_owned())
    }

    fn refresh(&self) {}
}

fn target(region: &str) -> Target {
    Target {
        region: Region::new(region),
        endpoint: endpoint(region),
        user: None,
        passwords: writefence_config::Password::None,
        identity: None,
        serial: 0,
    }
}

/// A group whose control runs on fake servers and a store in memory.
pub(super) struct World {
    pub(super) desk: Arc<Desk>,
    pub(super) fake: Arc<Fake>,
    pub(super) store: Arc<MemoryStore>,
}

impl World {
    /// After a first start, open in region a.
    pub(super) async fn open() -> Self {
        let store = Arc::new(MemoryStore::new());
        let fake = Fake::new(Arc::clone(&store));
        let desk = Self::restart(&store, &fake).await;
        while desk.actor.is_fenced() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        fake.state().calls.clear();
        Self { desk, fake, store }
    }

    /// Another daemon on the same store.
    pub(super) async fn restart(store: &Arc<MemoryStore>, fake: &Arc<Fake>) -> Arc<Desk> {
        let store = Arc::clone(store) as Arc<dyn Store>;
        let mut boot = Boot::read(&*store, "main", "a").unwrap();
        let (region, identity) = boot.accepted();
        let targets = Targets::new(vec![target("a"), target("b")], region, identity).unwrap();
        let limits = Limits {
            held: 10,
            held_bytes: 1000,
            release_burst: 10,
        };
        let group = Group {
            name: "main".to_owned(),
            gate: Gate::new(limits, boot.epoch()),
            targets: Arc::new(targets),
            sessions: Arc::new(Sessions::default()),
            connections: Arc::default(),
            nearby: ArcSwapOption::empty(),
            rules: ArcSwap::default(),
            requests: Arc::default(),
            http: Arc::default(),
            tcp: Arc::default(),
            catalogs: Catalogs::new("postgres", Box::new(nobody)),
            params: Params::default(),
            lives: Default::default(),
            unknown: Arc::new(UnknownLedger::in_memory()),
            settings: ArcSwap::from_pointee(front()),
            moves: Arc::new(Semaphore::new(1)),
            logins: Box::new(NoLogins),
            commands: OnceLock::new(),
        };
        let dir = tempfile::tempdir().unwrap();
        let (local, start) = LocalStore::open(dir.path(), &["main".to_owned()]).unwrap();
        let (log, _) = local.incarnation("main", &start).unwrap();
        let (stopper, stop) = pair();
        // The daemon lives as long as the test.
        Box::leak(Box::new(stopper));
        let parts = GroupParts {
            group: Arc::new(group),
            store,
            scope: "test/main".to_owned(),
            settings: settings(),
            hooks: Vec::new(),
            checks: Vec::new(),
            log: Arc::new(log),
            left: Predecessor::None,
            trail: Trail::default(),
            tasks: Tasks::default(),
            stop,
        };
        let desk = desk(&parts, &mut boot, Arc::clone(fake) as Arc<dyn Servers>);
        begin(&desk, boot, &parts).await.unwrap();
        desk
    }
}

pub(super) fn settings() -> Settings {
    Settings {
        answer: Answer::Hold,
        hold: Duration::from_secs(20),
        begin: Begin::Auto,
        all: false,
        http_first: true,
        http_deadline: Duration::from_millis(50),
        grace: Duration::from_millis(100),
        deadline: Duration::from_millis(300),
        budget: Duration::from_secs(5),
        interval: Duration::from_secs(1),
        max_lag: Duration::from_secs(5),
        preflight: Duration::from_secs(300),
        by_sql: true,
        promotes: String::new(),
        promotion: Duration::from_secs(60),
        evidence: writefence_config::Evidence {
            stopped: None,
            stonith: None,
            timeout: Duration::from_secs(1),
        },
        rto: None,
        rpo: None,
        reads_elsewhere: true,
    }
}

fn front() -> group::Settings {
    let minimal = include_str!("../../../../config/minimal.toml");
    let defaults = writefence_config::parse(minimal, "minimal.toml")
        .unwrap()
        .config;
    group::Settings {
        login_timeout: Duration::from_secs(1),
        startup_timeout: Duration::from_secs(1),
        reach_timeout: Duration::from_secs(1),
        policy: Policy::default(),
        track_xid: false,
        sqlstate: "25006",
        sessions: Bounds {
            all: 10,
            per_user: 0,
            per_database: 0,
        },
        idle_timeout: Duration::ZERO,
        idle_in_transaction_timeout: Duration::ZERO,
        message: 1 << 20,
        tcp: defaults.tcp,
        console: defaults.console,
        retry_after: Duration::from_secs(1),
    }
}
