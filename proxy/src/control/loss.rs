//! What an unplanned move would lose, stated before it: from the last sight of the old primary and
//! from what the candidate has received.
//!
//! What the old primary wrote behind that last sight is known to nobody here. So a figure is the
//! least, and where nothing was missing at that look it is unknown and not 0: 0 is said only where a
//! standby had to confirm every commit.

use std::time::Duration;

use writefence_admin::api::{Finding, Level, Loss, Timestamp};

use super::desk::Desk;
use super::measure::wall;
use crate::upstream::{Observation, Region};

/// The old primary as it was last seen, and how long ago that was.
struct Sight<'a> {
    seen: &'a Observation,
    at: Timestamp,
    ago: Duration,
}

/// What promoting `new` would lose, if `old` stays silent.
pub(crate) fn stated(
    desk: &Desk,
    old: &Region,
    new: &Region,
    candidate: Option<&Observation>,
) -> Loss {
    let seen = desk.servers.seen(old);
    let last = seen.as_ref().and_then(|seen| {
        let at = seen.last_at?;
        Some(Sight {
            seen: seen.last.as_ref()?,
            at: wall(at),
            ago: crate::clock::now().saturating_duration_since(at),
        })
    });
    let confirmed = desk.servers.synchronous(old, new).ok();
    told(old, new, last.as_ref(), confirmed, candidate)
}

fn told(
    old: &Region,
    new: &Region,
    last: Option<&Sight<'_>>,
    confirmed: Option<String>,
    candidate: Option<&Observation>,
) -> Loss {
    let last_seen = last.map(|last| last.at);
    let with = |at_least_bytes, window_ms, sentence| Loss {
        at_least_bytes,
        window_ms,
        last_seen,
        sentence,
    };
    if let Some(why) = confirmed {
        return with(Some(0), None, format!("nothing acknowledged: {why}"));
    }
    let Some(last) = last else {
        let text = format!("not known: {old} was never seen");
        return with(None, None, text);
    };
    let ago = last.ago.as_millis();
    let ends = last.seen.lsn.zip(candidate.and_then(received));
    let Some((end, has)) = ends else {
        let text = format!(
            "not known: {old}, last seen {ago} ms ago, or {new} does not show its place in the log; \
             GRANT pg_monitor to the observer"
        );
        return with(None, None, text);
    };
    let bytes = end.bytes_since(has);
    if bytes == 0 {
        let text = format!(
            "not known: {new} has all that was seen of {old} {ago} ms ago; whatever {old} \
             acknowledged since then and did not ship is lost if it stays silent"
        );
        return with(None, None, text);
    }
    let window = candidate.and_then(|candidate| window_ms(last.seen, candidate));
    let written = window.map_or_else(String::new, |ms| {
        format!(", what was committed in the {ms} ms before {old} was last seen")
    });
    let text = format!(
        "if {old} stays silent at least {bytes} bytes of its log, from {has} to {end}{written}; and \
         whatever it acknowledged in the {ago} ms since"
    );
    with(Some(bytes), window, text)
}

/// The end of what the candidate has: received, or restored from an archive.
fn received(candidate: &Observation) -> Option<crate::upstream::Lsn> {
    candidate.lsn.max(candidate.replay_lsn)
}

/// From the last commit that the candidate has to the last sight of the old primary, both by the old
/// primary's clock. While received log is still to be replayed that commit is not the last one.
fn window_ms(old: &Observation, candidate: &Observation) -> Option<u64> {
    if candidate.replay_lsn? < candidate.lsn? {
        return None;
    }
    let age = i64::try_from(candidate.replay_age?.as_micros()).ok()?;
    let commit = candidate.now?.micros().checked_sub(age)?;
    let micros = old.now?.micros().checked_sub(commit)?;
    u64::try_from(micros.max(0))
        .ok()
        .map(|us| us.div_ceil(1000))
}

/// The same as a condition of the move.
pub(crate) fn finding(loss: &Loss) -> Finding {
    let level = match loss.at_least_bytes {
        Some(0) => Level::Pass,
        Some(_) | None => Level::Warn,
    };
    Finding::new(level, "loss", format!("lost: {}", loss.sentence))
}

#[cfg(test)]
mod tests {
    use super::super::tests::fake::{primary, standby};
    use super::*;
    use crate::upstream::{Lsn, ServerTime};

    fn at(lsn: u64, of: Observation) -> Observation {
        Observation {
            lsn: Some(Lsn::new(lsn)),
            replay_lsn: of.replay_lsn.map(|_| Lsn::new(lsn)),
            now: Some(ServerTime::from_micros(10_000_000)),
            ..of
        }
    }

    fn loss(
        last: Option<Observation>,
        confirmed: Option<&str>,
        candidate: Option<&Observation>,
    ) -> Loss {
        let sight = last.as_ref().map(|seen| Sight {
            seen,
            at: Timestamp::now(),
            ago: Duration::from_millis(700),
        });
        let (old, new) = (Region::new("a"), Region::new("b"));
        let confirmed = confirmed.map(str::to_owned);
        told(&old, &new, sight.as_ref(), confirmed, candidate)
    }

    fn behind(lsn: u64) -> Observation {
        Observation {
            replay_lsn: Some(Lsn::new(lsn)),
            replay_age: Some(Duration::from_millis(250)),
            ..at(lsn, standby("b", 1))
        }
    }

    #[test]
    fn what_was_seen_and_did_not_arrive_is_the_least_that_is_lost() {
        let stated = loss(Some(at(5000, primary("a", 1))), None, Some(&behind(4000)));
        assert_eq!(stated.at_least_bytes, Some(1000));
        assert_eq!(stated.window_ms, Some(250));
        assert!(
            stated.sentence.contains("at least 1000 bytes"),
            "{stated:?}"
        );
        assert_eq!(finding(&stated).level, Level::Warn);
    }

    #[test]
    fn nothing_missing_at_the_last_look_is_unknown_and_never_0() {
        for candidate in [Some(behind(5000)), Some(behind(6000)), None] {
            let last = Some(at(5000, primary("a", 1)));
            let stated = loss(last, None, candidate.as_ref());
            assert_eq!((stated.at_least_bytes, stated.window_ms), (None, None));
            assert_eq!(finding(&stated).level, Level::Warn, "{stated:?}");
        }
        assert_eq!(loss(None, None, Some(&behind(1))).at_least_bytes, None);
        let masked = Observation {
            lsn: None,
            ..primary("a", 1)
        };
        assert_eq!(
            loss(Some(masked), None, Some(&behind(1))).at_least_bytes,
            None
        );
    }

    #[test]
    fn nothing_is_lost_where_a_standby_had_to_confirm_it() {
        let last = Some(at(5000, primary("a", 1)));
        let stated = loss(last, Some("b was synchronous"), Some(&behind(4000)));
        assert_eq!(stated.at_least_bytes, Some(0));
        assert_eq!(finding(&stated).level, Level::Pass);
    }

    #[test]
    fn while_log_waits_to_be_replayed_its_time_is_not_told() {
        let late = Observation {
            replay_lsn: Some(Lsn::new(3000)),
            ..behind(4000)
        };
        let stated = loss(Some(at(5000, primary("a", 1))), None, Some(&late));
        assert_eq!(
            (stated.at_least_bytes, stated.window_ms),
            (Some(1000), None)
        );
    }
}
