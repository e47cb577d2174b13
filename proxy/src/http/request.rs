//! One request from its head to the end of its answer.
//!
//! Judged, admitted if it may write, sent in a task of its own, and its answer passed on. A body of
//! up to 64 KiB is read before the request is admitted, so that a slow client holds up no drain and
//! one that leaves has sent nothing; what is longer is streamed.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Request, StatusCode, Uri, Version, uri};
use tokio::sync::mpsc;
use tokio::time::Instant;
use writefence_config::{Cors, Streams};

use super::Front;
use super::body::{PIECES, Piece, UpBody};
use super::classify::{self, Judged, Manner, Verdict};
use super::debt::Debt;
use super::exchange::{self, EVENTS, Event, Failure, Order};
use super::figures::Fate;
use super::headers::{self, From};
use super::hold::{self, Ask, NotAdmitted};
use super::pool::{Aim, Need};
use super::refuse::{self, Reply, Tongue, Why};
use super::server::{Downstream, Gone, Input};
use super::socket::Socket;
use super::tunnel::Closing;
use crate::gate::{Lane, Permit, Phase};
use crate::requests::{RequestGuard, RequestState};

/// A body up to this size is read before its request is admitted.
const AHEAD: usize = 64 << 10;

/// What is read of a refused request's body so that the connection can go on, and how long that may
/// take. A client that sends more reads the refusal and then the end of its connection.
const DRAIN: usize = 1 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// How long the end of an HTTP/2 request is waited for before it is refused.
const LAST_FRAME: Duration = Duration::from_millis(100);

/// The longest Idempotency-Key that is noted.
const KEY_BYTES: usize = 256;

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) client: SocketAddr,
    pub(super) tls: bool,
    /// Streams of its connection that are held.
    pub(super) held: Arc<AtomicUsize>,
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
    };
    match serving.run().await {
        Ok(true) => serving.down.finish().await,
        Ok(false) | Err(Gone) => {
            serving.down.abort().await;
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
        let judged = self.judge(&target).await?;
        let manner = self.front.rules.manner(&judged);
        let upgrade = self.is_websocket(&target);
        if self.tongue.is_grpc() {
            self.down.be_patient();
        }
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

    async fn judge(&mut self, target: &Uri) -> Result<Judged, Gone> {
        let asked = self.front.rules.judge(&self.shown(target));
        let Verdict::NeedsBody(most) = asked.verdict else {
            return Ok(asked);
        };
        self.go_on_if_open().await?;
        self.gather(most.saturating_add(1)).await?;
        let body: Vec<u8> = self.ahead.iter().flatten().copied().collect();
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

    /// Reads of the body until so many bytes are there or all has come.
    async fn gather(&mut self, most: usize) -> Result<(), Gone> {
        while !self.down.body_done() && self.ahead_bytes < most {
            match self.down.input(true).await {
                Input::Data(data) => {
                    self.ahead_bytes += data.len();
                    self.ahead.push_back(data);
                }
                Input::End | Input::Left => return Ok(()),
                Input::Broken => {
                    self.front.figures.count(Fate::Abandoned);
                    return Err(Gone);
                }
            }
        }
        Ok(())
    }

    /// Tells a client that waits for it to send its body, unless the fence has something to say
    /// first. Then it is told by what it is answered, or when its turn comes.
    async fn go_on_if_open(&mut self) -> Result<(), Gone> {
        let open = self.front.group.gate.look(Lane::Http).phase == Phase::Open;
        if open && self.down.awaits_continue() {
            self.down.go_on().await?;
        }
        Ok(())
    }

    async fn read(&mut self, target: &Uri, manner: Manner, upgrade: bool) -> Result<bool, Gone> {
        let Some(aim) = self.front.aim() else {
            return self.refuse(Why::Unreachable).await;
        };
        self.front.figures.count(Fate::Read);
        if self.down.awaits_continue() {
            self.down.go_on().await?;
        }
        let closing = match (upgrade, manner.websocket, manner.sse) {
            (true, Streams::Keep, _) | (false, _, Streams::Keep) => Closing::Never,
            (true, _, _) | (false, _, _) => Closing::AtRepoint(self.front.group.targets.serial()),
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
            self.gather(AHEAD).await?;
        }
        let what = format!("{} {}", self.down.head().method, target.path());
        let entry =
            self.front
                .group
                .requests
                .enter(&self.id, what, self.peer.client, RequestState::Held);
        let permit = match self.admit(manner).await {
            Ok(permit) => permit,
            Err(NotAdmitted::Refused(why)) => {
                drop(entry);
                return self.refuse(why).await;
            }
            Err(NotAdmitted::Left) => {
                self.front.figures.count(Fate::Abandoned);
                return Err(Gone);
            }
        };
        let deadline = Instant::now() + manner.write_deadline;
        let debt = self.owe(permit, entry);
        // What was held has read nothing yet. A client that leaves here has sent nothing on.
        if self.down.awaits_continue() {
            self.down.go_on().await?;
        }
        if !upgrade {
            self.gather(AHEAD).await?;
        }
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
        let request = debt.request().share();
        let deadline = (!upgrade).then_some(deadline);
        self.front
            .tasks
            .spawn(exchange::write(order, debt, deadline));
        self.relay(wires, Some(request), None).await
    }

    async fn admit(&mut self, manner: Manner) -> Result<Permit, NotAdmitted> {
        let headers = &self.down.head().headers;
        let ask = Ask {
            bytes: self.ahead_bytes + weight(headers),
            answer: manner.answer,
            patience: hold::patience(headers),
        };
        hold::admit(self.front, &mut self.down, self.peer, ask).await
    }

    fn owe(&self, permit: Permit, entry: RequestGuard) -> Debt {
        let key = self.down.head().headers.get("idempotency-key");
        let key = key.and_then(|key| key.to_str().ok());
        let key = key.filter(|key| key.len() <= KEY_BYTES).map(str::to_owned);
        Debt::new(Arc::clone(&self.front.group), permit, entry, key)
    }

    /// The request as it goes out.
    fn order(
        &mut self,
        target: &Uri,
        aim: Aim,
        closing: Closing,
        upgrade: bool,
    ) -> Result<(Order, Wires), Gone> {
        let (events, from_server) = mpsc::channel(EVENTS);
        let (to_server, mut rest) = match self.down.body_done() && !upgrade {
            true => (None, None),
            false => {
                let (to, from) = mpsc::channel(PIECES);
                (Some(to), Some(from))
            }
        };
        let upgrade = match upgrade {
            true => rest.take().map(|rest| (closing, rest)),
            false => None,
        };
        let grpc = self.tongue.is_grpc();
        let mut request = Request::new(UpBody::new(std::mem::take(&mut self.ahead), rest));
        let head = self.down.head();
        head.method.clone_into(request.method_mut());
        head.headers.clone_into(request.headers_mut());
        let scheme = aim.origin.scheme();
        *request.uri_mut() = outgoing(target, scheme, &self.host).ok_or(Gone)?;
        *request.version_mut() = Version::HTTP_11;
        let epoch = format!("{}:{}", self.front.group.name, aim.epoch);
        let from = From {
            peer: self.peer.client,
            trusted: self.is_trusted(),
            tls: self.peer.tls,
            host: &self.host,
        };
        headers::to_upstream(request.headers_mut(), &epoch, &self.id, from);
        if upgrade.is_some() {
            headers::upgrade(request.headers_mut());
        }
        let need = match (&upgrade, grpc) {
            (Some(_), _) => Need::Upgrade,
            (None, true) => Need::Grpc,
            (None, false) => Need::Any,
        };
        let order = Order {
            group: Arc::clone(&self.front.group),
            pool: Arc::clone(&self.front.pool),
            aim,
            elsewhere: None,
            request,
            need,
            read_timeout: self.front.listener.read_timeout,
            upgrade,
            events,
        };
        Ok((
            order,
            Wires {
                to_server,
                from_server,
            },
        ))
    }

    fn is_trusted(&self) -> bool {
        let proxies = &self.front.listener.trusted_proxies;
        let peer = self.peer.client.ip();
        proxies.iter().any(|network| network.contains(peer))
    }

    /// Moves bytes between the client and the exchange until the answer is complete.
    async fn relay(
        &mut self,
        wires: Wires,
        write: Option<Arc<crate::requests::Request>>,
        ends: Option<Closing>,
    ) -> Result<bool, Gone> {
        let Wires {
            mut to_server,
            mut from_server,
        } = wires;
        let group = Arc::clone(&self.front.group);
        let mut is_events = false;
        let due = async {
            match ends {
                Some(ends) => ends.due(&group).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(due);
        let mut upgraded = false;
        let mut slot = None;
        loop {
            let wants_slot = to_server.is_some() && slot.is_none();
            let has_slot = slot.is_some();
            let sender = to_server.clone();
            // Every arm may be dropped: events and pieces stay in their channels, a read of the
            // client's side loses nothing, and a slot not taken is free again.
            tokio::select! {
                event = from_server.recv() => match event {
                    Some(Event::Head(head, empty)) => {
                        upgraded = head.status == StatusCode::SWITCHING_PROTOCOLS;
                        is_events = answers_events(&head.headers);
                        self.pass_head(*head, empty).await?;
                    }
                    Some(Event::Data(data)) => self.down.send(data).await?,
                    Some(Event::Trailers(trailers)) => self.down.trailers(trailers).await?,
                    Some(Event::End) => return Ok(true),
                    Some(Event::Failed(failure)) => return self.failed(failure, upgraded).await,
                    None => return Err(Gone),
                },
                free = reserve(sender), if wants_slot => match free {
                    Some(free) => slot = Some(free),
                    // The server wants no more of it.
                    None => to_server = None,
                },
                input = self.down.input(has_slot), if has_slot || to_server.is_none() => match input {
                    Input::Data(data) => {
                        if let Some(free) = slot.take() {
                            let _: mpsc::Sender<Piece> = free.send(Piece::Data(data));
                        }
                    }
                    Input::End => {
                        if let Some(free) = slot.take() {
                            let _: mpsc::Sender<Piece> = free.send(Piece::End);
                        }
                        to_server = None;
                    }
                    Input::Left => self.left(write.as_deref(), upgraded)?,
                    Input::Broken => {
                        // What it had sent so far goes no further; the exchange sees the cut.
                        self.left(write.as_deref(), true)?;
                        return Err(Gone);
                    }
                },
                // Asked only then, so that an ordinary read enrols nowhere.
                () = &mut due, if is_events => return Ok(true),
            }
        }
    }

    /// A client that closed its side may still listen, as some tools do; so a short answer is tried.
    /// A stream without an end is not kept up for it.
    fn left(&self, write: Option<&crate::requests::Request>, cut: bool) -> Result<(), Gone> {
        if let Some(request) = write {
            request.set_state(RequestState::Orphaned);
            return Ok(());
        }
        match cut || self.down.is_answered() || self.down.is_http2() {
            true => Err(Gone),
            false => Ok(()),
        }
    }

    async fn pass_head(&mut self, head: http::response::Parts, empty: bool) -> Result<(), Gone> {
        let mut head = head;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            headers::upgraded(&mut head.headers);
        } else {
            headers::to_downstream(&mut head.headers);
        }
        let empty = empty && head.status != StatusCode::SWITCHING_PROTOCOLS;
        self.down.answer(head, empty).await
    }

    async fn failed(&mut self, failure: Failure, upgraded: bool) -> Result<bool, Gone> {
        let unknown = failure == Failure::Unknown;
        if unknown {
            self.front.figures.count(Fate::Unknown);
        }
        if self.down.is_answered() || upgraded {
            return Ok(false);
        }
        match failure {
            Failure::Unsent => self.refuse(Why::Unreachable).await,
            Failure::Broken => self.reply(refuse::failed_read(&self.tongue)).await,
            Failure::Unknown => {
                let epoch = self.front.group.gate.look(Lane::Http).epoch;
                self.reply(refuse::unknown(&self.id, epoch, &self.tongue))
                    .await
            }
        }
    }

    async fn refuse(&mut self, why: Why) -> Result<bool, Gone> {
        self.front.figures.refuse(why);
        let epoch = self.front.group.gate.look(Lane::Http).epoch;
        let reply = refuse::not_executed(why, epoch, self.front.retry_after(), &self.tongue);
        self.reply(reply).await
    }

    async fn bad(&mut self, status: StatusCode, why: &str) -> Result<bool, Gone> {
        self.front.figures.count(Fate::Bad);
        self.down.close_after();
        self.reply(refuse::bad(status, why)).await
    }

    /// Answers here. What the client still sends is read first, up to a bound, unless it waits to
    /// be told to send it: a client that is still writing may never look at an answer.
    async fn reply(&mut self, reply: Reply) -> Result<bool, Gone> {
        let Reply { head, body } = reply;
        let is_head = self.down.head().method == http::Method::HEAD;
        match self.down.is_http2() {
            false if !self.down.awaits_continue() => {
                self.down.drain(DRAIN, DRAIN_TIME).await;
            }
            // Only its stream ends, and most clients bear that at any time. Some lose the answer when
            // it comes before their last frame, so that one is waited for, but nothing larger.
            true if !self.tongue.is_grpc() => {
                self.down.drain(DRAIN, LAST_FRAME).await;
            }
            true | false => {}
        }
        if !self.down.is_http2() && !self.down.body_done() {
            self.down.close_after();
        }
        let empty = body.is_empty() || is_head;
        self.down.answer(head, empty).await?;
        if !empty {
            self.down.send_last(body).await?;
        }
        Ok(true)
    }
}

/// The two ways between a client's side and an exchange.
struct Wires {
    to_server: Option<mpsc::Sender<Piece>>,
    from_server: mpsc::Receiver<Event>,
}

async fn reserve(sender: Option<mpsc::Sender<Piece>>) -> Option<mpsc::OwnedPermit<Piece>> {
    match sender {
        Some(sender) => sender.reserve_owned().await.ok(),
        None => std::future::pending().await,
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

/// With the authority that the client named. HTTP/1 connections send the path alone.
fn outgoing(target: &Uri, scheme: &str, host: &str) -> Option<Uri> {
    let path = target.path_and_query()?.clone();
    let whole = Uri::builder().scheme(scheme).authority(host);
    let whole = whole.path_and_query(path.clone()).build();
    whole
        .ok()
        .or_else(|| Uri::builder().path_and_query(path).build().ok())
}

fn answers_events(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// Bytes that headers take here.
fn weight(headers: &HeaderMap) -> usize {
    let each = headers.iter();
    each.map(|(name, value)| name.as_str().len() + value.len() + 64)
        .sum()
}
