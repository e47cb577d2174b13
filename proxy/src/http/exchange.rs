//! One exchange with the server behind, in a task of its own.
//!
//! A write's task owns the permit and outlives the client: it goes on reading when nobody listens
//! any more, and the permit ends with the last byte of the answer. It is bounded by the write's
//! deadline and by an operator's word, and either leaves an unknown outcome. A read's task ends with
//! its client.
//!
//! hyper's client and not pingora's proxy: pingora drops the upstream with the client, its way
//! around that goes through a second session in memory, and it sends PUT and DELETE again when a
//! reused connection breaks. Here a write is sent once. It may go to another connection only if it
//! came back unsent, which hyper tells by giving the request back.

mod ask;
mod tell;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, response};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::body::{DownBody, Piece, UpBody};
use super::debt::Debt;
use super::pool::{Aim, Lease, Need, Pool};
use super::tunnel::{self, Closing};
use crate::gate::Lane;
use crate::group::Group;
use crate::requests;

use tell::Hurry;
pub(super) use tell::Kept;

/// Events on their way to the client. A piece is what one read of the server gave.
pub(super) const EVENTS: usize = 8;

/// To the client.
#[derive(Debug)]
pub(super) enum Event {
    /// Something before the answer.
    Hint(StatusCode, HeaderMap),
    /// The head; the body is empty if told so.
    Head(Box<response::Parts>, bool),
    Data(Bytes),
    Trailers(HeaderMap),
    /// The answer is complete.
    End,
    Failed(Failure),
}

impl Event {
    /// Bytes of a body in it.
    const fn bytes(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            _ => 0,
        }
    }
}

/// Why there is no answer, or no whole one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing was sent.
    Unsent,
    /// The write may have happened.
    Unknown,
    /// The answer to a read broke off.
    Broken,
}

/// What is to be done.
pub(super) struct Order {
    pub(super) group: Arc<Group>,
    pub(super) pool: Arc<Pool>,
    pub(super) aim: Aim,
    /// For a read, where the first cannot be reached.
    pub(super) elsewhere: Option<Aim>,
    /// An answer that is a stream of events ends with the fence.
    pub(super) events_end: bool,
    pub(super) request: Request<UpBody>,
    pub(super) need: Need,
    /// Between two pieces of an answer.
    pub(super) read_timeout: Duration,
    /// The connection may be upgraded, and is closed as said.
    pub(super) upgrade: Option<(Closing, mpsc::Receiver<Piece>)>,
    pub(super) events: mpsc::Sender<Event>,
}

/// What went wrong.
enum Trouble {
    Unsent(String),
    Lost(String),
    /// A read's client left.
    Left,
}

/// Carries a read.
pub(super) async fn read(order: Order) {
    let (events, group, pool) = (
        order.events.clone(),
        order.group.clone(),
        order.pool.clone(),
    );
    let hurry = Hurry::default();
    let carried = tokio::select! {
        carried = carry(order, None, &hurry) => carried,
        // Safe to drop: nothing depends on how a read ends.
        () = events.closed() => Err(Trouble::Left),
    };
    let event = match carried {
        Ok((lease, kept)) => {
            kept.flush(&events).await;
            let _ = events.send(Event::End).await;
            return put_back(&pool, lease, &group).await;
        }
        Err(Trouble::Left) => return,
        Err(Trouble::Unsent(why)) => {
            tracing::debug!(group = %group.name, why, "a read was sent nowhere");
            Event::Failed(Failure::Unsent)
        }
        Err(Trouble::Lost(why)) => {
            tracing::debug!(group = %group.name, why, "a read got no whole answer");
            Event::Failed(Failure::Broken)
        }
    };
    let _ = events.send(event).await;
}

/// Carries a write.
pub(super) async fn write(order: Order, mut debt: Debt, deadline: Instant) {
    let (events, group, pool) = (
        order.events.clone(),
        order.group.clone(),
        order.pool.clone(),
    );
    let request = debt.request().share();
    let hurry = Hurry::default();
    let carried = {
        let carry = carry(order, Some(&mut debt), &hurry);
        tokio::pin!(carry);
        tokio::select! {
            carried = &mut carry => carried,
            why = called_off(&request, deadline, &hurry) => {
                hurry.let_client_go();
                // The client may be all that was waited for.
                let rest = match hurry.is_answered() {
                    true => timeout(tell::REST, carry).await.ok(),
                    // Dropped half way, the exchange is cut off, and what was sent is unknown.
                    false => None,
                };
                rest.unwrap_or_else(|| Err(Trouble::Lost(why.to_owned())))
            }
        }
    };
    let carried = match carried {
        // It never got so far as to be sent.
        Err(Trouble::Lost(why)) if !debt.is_sent() => Err(Trouble::Unsent(why)),
        carried => carried,
    };
    let event = match carried {
        Ok((lease, kept)) => {
            // The outcome is known whether or not the client can be told.
            debt.settle();
            if kept.is_empty() && !hurry.is_over() {
                let _ = events.send(Event::End).await;
                return put_back(&pool, lease, &group).await;
            }
            put_back(&pool, lease, &group).await;
            if hurry.is_over() {
                return;
            }
            kept.flush(&events).await;
            Event::End
        }
        Err(Trouble::Unsent(why)) => {
            tracing::debug!(group = %group.name, why, "a write was sent nowhere");
            debt.settle();
            Event::Failed(Failure::Unsent)
        }
        Err(Trouble::Lost(why)) => {
            debt.lose(&why);
            Event::Failed(Failure::Unknown)
        }
        Err(Trouble::Left) => {
            debt.lose("its task was left");
            return;
        }
    };
    let _ = events.send(event).await;
}

/// Waits until a write is to be waited for no longer, and says why.
async fn called_off(request: &requests::Request, deadline: Instant, hurry: &Hurry) -> &'static str {
    let late = async {
        sleep_until(deadline).await;
        // What has no end of its own goes on for as long as somebody is there for it.
        hurry.has_an_end().await;
    };
    tokio::select! {
        () = request.given_up() => "it was given up",
        () = late => "its deadline is over",
    }
}

async fn put_back(pool: &Pool, lease: Option<Lease>, group: &Group) {
    if let Some(lease) = lease {
        let in_force = group.gate.look(Lane::Http).epoch;
        pool.put_back(lease, in_force).await;
    }
}

/// Returns the connection, unless it was used up, and what the client has not taken yet.
async fn carry(
    order: Order,
    mut debt: Option<&mut Debt>,
    hurry: &Hurry,
) -> Result<(Option<Lease>, Kept), Trouble> {
    let Order {
        group,
        pool,
        aim,
        elsewhere,
        events_end,
        mut request,
        need,
        read_timeout,
        upgrade,
        events,
    } = order;
    pass_hints(&mut request, &events);
    let is_write = debt.is_some();
    let answered = ask::answer(
        &pool,
        (aim, elsewhere),
        request,
        need,
        read_timeout,
        debt.as_deref_mut(),
    );
    let (lease, mut answer) = answered.await?;
    if debt.as_ref().is_some_and(|debt| !debt.is_valid()) {
        return Err(Trouble::Lost(
            "its permit ran out before its answer".to_owned(),
        ));
    }
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some((closing, from_client)) = upgrade else {
            return Err(Trouble::Lost(
                "the server switched protocols unasked".to_owned(),
            ));
        };
        hurry.set_endless(true);
        let upgraded = hyper::upgrade::on(&mut answer);
        let head = Box::new(answer.into_parts().0);
        let _ = events.send(Event::Head(head, false)).await;
        let upgraded = upgraded
            .await
            .map_err(|error| Trouble::Lost(crate::error::chain(&error)))?;
        return match tunnel::run(&group, upgraded, closing, from_client, &events).await {
            Ok(kept) => Ok((None, kept)),
            Err(why) => Err(Trouble::Lost(why)),
        };
    }
    drop(upgrade);
    let kept = match is_write {
        true => {
            let fenced = Closing::AtFence.due(&group);
            tell::hear_out(answer, &events, hurry, events_end, fenced).await?
        }
        false => {
            relay(answer, &events, read_timeout).await?;
            Kept::default()
        }
    };
    Ok((Some(lease), kept))
}

/// Passes on what an HTTP/1 server says before its answer. hyper tells nothing of it over HTTP/2.
/// Where the client is slow it is left out: it promises nothing.
fn pass_hints(request: &mut Request<UpBody>, events: &mpsc::Sender<Event>) {
    // Weak, so that the end of the exchange is still the end of its events.
    let events = events.downgrade();
    hyper::ext::on_informational(request, move |hint| {
        // "Continue" is ours to say, and an upgrade is no hint.
        let ours = [StatusCode::CONTINUE, StatusCode::SWITCHING_PROTOCOLS];
        if let (false, Some(events)) = (ours.contains(&hint.status()), events.upgrade()) {
            let _ = events.try_send(Event::Hint(hint.status(), hint.headers().clone()));
        }
    });
}

/// Passes the answer to a read on.
async fn relay(
    answer: Response<Incoming>,
    events: &mpsc::Sender<Event>,
    read_timeout: Duration,
) -> Result<(), Trouble> {
    let (head, body) = answer.into_parts();
    let mut body = DownBody::new(head.version, body);
    let tell = async |event| events.send(event).await.map_err(|_| Trouble::Left);
    tell(Event::Head(Box::new(head), body.is_over())).await?;
    loop {
        let frame = timeout(read_timeout, body.next())
            .await
            .map_err(|_| Trouble::Lost("no more of the answer in time".to_owned()))?;
        let frame = match frame {
            None => return Ok(()),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Err(Trouble::Lost(crate::error::chain(&error))),
        };
        match frame.into_data() {
            Ok(data) => tell(Event::Data(data)).await?,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    tell(Event::Trailers(trailers)).await?;
                }
            }
        }
    }
}

/// Whether an answer is a stream of events.
pub(super) fn is_events(headers: &HeaderMap) -> bool {
    let kind = headers.get(http::header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}
