//! Answers of our own: a client that still sends is heard out first, within bounds, so that it reads
//! them.

use std::time::Duration;

use http::StatusCode;

use super::Serving;
use crate::gate::Lane;
use crate::http::exchange::Failure;
use crate::http::figures::Fate;
use crate::http::refuse::{self, Late, Reply, Why};
use crate::http::server::Gone;

/// What is read of a refused request's body so that the connection can go on, and how long that may
/// take. A client that sends more reads the refusal and then the end of its connection.
const DRAIN: usize = 1 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// How long the end of an HTTP/2 request is waited for before it is refused.
const LAST_FRAME: Duration = Duration::from_millis(100);

impl Serving<'_> {
    pub(super) async fn failed(&mut self, failure: Failure, upgraded: bool) -> Result<bool, Gone> {
        let unknown = failure == Failure::Unknown;
        if unknown {
            self.front.figures.count(Fate::Unknown);
        }
        if self.down.is_answered() || upgraded {
            return Ok(false);
        }
        if self.is_late {
            let late = match failure {
                Failure::Unsent => Late::Unsent,
                Failure::Broken => Late::Read,
                Failure::Unknown => Late::Write(&self.id),
            };
            let reply = refuse::too_slow(late, &self.tongue);
            return self.reply_now(reply).await;
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

    pub(super) async fn refuse(&mut self, why: Why) -> Result<bool, Gone> {
        self.front.figures.refuse(why);
        let epoch = self.front.group.gate.look(Lane::Http).epoch;
        let reply = refuse::not_executed(why, epoch, self.front.retry_after(), &self.tongue);
        self.reply(reply).await
    }

    pub(super) async fn bad(&mut self, status: StatusCode, why: &str) -> Result<bool, Gone> {
        self.front.figures.count(Fate::Bad);
        self.down.close_after();
        self.reply(refuse::bad(status, why)).await
    }

    /// Answers here. What the client still sends is read first, up to a bound, unless it waits to
    /// be told to send it: a client that is still writing may never look at an answer.
    pub(super) async fn reply(&mut self, reply: Reply) -> Result<bool, Gone> {
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
        self.reply_now(reply).await
    }

    /// Answers here without waiting for the client. One that still sends reads the answer and then the
    /// end of its connection.
    pub(super) async fn reply_now(&mut self, reply: Reply) -> Result<bool, Gone> {
        let Reply { head, body } = reply;
        let is_head = self.down.head().method == http::Method::HEAD;
        if !self.down.body_done() || self.peer.stop.is_stopping() {
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
