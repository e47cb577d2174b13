//! Moves bytes between a client and an exchange.

use std::sync::Arc;

use http::header::HeaderMap;
use http::{StatusCode, response};
use tokio::sync::mpsc;

use super::Serving;
use super::order::Wires;
use crate::http::body::Piece;
use crate::http::exchange::{self, Event};
use crate::http::headers;
use crate::http::server::{Gone, Input};
use crate::http::tunnel::Closing;
use crate::requests::{Request as TheRequest, RequestState};

impl Serving<'_> {
    /// Moves bytes between the client and the exchange until the answer is complete.
    pub(super) async fn relay(
        &mut self,
        wires: Wires,
        write: Option<Arc<TheRequest>>,
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
                    Some(Event::Hint(status, headers)) => self.hint(status, headers).await?,
                    Some(Event::Head(head, empty)) => {
                        upgraded = head.status == StatusCode::SWITCHING_PROTOCOLS;
                        is_events = exchange::is_events(&head.headers);
                        self.pass_head(*head, empty).await?;
                    }
                    Some(Event::Data(data)) => self.down.send(data).await?,
                    Some(Event::Trailers(mut trailers)) => {
                        headers::trailers(&mut trailers);
                        self.down.trailers(trailers)?;
                    }
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
                            let _: mpsc::Sender<Piece> = free.send(Piece::End(self.take_trailers()));
                        }
                        to_server = None;
                    }
                    Input::Left if is_events && ends.is_some() => {
                        self.leave(write.as_deref(), true)?;
                        return Err(Gone);
                    }
                    Input::Left => self.leave(write.as_deref(), upgraded)?,
                    Input::Broken => {
                        // What it had sent so far goes no further; the exchange sees the cut.
                        self.leave(write.as_deref(), true)?;
                        return Err(Gone);
                    }
                    Input::Slow => {
                        // The same, but the client is there to be told what comes of it.
                        self.is_late = true;
                        (slot, to_server) = (None, None);
                    }
                },
                // Asked only then, so that an ordinary read enrols nowhere.
                () = &mut due, if is_events => return Ok(true),
            }
        }
    }

    /// A client that closed its side may still listen, as some tools do; so a short answer is tried.
    /// A stream without an end is not kept up for it.
    fn leave(&self, write: Option<&TheRequest>, cut: bool) -> Result<(), Gone> {
        if !self.down.is_answered() {
            self.peer.tally.leave();
        }
        if let Some(request) = write {
            request.set_state(RequestState::Orphaned);
            return Ok(());
        }
        match cut || self.down.is_answered() || self.down.is_http2() {
            true => Err(Gone),
            false => Ok(()),
        }
    }

    async fn hint(&mut self, status: StatusCode, headers: HeaderMap) -> Result<(), Gone> {
        let mut head = http::Response::new(()).into_parts().0;
        (head.status, head.headers) = (status, headers);
        headers::hint(&mut head.headers);
        self.down.hint(head).await
    }

    /// What stood behind the request's body, as far as it may go on.
    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        let mut trailers = self.down.take_trailers()?;
        headers::trailers(&mut trailers);
        Some(trailers)
    }

    async fn pass_head(&mut self, head: response::Parts, empty: bool) -> Result<(), Gone> {
        let mut head = head;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            headers::upgraded(&mut head.headers);
        } else {
            headers::to_downstream(&mut head.headers);
        }
        let empty = empty && head.status != StatusCode::SWITCHING_PROTOCOLS;
        self.down.answer(head, empty).await
    }
}

async fn reserve(sender: Option<mpsc::Sender<Piece>>) -> Option<mpsc::OwnedPermit<Piece>> {
    match sender {
        Some(sender) => sender.reserve_owned().await.ok(),
        None => std::future::pending().await,
    }
}
