//! Following a run or a drain by long poll until there is nothing more to wait for.
//!
//! The daemon executes whether or not anybody follows. Ctrl-C, a closed terminal or a lost daemon
//! end the following only.

use std::time::{Duration, Instant};

use writefence_admin::Wait;
use writefence_admin::api::{ApiError, Drain, Run, Timestamp};
use writefence_admin::client::ClientError;

use crate::context::Context;
use crate::view::View;

/// How often counts are refreshed while nothing else happens: on a terminal soon enough to look
/// alive, elsewhere rarely, since nobody looks.
const REFRESH: Duration = Duration::from_millis(200);
const QUIET: Duration = Duration::from_secs(1);
/// Between two attempts to reach a daemon that fell silent.
const RETRY: Duration = Duration::from_millis(200);

/// How following ended.
pub(crate) enum Followed<T> {
    /// The daemon is done with it for now.
    Ended(Box<T>),
    /// Ctrl-C; the last that was seen.
    Interrupted(Box<T>),
}

/// Follows a run while the daemon works on it; shows what happened from `since` on.
pub(crate) async fn run(
    context: &Context,
    first: Run,
    since: Timestamp,
) -> Result<Followed<Run>, ApiError> {
    let mut view = View::new(context.out, since);
    let mut last = first;
    let mut after = 0;
    let mut patience = Patience::new(context);
    let mut interrupt = Interrupt::new()?;
    view.run(&last, &[], None, None);
    while last.working {
        let wait = Wait {
            after,
            at_most: refresh(context),
        };
        // Dropping a poll half way loses nothing: the next one asks from the same number.
        let polled = tokio::select! {
            polled = context.client.progress(&last.id, wait) => polled,
            () = interrupt.pressed() => return Ok(Followed::Interrupted(Box::new(last))),
        };
        let Some(progress) = patience.heard(polled).await? else {
            continue;
        };
        after = progress.seq;
        view.progress(&progress);
        last = progress.run;
    }
    Ok(Followed::Ended(Box::new(last)))
}

/// Follows a drain until it has an outcome.
pub(crate) async fn drain(
    context: &Context,
    group: &str,
    first: Drain,
) -> Result<Followed<Drain>, ApiError> {
    let view = View::new(context.out, first.started);
    let mut last = first;
    let mut patience = Patience::new(context);
    let mut interrupt = Interrupt::new()?;
    view.drain(&last);
    while last.outcome.is_none() {
        // As above.
        let polled = tokio::select! {
            polled = context.client.drain(group, &last.id, refresh(context)) => polled,
            () = interrupt.pressed() => return Ok(Followed::Interrupted(Box::new(last))),
        };
        let Some(drain) = patience.heard(polled).await? else {
            continue;
        };
        last = drain;
        view.drain(&last);
    }
    Ok(Followed::Ended(Box::new(last)))
}

const fn refresh(context: &Context) -> Duration {
    if context.out.terminal() {
        REFRESH
    } else {
        QUIET
    }
}

/// Ctrl-C, caught for as long as this lives; a press between two polls is not lost.
struct Interrupt(tokio::signal::unix::Signal);

impl Interrupt {
    fn new() -> Result<Self, ApiError> {
        let kind = tokio::signal::unix::SignalKind::interrupt();
        tokio::signal::unix::signal(kind)
            .map(Self)
            .map_err(|error| {
                let what = format!("Ctrl-C cannot be watched: {error}");
                ApiError::new(writefence_admin::api::Code::Internal, what)
            })
    }

    async fn pressed(&mut self) {
        self.0.recv().await;
    }
}

/// How long a silent daemon is waited for: a restart takes a moment, and then says `interrupted`.
struct Patience {
    heard: Instant,
    limit: Duration,
}

impl Patience {
    fn new(context: &Context) -> Self {
        Self {
            heard: Instant::now(),
            limit: context.client.timeout(),
        }
    }

    /// The answer, or `None` to ask again.
    async fn heard<T>(&mut self, answer: Result<T, ClientError>) -> Result<Option<T>, ApiError> {
        match answer {
            Ok(answer) => {
                self.heard = Instant::now();
                Ok(Some(answer))
            }
            Err(error) if error.is_silence() && self.heard.elapsed() < self.limit => {
                tokio::time::sleep(RETRY).await;
                Ok(None)
            }
            Err(error) => Err(error.into_document()),
        }
    }
}
