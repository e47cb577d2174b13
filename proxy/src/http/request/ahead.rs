//! What is read of a body before its request is admitted.
//!
//! Up to 64 KiB, so that a slow client holds up no drain and one that leaves has sent nothing. A body
//! that is a stream is not waited for: its server may have to speak first.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::Serving;
use crate::gate::{Lane, Phase};
use crate::http::figures::Fate;
use crate::http::refuse::{self, Late};
use crate::http::server::{Gone, Input};

/// A body up to this size is read before its request is admitted.
const AHEAD: usize = 64 << 10;

/// A body of a length that nobody told, and that pauses for as long, is taken for a stream.
const PAUSE: Duration = Duration::from_secs(1);

/// How long the first message of a gRPC call is waited for.
const FIRST_MESSAGE: Duration = Duration::from_millis(50);

/// What stands before a gRPC message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Why a body was not read.
#[derive(Debug)]
pub(super) enum Early {
    /// Its client has left.
    Gone,
    /// Its client sends nothing more and has not left.
    Slow,
}

impl From<Gone> for Early {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

impl Serving<'_> {
    /// Reads what a request needs before it is admitted. Safe to drop: what was read is kept.
    pub(super) async fn gather_ahead(&mut self) -> Result<(), Early> {
        if self.tongue.is_grpc() {
            self.gather_message().await?;
            self.is_stream = true;
        }
        while !self.is_ahead() {
            // A length is a promise that it will end.
            let (most, patience) = match self.down.has_length() {
                true => (AHEAD, Duration::MAX),
                false => (self.ahead_bytes + 1, PAUSE),
            };
            match timeout(patience, self.gather(most)).await {
                Ok(gathered) => gathered?,
                Err(_) => self.is_stream = true,
            }
        }
        Ok(())
    }

    /// Whether nothing is to be read ahead any more.
    pub(super) fn is_ahead(&self) -> bool {
        self.down.body_done() || self.ahead_bytes >= AHEAD || self.is_stream
    }

    /// The first message of a call, unless the client waits for the server's.
    async fn gather_message(&mut self) -> Result<(), Early> {
        match timeout(FIRST_MESSAGE, self.gather(1)).await {
            Ok(gathered) => gathered?,
            Err(_) => return Ok(()),
        }
        self.gather(PREFIX).await?;
        let prefix = self.ahead.iter().flatten().skip(1).take(PREFIX - 1);
        let length = prefix.fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
        self.gather(PREFIX.saturating_add(length).min(AHEAD)).await
    }

    /// Reads of the body until so many bytes are there or all has come. Safe to drop.
    pub(super) async fn gather(&mut self, most: usize) -> Result<(), Early> {
        while !self.down.body_done() && self.ahead_bytes < most {
            match self.down.input(true).await {
                Input::Data(data) => {
                    self.ahead_bytes += data.len();
                    self.ahead.push_back(data);
                }
                Input::End | Input::Left => return Ok(()),
                Input::Broken => return Err(Early::Gone),
                Input::Slow => return Err(Early::Slow),
            }
        }
        Ok(())
    }

    /// The same for who has not been told to send it, and may or may not.
    pub(super) async fn gather_unasked(&mut self, most: usize) -> Result<(), Early> {
        timeout(PAUSE, self.gather(most)).await.unwrap_or(Ok(()))
    }

    /// All that was read.
    pub(super) fn read_ahead(&self) -> Vec<u8> {
        self.ahead.iter().flatten().copied().collect()
    }

    /// What was read, to be sent.
    pub(super) fn take_ahead(&mut self) -> std::collections::VecDeque<Bytes> {
        std::mem::take(&mut self.ahead)
    }

    /// Ends a request of which nothing was sent.
    pub(super) async fn give_up(&mut self, early: Early) -> Result<bool, Gone> {
        match early {
            Early::Gone => {
                self.peer.tally.leave();
                self.front.figures.count(Fate::Abandoned);
                Err(Gone)
            }
            Early::Slow => {
                self.front.figures.count(Fate::Bad);
                let reply = refuse::too_slow(Late::Unsent, &self.tongue);
                self.reply_now(reply).await
            }
        }
    }

    /// Tells a client that waits for it to send its body, unless the fence has something to say
    /// first. Then it is told by what it is answered, or when its turn comes.
    pub(super) async fn go_on_if_open(&mut self) -> Result<(), Gone> {
        let open = self.front.group.gate.look(Lane::Http).phase == Phase::Open;
        if open && self.down.awaits_continue() {
            self.down.go_on().await?;
        }
        Ok(())
    }
}
