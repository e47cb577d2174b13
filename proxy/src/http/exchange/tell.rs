//! A write's answer on its way to the client.
//!
//! The permit ends with the last byte that the server sends, and no client may put that off: while
//! nothing waits for it the answer is passed on as fast as the client takes it; behind a fence the rest
//! of a short one is kept here, and of a longer one its client is let go before the outcome is.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::Response;
use hyper::body::{Frame, Incoming};
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use super::{Event, Trouble};
use crate::http::body::DownBody;

/// What is kept of an answer, behind a fence, for a client that is slower than its server.
const KEPT: usize = 256 << 10;

/// How long the rest of an answer may take that nobody listens to.
pub(super) const REST: Duration = Duration::from_secs(1);

/// How long a stream of events may go on behind the fence that ends it.
const FAREWELL: Duration = Duration::from_secs(5);

/// What is to be sent to the client.
#[derive(Debug, Default)]
pub(in crate::http) struct Kept {
    events: VecDeque<Event>,
    bytes: usize,
}

impl Kept {
    pub(in crate::http) fn push(&mut self, event: Event) {
        self.bytes += event.bytes();
        self.events.push_back(event);
    }

    pub(in crate::http) fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.bytes -= event.bytes();
        Some(event)
    }

    pub(in crate::http) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(in crate::http) fn is_full(&self) -> bool {
        self.bytes >= KEPT
    }

    pub(in crate::http) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Sends it, as fast as the client takes it.
    pub(super) async fn flush(mut self, to: &mpsc::Sender<Event>) {
        while let Some(event) = self.pop() {
            if to.send(event).await.is_err() {
                return;
            }
        }
    }
}

/// Between an exchange and whoever wants it to end.
#[derive(Default)]
pub(super) struct Hurry {
    answered: AtomicBool,
    endless: AtomicBool,
    over: AtomicBool,
    told: Notify,
}

impl Hurry {
    /// Whether the answer has begun.
    pub(super) fn is_answered(&self) -> bool {
        self.answered.load(Ordering::SeqCst)
    }

    /// Whether it is a tunnel, or a stream of events to a client that is there: these have no
    /// deadline.
    pub(super) fn set_endless(&self, endless: bool) {
        if self.endless.swap(endless, Ordering::SeqCst) != endless {
            self.told.notify_waiters();
        }
    }

    /// Waits while that is so.
    pub(super) async fn has_an_end(&self) {
        self.until(|| !self.endless.load(Ordering::SeqCst)).await;
    }

    /// The client is not waited for any more.
    pub(super) fn let_client_go(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.told.notify_waiters();
    }

    /// Whether that was said.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    async fn over(&self) {
        self.until(|| self.is_over()).await;
    }

    async fn until(&self, is_so: impl Fn() -> bool) {
        loop {
            let told = self.told.notified();
            if is_so() {
                return;
            }
            told.await;
        }
    }
}

/// Reads the answer to its end, and gives back what the client has not taken of it.
pub(super) async fn hear_out(
    answer: Response<Incoming>,
    to: &mpsc::Sender<Event>,
    hurry: &Hurry,
    ends_at_fence: bool,
    fenced: impl Future<Output = ()>,
) -> Result<Kept, Trouble> {
    let (head, body) = answer.into_parts();
    let mut body = DownBody::new(head.version, body);
    hurry.answered.store(true, Ordering::SeqCst);
    let is_events = ends_at_fence && super::is_events(&head.headers);
    let mut kept = Kept::default();
    kept.push(Event::Head(Box::new(head), body.is_over()));
    let (mut listens, mut is_fenced) = (true, false);
    let farewell = async {
        fenced.await;
    };
    tokio::pin!(farewell);
    let cut_off = sleep(Duration::MAX);
    tokio::pin!(cut_off);
    loop {
        // Nothing tells a server of events that nobody takes them any more; behind the fence they
        // have their own end.
        hurry.set_endless(is_events && (listens || is_fenced));
        let wants_more = kept.is_empty() || (is_fenced && !kept.is_full());
        // Every arm may be dropped: nothing is lost of a frame or a place that was not taken, and the
        // others only wait. In this order, so that nobody enrols at the gate for a quick client.
        tokio::select! {
            biased;
            place = to.reserve(), if !kept.is_empty() => match (place, kept.pop()) {
                (Ok(place), Some(event)) => place.send(event),
                (Ok(_), None) => {}
                (Err(_), _) => {
                    listens = false;
                    kept.clear();
                }
            },
            () = to.closed(), if is_events && listens => {
                listens = false;
                kept.clear();
            }
            frame = body.next(), if wants_more => match frame {
                None => return Ok(kept),
                Some(Err(error)) => return Err(Trouble::Lost(crate::error::chain(&error))),
                Some(Ok(frame)) if listens => kept.push_frame(frame),
                Some(Ok(_)) => {}
            },
            () = &mut cut_off, if is_fenced && is_events => {
                return Err(Trouble::Lost("its events were ended by the fence".to_owned()));
            }
            () = hurry.over(), if listens => {
                listens = false;
                kept.clear();
            }
            () = &mut farewell, if !is_fenced && (is_events || !kept.is_empty()) => {
                is_fenced = true;
                cut_off.as_mut().reset(tokio::time::Instant::now() + FAREWELL);
            }
        }
    }
}

impl Kept {
    fn push_frame(&mut self, frame: Frame<bytes::Bytes>) {
        match frame.into_data() {
            Ok(data) => self.push(Event::Data(data)),
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    self.push(Event::Trailers(trailers));
                }
            }
        }
    }
}
