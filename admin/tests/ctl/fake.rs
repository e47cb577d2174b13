//! A `Control` that plays runs from a script.
//!
//! The `reason` of a run chooses how it goes, so that a command line alone decides what is tested.
//! Its runs are folded from records like the daemon's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use writefence_admin::api::*;
use writefence_admin::audit::{EMPTY_ROOT, Entry, Line};
use writefence_admin::report::{Report, build};
use writefence_admin::runbook::{
    Fact, Fenced, Opened, Pinned, Promoted, Record, RunFacts, Started, Working, check_abort,
    check_resume, check_run, steps_of,
};
use writefence_admin::{Actor, Answer, Call, Control, Wait};

/// Records in its audit: more than one answer holds.
const RECORDS: u64 = 1200;

/// Between two records of a script.
const PACE: Duration = Duration::from_millis(2);

#[derive(Clone)]
pub(crate) struct Fake(Arc<Inner>);

struct Inner {
    groups: Vec<String>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    polls: AtomicU64,
}

#[derive(Default)]
struct State {
    calls: Vec<Value>,
    actors: Vec<Actor>,
    facts: Option<RunFacts>,
    events: Vec<Event>,
    working: bool,
    drain: Option<Drain>,
}

impl Fake {
    pub(crate) fn new(groups: &[&str]) -> Self {
        let groups = groups.iter().map(|name| (*name).to_owned()).collect();
        let (changed, _) = watch::channel(0);
        Self(Arc::new(Inner {
            groups,
            state: Mutex::default(),
            changed,
            polls: AtomicU64::new(0),
        }))
    }

    /// Every call that changed something: `[verb, group, request, run, epoch]`.
    pub(crate) fn calls(&self) -> Vec<Value> {
        self.state().calls.clone()
    }

    pub(crate) fn actors(&self) -> Vec<Actor> {
        self.state().actors.clone()
    }

    pub(crate) fn working(&self) -> bool {
        self.state().working
    }

    /// How often somebody asked how a run goes.
    pub(crate) fn polls(&self) -> u64 {
        self.0.polls.load(Ordering::SeqCst)
    }

    /// Forgets the run, so that the next verb begins a new one.
    pub(crate) fn forget(&self) {
        *self.state() = State::default();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    fn note<R: Request>(&self, call: &Call, request: &R) -> Answer<()> {
        let mut state = self.state();
        let (run, epoch) = (&call.expect.run, call.expect.epoch);
        state
            .calls
            .push(json!([R::VERB, call.group, request, run, epoch]));
        state.actors.push(call.actor);
        let live = state.facts.as_ref().filter(|facts| !facts.state.is_final());
        let live = live.map(|facts| facts.run.clone());
        drop(state);
        if !self.0.groups.contains(&call.group) {
            let what = format!("there is no group {}", call.group);
            return Err(ApiError::new(Code::NoSuchGroup, what));
        }
        check_run(&call.expect, live.as_deref(), 4)
    }

    fn document(&self) -> Run {
        let state = self.state();
        let working = if state.working {
            Working::Yes
        } else {
            Working::No
        };
        state
            .facts
            .as_ref()
            .unwrap()
            .document(working, Timestamp::now())
    }

    fn begin(&self, kind: RunKind, group: &str, to: Option<&str>, reason: &str) {
        let started = Started {
            group: group.to_owned(),
            run_kind: kind,
            from: Some("a".into()),
            to: to.map(str::to_owned),
            reason: reason.to_owned(),
            actor: "uid=0".into(),
            budget_ms: None,
            accept_loss: false,
            force_stragglers: false,
            fence_only: false,
        };
        let record = Record {
            seq: 1,
            at: Timestamp::now(),
            run: "r1".into(),
            fact: Fact::Started(started),
        };
        let mut state = self.state();
        state.facts = Some(RunFacts::begin(&record).unwrap());
        state.events.clear();
    }

    fn record(&self, fact: Fact) {
        let mut state = self.state();
        let facts = state.facts.as_mut().unwrap();
        let (seq, at) = (facts.seq + 1, Timestamp::now());
        let (run, current) = ("r1".to_owned(), facts.step);
        let record = Record { seq, at, run, fact };
        facts.apply(&record).unwrap();
        state.events.push(record.event(current));
        drop(state);
        self.0.changed.send_modify(|n| *n += 1);
    }

    /// Plays facts in the background; the answer is the run as it is now.
    fn play(&self, script: Vec<Fact>) -> Run {
        self.state().working = true;
        let fake = self.clone();
        tokio::spawn(async move {
            for fact in script {
                sleep(PACE).await;
                fake.record(fact);
            }
            fake.state().working = false;
            fake.0.changed.send_modify(|n| *n += 1);
        });
        self.document()
    }

    async fn whole(&self, call: Call, kind: RunKind, to: &str, reason: &str) -> Answer<Run> {
        match reason {
            "refused" => {
                return Err(ApiError::new(Code::PreflightBlocked, "b does not answer")
                    .hint("look at `preflight`")
                    .epoch(4));
            }
            "panics" => unreachable!("asked for by the test"),
            "silent" => sleep(Duration::from_secs(60)).await,
            "late" => sleep(Duration::from_millis(300)).await,
            _ => {}
        }
        self.begin(kind, &call.group, Some(to), reason);
        Ok(self.play(script(reason)))
    }

    /// A verb of a run of single steps; the steps before it are played at once if need be.
    fn single(&self, call: &Call, verb: Verb, to: Option<&str>, reason: &str) -> Run {
        if self.state().facts.is_none() {
            self.begin(RunKind::Steps, &call.group, to, reason);
            let before = steps_of(verb)[0];
            for step in Step::ALL.into_iter().take_while(|step| *step < before) {
                doing(step).into_iter().for_each(|fact| self.record(fact));
            }
        }
        let mut facts = vec![Fact::Verb {
            verb,
            actor: "uid=0".into(),
        }];
        facts.extend(steps_of(verb).into_iter().flat_map(doing));
        if verb == Verb::Verify {
            facts.push(becomes(RunState::Done, None));
        }
        self.play(facts)
    }
}

/// The records of a step that succeeds.
fn doing(step: Step) -> Vec<Fact> {
    let evidence = Evidence {
        kind: EvidenceKind::Barrier,
        at: Timestamp::now(),
        detail: "read-only".into(),
    };
    let inside = match step {
        Step::Fence => Some(Fact::Fence(Fenced {
            epoch: 4,
            answer: FenceAnswer::Hold,
            hold_ms: None,
        })),
        Step::Evidence => Some(Fact::Evidence { evidence }),
        Step::Certificate => Some(Fact::Certificate {
            certificate: Certificate {
                group: "main".into(),
                epoch: 4,
                fenced_at: Timestamp::now(),
                executing: 0,
                orphaned: 0,
                unknown: 0,
                evidence,
                fence_lsn: None,
                system_identifier: None,
                timeline: None,
                acks: vec![],
            },
        }),
        Step::Pnr => Some(Fact::Pnr {
            candidate: Pinned {
                region: "b".into(),
                system_identifier: None,
                timeline: None,
            },
        }),
        Step::Promote => Some(Fact::Promoted(Promoted {
            next_xid: None,
            region: "b".into(),
            system_identifier: None,
            timeline: None,
            fork_lsn: None,
        })),
        Step::Open => Some(Fact::Open(Opened {
            region: "b".into(),
            epoch: 5,
        })),
        _ => None,
    };
    let mut facts = vec![Fact::StepStarted { step }];
    facts.extend(inside);
    facts.push(Fact::StepDone {
        step,
        findings: vec![],
    });
    facts
}

fn becomes(state: RunState, error: Option<Code>) -> Fact {
    let error = error.map(|code| ApiError::new(code, format!("the script says {code}")));
    Fact::State { state, error }
}

fn back(state: RunState, error: Option<Code>) -> [Fact; 3] {
    [
        Fact::Aborting {
            actor: "uid=0".into(),
            reason: "script".into(),
        },
        Fact::Open(Opened {
            region: "a".into(),
            epoch: 5,
        }),
        becomes(state, error),
    ]
}

/// How a run with this reason goes.
fn script(reason: &str) -> Vec<Fact> {
    let up_to = |last: Step| {
        let steps = Step::ALL.into_iter().take_while(move |step| *step <= last);
        steps.flat_map(doing).collect::<Vec<_>>()
    };
    let mut facts = match reason {
        "rolls-back" => up_to(Step::Drain),
        "interrupted" => up_to(Step::Drain),
        "foreign" | "rehearsed" => up_to(Step::Drain),
        "forever" => up_to(Step::Fence),
        _ => up_to(Step::Report),
    };
    match reason {
        "rolls-back" => facts.extend(back(RunState::RolledBack, Some(Code::BudgetExceeded))),
        "rehearsed" => facts.extend(back(RunState::RolledBack, None)),
        "interrupted" => facts.push(becomes(RunState::Interrupted, None)),
        "foreign" => facts.push(becomes(RunState::Failed, Some(Code::ForeignWriters))),
        "not-verified" => facts.push(becomes(RunState::Failed, Some(Code::VerificationFailed))),
        "forever" => facts.extend((0..20_000).map(|_| note())),
        _ => facts.push(becomes(RunState::Done, None)),
    }
    facts
}

fn note() -> Fact {
    Fact::Note {
        step: None,
        text: "still at it".into(),
    }
}

fn in_flight() -> InFlight {
    InFlight {
        executing: 3,
        held: 7,
        prepared_transactions: None,
        ..InFlight::default()
    }
}

impl Control for Fake {
    async fn status(&self) -> Answer<Status> {
        let lane = LaneStatus {
            phase: Phase::Open,
            answer: None,
            in_flight: 3,
        };
        let any = self.state().facts.is_some();
        let run = any.then(|| self.document());
        let group = |name: &String| GroupStatus {
            name: name.clone(),
            phase: Phase::Open,
            answer: None,
            epoch: 4,
            primary: Some("a".into()),
            lanes: Lanes {
                http: lane.clone(),
                sql: lane.clone(),
            },
            in_flight: in_flight(),
            drain: None,
            regions: vec![
                RegionStatus {
                    reachable: Some(name != "silent"),
                    ..region("a")
                },
                region("b"),
            ],
            replication: 0,
            run: run.clone().filter(|run| run.group == *name),
            notices: vec![],
        };
        Ok(Status {
            version: "0.1.0".into(),
            started: Timestamp::now(),
            groups: self.0.groups.iter().map(group).collect(),
        })
    }

    async fn sessions(&self, group: &str) -> Answer<SessionList> {
        let pins = vec![Pin {
            kind: "listen".into(),
            reason: "it listens".into(),
        }];
        let session = Session {
            id: "41".into(),
            user: "app".into(),
            database: "shop".into(),
            client: None,
            application_name: Some("till".into()),
            region: Some("a".into()),
            state: SessionState::Idle,
            pid: Some(4242),
            movable: false,
            moves: Moves::MustEnd,
            replays: vec![],
            pins,
            since_ms: 12_345,
        };
        Ok(SessionList {
            group: group.to_owned(),
            sessions: vec![session],
            replication: vec![],
        })
    }

    async fn unknown_list(&self, group: &str) -> Answer<UnknownList> {
        Ok(UnknownList {
            group: group.to_owned(),
            writes: vec![],
        })
    }

    async fn progress(&self, run: &str, wait: Wait) -> Answer<RunProgress> {
        self.0.polls.fetch_add(1, Ordering::SeqCst);
        let mut changed = self.0.changed.subscribe();
        let newer = async {
            loop {
                changed.borrow_and_update();
                let seq = self.state().events.last().map_or(0, |event| event.seq);
                if seq > wait.after || !self.working() {
                    return;
                }
                changed.changed().await.unwrap();
            }
        };
        let _ = timeout(wait.at_most, newer).await;
        if self.state().facts.is_none() || run != "r1" {
            return Err(ApiError::new(
                Code::NoSuchRun,
                format!("there is no run {run}"),
            ));
        }
        let run = self.document();
        let events: Vec<_> = self
            .state()
            .events
            .iter()
            .filter(|event| event.seq > wait.after)
            .cloned()
            .collect();
        let seq = events.last().map_or(wait.after, |event| event.seq);
        Ok(RunProgress {
            run,
            seq,
            events,
            in_flight: Some(in_flight()),
            left: None,
        })
    }

    async fn drain(&self, _group: &str, id: &str, at_most: Duration) -> Answer<Drain> {
        sleep(at_most.min(PACE)).await;
        let mut state = self.state();
        let drain = state.drain.as_mut().filter(|drain| drain.id == id);
        let drain =
            drain.ok_or_else(|| ApiError::new(Code::NoSuchDrain, format!("no drain {id}")))?;
        drain.outcome = match drain.deadline {
            None => Some(DrainOutcome::Drained),
            Some(_) if drain.lanes.http == 1 => Some(DrainOutcome::Superseded),
            Some(_) => Some(DrainOutcome::TimedOut),
        };
        Ok(drain.clone())
    }

    async fn preflight(&self, call: Call, request: PreflightRequest) -> Answer<Preflight> {
        self.note(&call, &request)?;
        let level = if request.to == "b" {
            Level::Warn
        } else {
            Level::Block
        };
        let findings = vec![
            Finding::new(level, "candidate", "the candidate is what it is"),
            Finding::new(Level::Pass, "primary", "the primary answers"),
        ];
        Ok(Preflight::new(
            call.group,
            Some("a".into()),
            request.to,
            findings,
        ))
    }

    async fn explain_sql(&self, call: Call, request: ExplainSqlRequest) -> Answer<ExplainSql> {
        self.note(&call, &request)?;
        let statement = ExplainStatement {
            text: request.sql,
            kind: "other".into(),
            verdict: Verdict::Write,
            rule: "insert".into(),
            decided_by: None,
        };
        let rule = Some("insert".into());
        let statements = vec![statement];
        Ok(ExplainSql {
            verdict: Verdict::Write,
            rule,
            decided_by: None,
            database: request.database,
            no_catalog: None,
            statements,
        })
    }

    async fn explain_http(&self, call: Call, request: ExplainHttpRequest) -> Answer<ExplainHttp> {
        self.note(&call, &request)?;
        let verdict = HttpVerdict::Write;
        let listeners = vec![ExplainHttpListener {
            address: "127.0.0.1:8080".into(),
            verdict,
            rule: "method".into(),
            route: None,
            answer: None,
            write_deadline_ms: 60_000,
        }];
        Ok(ExplainHttp { verdict, listeners })
    }

    async fn prepare(&self, call: Call, request: Prepare) -> Answer<Run> {
        self.note(&call, &request)?;
        if request.primary != "a" {
            let what = format!("{} is not the accepted primary, a is", request.primary);
            return Err(ApiError::new(Code::WrongRegion, what).epoch(4));
        }
        Ok(self.single(&call, Verb::Prepare, None, &request.reason))
    }

    /// The longest wait chooses the outcome: 1 s times out, 2 s is superseded.
    async fn watch_drain(&self, call: Call, request: WatchDrain) -> Answer<Drain> {
        self.note(&call, &request)?;
        let now = Timestamp::now();
        let ends = matches!(request.max_wait_ms, 1000 | 2000);
        let drain = Drain {
            id: "d1".into(),
            epoch: 4,
            outcome: None,
            started: now,
            deadline: ends.then_some(now),
            lanes: LaneCounts {
                http: u64::from(request.max_wait_ms == 2000),
                sql: 1,
            },
            unknown: 0,
            stragglers: vec![],
        };
        self.state().drain = Some(drain.clone());
        Ok(drain)
    }

    async fn promote(&self, call: Call, request: Promote) -> Answer<Run> {
        self.note(&call, &request)?;
        Ok(self.single(&call, Verb::Promote, Some(&request.new_primary), "x"))
    }

    async fn open_writes(&self, call: Call, request: OpenWrites) -> Answer<Run> {
        self.note(&call, &request)?;
        Ok(self.single(&call, Verb::OpenWrites, Some(&request.primary), "x"))
    }

    async fn verify(&self, call: Call, request: Verify) -> Answer<Run> {
        self.note(&call, &request)?;
        Ok(self.single(&call, Verb::Verify, Some(&request.primary), "x"))
    }

    async fn switchover(&self, call: Call, request: SwitchoverRequest) -> Answer<Run> {
        self.note(&call, &request)?;
        self.whole(call, RunKind::Switchover, &request.to, &request.reason)
            .await
    }

    async fn failover(&self, call: Call, request: FailoverRequest) -> Answer<Run> {
        self.note(&call, &request)?;
        self.whole(call, RunKind::Failover, &request.to, &request.reason)
            .await
    }

    async fn drill(&self, call: Call, request: DrillRequest) -> Answer<Run> {
        self.note(&call, &request)?;
        self.whole(call, RunKind::Drill, &request.to, "rehearsed")
            .await
    }

    async fn report(&self, run: &str) -> Answer<Report> {
        let missing = || ApiError::new(Code::NoSuchRun, format!("there is no run {run}"));
        let facts = self.state().facts.clone().filter(|facts| facts.run == run);
        let facts = facts.ok_or_else(missing)?;
        Ok(build(&facts, &[], vec![], None, Timestamp::now()))
    }

    async fn audit(&self, after: u64, limit: usize) -> Answer<AuditPage> {
        let mut lines = Vec::new();
        let mut prev = EMPTY_ROOT;
        for seq in 1..=RECORDS {
            let entry = Entry::new(writefence_admin::audit::Event::Verb, "accepted").fact("n", seq);
            let line = Line { seq, prev, entry };
            prev = line.hash();
            lines.push(String::from_utf8(line.encode()).unwrap());
        }
        let from = usize::try_from(after)
            .unwrap_or(usize::MAX)
            .min(lines.len());
        let lines: Vec<_> = lines.split_off(from).into_iter().take(limit).collect();
        let last = after.saturating_add(lines.len() as u64);
        Ok(AuditPage {
            key: "writefence/test+00000000+AA==".into(),
            size: RECORDS,
            checkpoint: "a checkpoint\n".into(),
            lines,
            last,
            end: last >= RECORDS,
            broken: None,
        })
    }

    async fn abort(&self, call: Call, request: Abort) -> Answer<Run> {
        self.note(&call, &request)?;
        let facts = self.state().facts.clone();
        check_abort(&facts.ok_or_else(|| ApiError::new(Code::NothingToAbort, "no run"))?)?;
        Ok(self.play(back(RunState::Aborted, None).to_vec()))
    }

    async fn resume(&self, call: Call, request: Resume) -> Answer<Run> {
        self.note(&call, &request)?;
        let facts = self.state().facts.clone();
        let facts = facts.ok_or_else(|| ApiError::new(Code::NothingToResume, "no run"))?;
        check_resume(&facts)?;
        let mut script = vec![becomes(RunState::Running, None)];
        let left = Step::ALL.into_iter().filter(|step| !facts.is_behind(*step));
        script.extend(left.flat_map(doing));
        script.push(becomes(RunState::Done, None));
        Ok(self.play(script))
    }

    async fn unknown_ack(&self, call: Call, request: UnknownAck) -> Answer<UnknownList> {
        self.note(&call, &request)?;
        if request.ids.iter().any(|id| id == "u9") {
            return Err(ApiError::new(Code::NoSuchWrite, "there is no write u9"));
        }
        Ok(UnknownList {
            group: call.group,
            writes: vec![],
        })
    }

    async fn reload(&self, actor: Actor, request: Reload) -> Answer<ReloadReport> {
        self.state()
            .calls
            .push(json!(["reload", serde_json::to_value(request).unwrap()]));
        self.state().actors.push(actor);
        Ok(ReloadReport {
            applied: vec!["fence.hold".into()],
            needs_restart: vec![],
        })
    }
}

fn region(name: &str) -> RegionStatus {
    let primary = name == "a";
    RegionStatus {
        name: name.to_owned(),
        address: Some("127.0.0.1:5501".to_owned()),
        role: Some(if primary {
            Role::Primary
        } else {
            Role::Standby
        }),
        writable: Some(primary),
        system_identifier: None,
        timeline: Some(1),
        lsn: None,
        lag_bytes: (!primary).then_some(2048),
        lag_seconds: None,
        reachable: Some(true),
        last_probe_ms: Some(40),
        problem: None,
    }
}

/// A request as it stands in the list of calls.
pub(crate) fn called<R: Request + Serialize>(
    request: &R,
    run: Option<&str>,
    epoch: Option<u64>,
) -> Value {
    json!([R::VERB, "main", request, run, epoch])
}
