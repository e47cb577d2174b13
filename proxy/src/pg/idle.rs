//! Looks for sessions that say nothing, so that none needs a timer of its own; and ends the periods
//! over which traffic is averaged.
//!
//! A session that has moved no byte since the last looks is asked to end once its time is over. It
//! decides itself whether it really is idle: a long statement moves no bytes either. Each session is
//! asked once per silence.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::group::Group;
use crate::sessions::{Quit, SessionView};
use crate::shutdown::Shutdown;

/// Between two looks: a tenth of the shorter time, within these.
const OFTEN: Duration = Duration::from_millis(50);
const SELDOM: Duration = Duration::from_secs(5);

/// What was seen of a session.
struct Silence {
    moved: u64,
    since: Instant,
    asked: [bool; 2],
}

/// Ends idle sessions until the daemon stops.
pub async fn watch(group: Arc<Group>, mut stop: Shutdown) {
    let mut seen = HashMap::new();
    while !stop.is_stopping() {
        group.sessions.roll();
        let settings = group.settings.load_full();
        let limits = [
            (Quit::Idle, settings.idle_timeout),
            (
                Quit::IdleInTransaction,
                settings.idle_in_transaction_timeout,
            ),
        ];
        let shortest = limits.iter().map(|l| l.1).filter(|l| !l.is_zero()).min();
        match shortest {
            Some(_) => look(&group, limits, &mut seen),
            None => seen = HashMap::new(),
        }
        let pause = shortest.map_or(SELDOM, |limit| (limit / 10).clamp(OFTEN, SELDOM));
        // Both arms may be dropped: a sleep and a look at a flag.
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.stopping() => return,
        }
    }
}

fn look(group: &Group, limits: [(Quit, Duration); 2], seen: &mut HashMap<u32, Silence>) {
    let all = group.sessions.snapshot();
    let now = Instant::now();
    let mut next = HashMap::with_capacity(all.len());
    for view in all {
        let mut silence = silence(seen.remove(&view.id), &view, now);
        for ((why, limit), asked) in limits.into_iter().zip(&mut silence.asked) {
            let over = !limit.is_zero() && now.duration_since(silence.since) >= limit;
            if over && !std::mem::replace(asked, true) {
                group.sessions.quit(view.id, why);
            } else if !over {
                *asked = false;
            }
        }
        next.insert(view.id, silence);
    }
    *seen = next;
}

fn silence(before: Option<Silence>, view: &SessionView, now: Instant) -> Silence {
    let moved = view.traffic.received.wrapping_add(view.traffic.sent);
    match before {
        Some(before) if before.moved == moved => before,
        Some(_) | None => Silence {
            moved,
            since: now,
            asked: [false; 2],
        },
    }
}
