//! One request from its head to the end of its answer.
//!
//! Judged, admitted if it may write, sent in a task of its own, and its answer passed on. What is
//! read of a body before that is in `ahead`; the rest is streamed.

mod admit;
mod ahead;
mod order;
mod relay;
mod reply;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::header;
use http::{StatusCode, Uri, uri};
use tokio::time::Instant;
use writefence_config::{Cors, Streams};

use super::Front;
use super::classify::{self, Judged, Manner, Verdict};
use super::exchange::{self, Order};
use super::figures::Fate;
use super::headers;
use super::pool::Aim;
use super::refuse::{self, Tongue, Why};
use super::server::{Downstream, Gone};
use super::socket::Socket;
use super::tunnel::Closing;
use crate::gate::{Lane, Phase};
use crate::requests::RequestState;
use crate::shutdown::Shutdown;
use admit::Barred;
use ahead::Early;

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) client: SocketAddr,
    pub(super) tls: bool,
    pub(super) tally: Arc<Tally>,
    /// Hears that the daemon stops.
    pub(super) stop: Shutdown,
}

/// What the requests of one connection have in common.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Streams that are held.
    pub(super) held: AtomicUsize,
    /// Requests whose client left before they were answered.
    gone: AtomicUsize,
}

impl Tally {
    fn leave(&self) {
        self.gone.fetch_add(1, Ordering::Relaxed);
    }

    /// How often its client asked and left.
    pub(super) fn gone(&self) -> usize {
        self.gone.load(Ordering::Relaxed)
    }
}

/// A request being served.
struct Serving<'a> {
    front: &'a Arc<Front>,
    peer: &'a Peer,
    down: Downstream,
    id: String,
    host: String,
    tongue: Tongue,
    /// What has been read of the body.
    ahead: VecDeque<Bytes>,
    ahead_bytes: usize,
    /// The rest of the body is not waited for.
    is_stream: bool,
    /// The client went on too slowly when a part of its body was sent already.
    is_late: bool,
}

/// Serves a request; returns the connection if it can take another.
pub(super) async fn serve(front: &Arc<Front>, down: Downstream, peer: &Peer) -> Option<Socket> {
    let head = down.head();
    let host = host(head);
    let mut serving = Serving {
        front,
        peer,
        id: headers::request_id(&head.headers),
        tongue: Tongue::of(&head.headers, front.listener.cors == Cors::Reflect),
        host,
        down,
        ahead: VecDeque::new(),
        ahead_bytes: 0,
        is_stream: false,
        is_late: false,
    };
    match serving.run().await {
        Ok(true) => serving.down.finish().await,
        Ok(false) | Err(Gone) => {
            serving.down.abort();
            None
        }
    }
}

impl Serving<'_> {
    /// True when the answer is complete.
    async fn run(&mut self) -> Result<bool, Gone> {
        if self.is_health() {
            self.front.figures.count(Fate::Local);
            return self.reply(refuse::healthy()).await;
        }
        let Ok(target) = std::str::from_utf8(self.down.target()).map(str::to_owned) else {
            return self
                .bad(StatusCode::BAD_REQUEST, "its target is not ASCII")
                .await;
        };
        if self.down.head().method == http::Method::CONNECT {
            let why = "CONNECT is not for a server that is no forward proxy";
            return self.bad(StatusCode::NOT_IMPLEMENTED, why).await;
        }
        let Some(target) = origin_form(&target) else {
            return self
                .bad(StatusCode::BAD_REQUEST, "its target is no path")
                .await;
        };
        let upgrade = self.is_websocket(&target);
        if upgrade && !self.down.body_done() {
            // What is body to the one and frames to the other would be a request to a third.
            let why = "a WebSocket begins without a body";
            return self.bad(StatusCode::BAD_REQUEST, why).await;
        }
        let judged = match self.judge(&target).await {
            Ok(judged) => judged,
            Err(early) => return self.give_up(early).await,
        };
        let manner = self.front.rules.manner(&judged);
        let write = judged.verdict != Verdict::Read
            || (manner.sse == Streams::Fence && self.asks_for_events())
            || self.reads_wait();
        match write {
            true => self.write(&target, manner, upgrade).await,
            false => self.read(&target, manner, upgrade).await,
        }
    }

    fn is_health(&self) -> bool {
        let head = self.down.head();
        let path = self.front.listener.health.as_deref();
        let asks = head.method == http::Method::GET || head.method == http::Method::HEAD;
        asks && path.is_some_and(|path| head.uri.path() == path)
    }

    async fn judge(&mut self, target: &Uri) -> Result<Judged, Early> {
        let asked = self.front.rules.judge(&self.shown(target));
        let Verdict::NeedsBody(most) = asked.verdict else {
            return Ok(asked);
        };
        self.go_on_if_open().await?;
        let most = most.saturating_add(1);
        match self.down.awaits_continue() {
            true => self.gather_unasked(most).await?,
            false => self.gather(most).await?,
        }
        let body = self.read_ahead();
        // A part of a body is none: what is longer than looked at is a write.
        let judged = match self.down.body_done() {
            true => self
                .front
                .rules
                .judge_body(&self.shown(target), asked, &body),
            false => Judged {
                verdict: Verdict::Write,
                ..asked
            },
        };
        Ok(judged)
    }

    fn shown<'r>(&'r self, target: &'r Uri) -> classify::Request<'r> {
        classify::Request {
            method: self.down.head().method.as_str(),
            host: &self.host,
            path: target.path(),
            query: target.query(),
            headers: &self.down.head().headers,
        }
    }

    fn is_websocket(&self, target: &Uri) -> bool {
        self.down.is_upgrade() && classify::is_websocket(&self.shown(target))
    }

    fn asks_for_events(&self) -> bool {
        let accept = self.down.head().headers.get(header::ACCEPT);
        let accept = accept.and_then(|value| value.to_str().ok());
        accept.is_some_and(|accept| accept.contains("text/event-stream"))
    }

    /// Scope "all": reads are answered like writes while the fence stands.
    fn reads_wait(&self) -> bool {
        let gate = &self.front.group.gate;
        let fenced = matches!(gate.look(Lane::Http).phase, Phase::Fenced(_));
        fenced && gate.plan().is_some_and(|plan| plan.all)
    }

    async fn read(&mut self, target: &Uri, manner: Manner, upgrade: bool) -> Result<bool, Gone> {
        // Before the aim: a move in between is then seen.
        let serial = self.front.group.targets.serial();
        let Some(aim) = self.front.aim() else {
            return self.refuse(Why::Unreachable).await;
        };
        self.front.figures.count(Fate::Read);
        self.be_patient();
        if self.down.awaits_continue() {
            self.down.go_on().await?;
        }
        let closing = match (upgrade, manner.websocket, manner.sse) {
            (true, Streams::Keep, _) | (false, _, Streams::Keep) => Closing::Never,
            (true, _, _) | (false, _, _) => Closing::AtRepoint(serial),
        };
        let elsewhere = self.front.elsewhere(aim.epoch);
        let (order, wires) = self.order(target, aim, closing, upgrade)?;
        let order = Order { elsewhere, ..order };
        self.front.tasks.spawn(exchange::read(order));
        let ends = (!upgrade).then_some(closing);
        self.relay(wires, None, ends).await
    }

    async fn write(&mut self, target: &Uri, manner: Manner, upgrade: bool) -> Result<bool, Gone> {
        if !upgrade && self.front.group.gate.look(Lane::Http).phase == Phase::Open {
            self.go_on_if_open().await?;
            if let Err(early) = self.gather_ahead().await {
                return self.give_up(early).await;
            }
        }
        let what = format!("{} {}", self.down.head().method, target.path());
        let entry =
            self.front
                .group
                .requests
                .enter(&self.id, what, self.peer.client, RequestState::Held);
        let permit = match self.pass_gate(manner, upgrade, &entry).await {
            Ok(permit) => permit,
            Err(barred) => {
                drop(entry);
                return match barred {
                    Barred::Refused(why) => self.refuse(why).await,
                    Barred::Early(early) => self.give_up(early).await,
                };
            }
        };
        let deadline = Instant::now() + manner.write_deadline;
        let debt = self.owe(permit, entry);
        self.be_patient();
        let Some(aim) = self.front.aim() else {
            drop(debt);
            return self.refuse(Why::Unreachable).await;
        };
        // The permit's own epoch: the target cannot have moved since.
        let aim = Aim {
            epoch: debt.epoch().unwrap_or(aim.epoch),
            ..aim
        };
        self.front.figures.count(Fate::Write);
        let (order, wires) = self.order(target, aim, Closing::AtFence, upgrade)?;
        let fenced_events = manner.sse == Streams::Fence && self.asks_for_events();
        let order = Order {
            events_end: fenced_events,
            ..order
        };
        let request = debt.request().share();
        self.front
            .tasks
            .spawn(exchange::write(order, debt, deadline));
        let ends = (!upgrade && fenced_events).then_some(Closing::AtFence);
        let relayed = self.relay(wires, Some(Arc::clone(&request)), ends).await;
        if relayed.is_err() {
            // However it is noticed that its client has left.
            request.set_state(RequestState::Orphaned);
        }
        relayed
    }

    /// Pauses in a gRPC stream are no fault of its client's.
    fn be_patient(&mut self) {
        if self.tongue.is_grpc() && self.down.is_http2() {
            self.down.be_patient();
        }
    }
}

/// The host that the request is for, as the client named it.
fn host(head: &http::request::Parts) -> String {
    let named = head.headers.get(header::HOST);
    let named = named.and_then(|host| host.to_str().ok());
    let named = named.or_else(|| head.uri.authority().map(uri::Authority::as_str));
    named.unwrap_or_default().to_owned()
}

/// Path and query of a target, whatever its form.
fn origin_form(target: &str) -> Option<Uri> {
    let whole: Uri = target.parse().ok()?;
    match whole.path_and_query() {
        Some(path) => Uri::builder().path_and_query(path.clone()).build().ok(),
        None => Some(Uri::from_static("/")),
    }
}
