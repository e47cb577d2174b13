//! Bytes both ways, until the server has ended the connection.
//!
//! The client's end is not the connection's: what was sent may still be running. So its direction
//! is shut, which servers take as the end after everything before it, and the permit lives on until
//! the server closes.

use std::io;
use std::time::Duration;

use rustix::net::{self, shutdown};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use writefence_config::OldConnections;

use super::Front;
use super::outcome::{Ending, Outcome, record};
use crate::gate::{Lane, Permit, Phase};
use crate::requests::{RequestGuard, RequestState};
use crate::shutdown::Shutdown;

/// Bytes on their way in one direction. Larger ones save little: a loopback read fills it seldom.
const BUFFER: usize = 8 * 1024;

/// A server that goes on for this long without a byte after its client has left is given up. What
/// it does is unknown then; a connection kept for ever would be a leak.
const SILENCE: Duration = Duration::from_secs(60);

/// How long a client gets behind a fence, or a stop, to take a part of what the server has answered.
/// One that takes nothing is let go, so that the server's own end can be seen.
const SLOW: Duration = Duration::from_secs(3);

/// How long connections get to end when the daemon stops, within what the daemon itself has.
const REST: Duration = Duration::from_secs(5);

/// Bytes of one direction.
struct Way {
    bytes: Box<[u8; BUFFER]>,
    from: usize,
    to: usize,
    /// All that has gone this way.
    moved: u64,
}

impl Way {
    fn new() -> Self {
        Self {
            bytes: Box::new([0; BUFFER]),
            from: 0,
            to: 0,
            moved: 0,
        }
    }

    const fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// Takes what is there, into an empty buffer.
    fn fill(&mut self, from: &TcpStream) -> Moved {
        match from.try_read(&mut self.bytes[..]) {
            Ok(0) => Moved::End,
            Ok(n) => {
                (self.from, self.to) = (0, n);
                Moved::Some
            }
            Err(error) => Moved::of(&error),
        }
    }

    /// Sends what it takes.
    fn empty(&mut self, to: &TcpStream) -> Moved {
        match to.try_write(&self.bytes[self.from..self.to]) {
            Ok(0) => Moved::End,
            Ok(n) => {
                self.from += n;
                self.moved += n as u64;
                Moved::Some
            }
            Err(error) => Moved::of(&error),
        }
    }

    const fn clear(&mut self) {
        self.from = self.to;
    }
}

/// One connection's passage.
pub(super) struct Relay<'f> {
    front: &'f Front,
    permit: Permit,
    entry: &'f RequestGuard,
    region: String,
    up: Way,
    down: Way,
    /// More is taken from the client.
    taking: bool,
    /// Our direction towards the server is shut.
    shut: bool,
    /// The client takes answers.
    client_there: bool,
    /// Something was sent and nothing came back since.
    unanswered: bool,
    /// When the connection is given up.
    until: Option<Instant>,
    /// The connection is to end, so its client is not waited for.
    ending: bool,
    stopping: bool,
    /// When the client last took something, or had nothing to take.
    took: Instant,
}

/// What happened.
enum Event {
    FromClient,
    ToServer,
    FromServer,
    ToClient,
    Gate,
    Stop,
    GivenUp,
    Late,
    Deaf,
}

/// What came of moving bytes.
enum Moved {
    /// Some, or none yet.
    Some,
    End,
    Broken,
}

impl Moved {
    /// Readiness is a rumour: there may be nothing after all.
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Self::Some,
            _ => Self::Broken,
        }
    }
}

impl<'f> Relay<'f> {
    pub(super) fn new(
        front: &'f Front,
        permit: Permit,
        entry: &'f RequestGuard,
        region: String,
    ) -> Self {
        Self {
            front,
            permit,
            entry,
            region,
            up: Way::new(),
            down: Way::new(),
            taking: true,
            shut: false,
            client_there: true,
            unanswered: false,
            until: None,
            ending: false,
            stopping: false,
            took: Instant::now(),
        }
    }

    /// Relays to the end, and lets the permit go by what is known then.
    pub(super) async fn run(mut self, client: TcpStream, server: TcpStream, stop: Shutdown) {
        let ending = self.relay(client, server, stop).await;
        let outcome = Outcome::of(ending, self.unanswered, self.shut);
        self.front.group.tcp.moved(self.up.moved, self.down.moved);
        record(self.front, self.permit, self.entry, &self.region, outcome);
    }

    async fn relay(&mut self, client: TcpStream, server: TcpStream, mut stop: Shutdown) -> Ending {
        // Before the look: a fence in between then either shows or wakes.
        let mut watch = self.front.group.gate.watch();
        self.look();
        loop {
            if !self.taking && self.up.is_empty() && !self.shut {
                self.shut = true;
                if shutdown(&server, net::Shutdown::Write).is_err() {
                    return Ending::Broken;
                }
            }
            let until = self.until.unwrap_or_else(far);
            // Every arm may be dropped: each only waits, the bytes are moved below.
            let event = tokio::select! {
                _ = client.readable(), if self.taking && self.up.is_empty() => Event::FromClient,
                _ = server.writable(), if !self.up.is_empty() => Event::ToServer,
                _ = server.readable(), if self.down.is_empty() => Event::FromServer,
                _ = client.writable(), if !self.down.is_empty() => Event::ToClient,
                () = watch.changed() => Event::Gate,
                () = stop.stopping(), if !self.stopping => Event::Stop,
                () = self.entry.given_up() => Event::GivenUp,
                () = sleep_until(until), if self.until.is_some() => Event::Late,
                () = sleep_until(self.took + SLOW), if self.ending && !self.down.is_empty() => {
                    Event::Deaf
                }
            };
            match event {
                Event::FromClient => match self.up.fill(&client) {
                    Moved::Some => {}
                    Moved::End => self.no_more(),
                    Moved::Broken => self.client_left(),
                },
                Event::ToServer => match self.up.empty(&server) {
                    // Set also when nothing went yet: what is to be sent is unanswered too.
                    Moved::Some => self.unanswered = true,
                    Moved::End | Moved::Broken => return Ending::Broken,
                },
                Event::FromServer => match self.down.fill(&server) {
                    Moved::Some if self.down.is_empty() => {}
                    Moved::Some => self.answered(),
                    Moved::End => return Ending::Closed,
                    Moved::Broken => return Ending::Broken,
                },
                Event::ToClient => match self.down.empty(&client) {
                    Moved::Some => self.took = Instant::now(),
                    Moved::End | Moved::Broken => self.client_left(),
                },
                Event::Gate => self.look(),
                Event::Stop => {
                    self.stopping = true;
                    self.end();
                    self.until = Some(Instant::now() + REST);
                }
                Event::Deaf => self.client_left(),
                Event::GivenUp | Event::Late => return Ending::GivenUp,
            }
        }
    }

    fn answered(&mut self) {
        self.unanswered = false;
        self.took = Instant::now();
        if !self.client_there {
            self.down.clear();
            // It is at work still, so it is not given up for its silence.
            self.bear_silence();
        }
    }

    /// From now on, unless the daemon has its own end for it.
    fn bear_silence(&mut self) {
        if !self.stopping {
            self.until = Some(Instant::now() + SILENCE);
        }
    }

    /// A fence of the lane ends what it is configured to end.
    fn look(&mut self) {
        let fenced = self.front.group.gate.look(Lane::Sql).phase != Phase::Open;
        if fenced && self.front.old == OldConnections::Close {
            self.end();
        }
    }

    fn end(&mut self) {
        self.no_more();
        if !std::mem::replace(&mut self.ending, true) {
            self.took = Instant::now();
        }
    }

    /// Nothing more is taken from the client; what was taken is still sent.
    const fn no_more(&mut self) {
        self.taking = false;
    }

    fn client_left(&mut self) {
        self.no_more();
        self.client_there = false;
        self.down.clear();
        self.entry.set_state(RequestState::Orphaned);
        self.bear_silence();
    }
}

/// Never comes; the arm that waits for it is switched off.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}
