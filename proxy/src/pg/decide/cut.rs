//! A client's group taken apart, so that something can happen between two of its statements.
//!
//! A part is a group of its own: it ends in a Query or a Sync and is answered with a ReadyForQuery,
//! of which the client sees only the last. Bytes in, bytes out.

use super::view::{View, frames};
use crate::pg::frame::{head, put};
use crate::pg::message::{bind_head, body, execute_head, query, target_head};

/// What stands in the place of a statement that is refused behind others: it fails on every server
/// and in every state, and the server's log then says in words what happened. No setting has this
/// name, and no setting of a user's can, for it has no dot; no portal has it.
pub(crate) const REFUSED: &str = "writefence refused a statement";

/// Cuts the group before step `n`, which is not its first. `None` where it cannot be cut: a later
/// statement runs a portal that was bound before the cut and would not outlive it.
pub(crate) fn cut(group: &[u8], view: &View, n: usize, in_transaction: bool) -> Option<Vec<u8>> {
    let (before, after) = (view.steps.get(n.checked_sub(1)?)?, view.steps.get(n)?);
    if !view.simple {
        let (_, rest) = group.split_at_checked(before.at.end)?;
        let whole = in_transaction || !reaches_back(rest);
        return whole.then(|| cut_at(group, before.at.end));
    }
    let text = text_of(group);
    let mut out = Vec::with_capacity(group.len() + 8);
    put(&mut out, b'Q', &[text.get(..before.at.end)?, b"\0"]);
    put(&mut out, b'Q', &[text.get(after.at.start..)?, b"\0"]);
    Some(out)
}

/// Cuts an extended group at this place.
pub(crate) fn cut_at(group: &[u8], at: usize) -> Vec<u8> {
    let (first, rest) = group.split_at(at.min(group.len()));
    let mut out = Vec::with_capacity(group.len() + 8);
    out.extend_from_slice(first);
    put(&mut out, b'S', &[]);
    out.extend_from_slice(rest);
    out
}

/// Where to cut a group of one statement that is answered here, so that what is answered holds no
/// Parse: a statement with a name must exist on the server too.
pub(crate) fn apart(group: &[u8]) -> Option<usize> {
    let mut runs = None;
    let mut parsed = false;
    for (at, frame) in frames(group) {
        match frame.first() {
            Some(b'P') if runs.is_some() => return Some(at),
            Some(b'P') => parsed = true,
            Some(b'B' | b'E') if parsed => return Some(at),
            Some(b'B' | b'E') => runs = Some(at),
            _ => {}
        }
    }
    None
}

/// Where the Query or FunctionCall at the end of a group stands, if a run without a Sync is before it.
pub(crate) fn run_before_query(group: &[u8]) -> Option<usize> {
    let (at, last) = frames(group).last()?;
    (at > 0 && matches!(last.first(), Some(b'Q' | b'F'))).then_some(at)
}

/// Where the first message stands that runs something which was not bound before the group.
pub(crate) fn begins_anew(group: &[u8]) -> Option<usize> {
    let is_new = |frame: &[u8]| matches!(frame.first(), Some(b'P' | b'B' | b'Q' | b'F'));
    frames(group)
        .find(|(_, frame)| is_new(frame))
        .map(|(at, _)| at)
}

/// Puts together again what was cut: `buf` begins with both parts.
pub(crate) fn rejoin(buf: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(buf.len());
    let mut first = frames(buf);
    if buf.first() == Some(&b'Q')
        && let (Some((_, one)), Some((at, two))) = (first.next(), first.next())
    {
        let text = |frame| {
            let text: &[u8] = text_of(frame);
            text
        };
        put(&mut out, b'Q', &[text(one), b";", text(two), b"\0"]);
        out.extend_from_slice(buf.get(at + two.len()..).unwrap_or_default());
        return out;
    }
    let sync = first.find(|(_, frame)| frame.first() == Some(&b'S'));
    let (at, after) = sync.map_or((buf.len(), buf.len()), |(at, f)| (at, at + f.len()));
    out.extend_from_slice(buf.get(..at).unwrap_or_default());
    out.extend_from_slice(buf.get(after..).unwrap_or_default());
    out
}

/// The group with a failure in the place of step `n` and all that stands behind it.
pub(crate) fn plant(group: &[u8], view: &View, n: usize) -> Option<Vec<u8>> {
    let at = view.steps.get(n)?.at.start;
    let mut out = Vec::with_capacity(group.len() + 128);
    if view.simple {
        let text = String::from_utf8_lossy(text_of(group).get(..at)?);
        query(&mut out, &format!("{text}SET \"{REFUSED}\" TO 1"));
        return Some(out);
    }
    out.extend_from_slice(group.get(..at)?);
    put(&mut out, b'E', &[REFUSED.as_bytes(), b"\0", &[0; 4]]);
    let (_, last) = frames(group).last()?;
    out.extend_from_slice(last);
    Some(out)
}

/// Whether messages name a portal that none of them binds.
fn reaches_back(messages: &[u8]) -> bool {
    let mut bound: Vec<&[u8]> = Vec::new();
    for (_, frame) in frames(messages) {
        let portal = match frame.first() {
            Some(b'B') => {
                bound.extend(bind_head(frame).map(|(portal, _)| portal));
                continue;
            }
            Some(b'E') => execute_head(frame),
            Some(b'D') => target_head(frame)
                .filter(|(kind, _)| *kind == b'P')
                .map(|(_, name)| name),
            _ => continue,
        };
        if portal.is_some_and(|p| !bound.contains(&p)) {
            return true;
        }
    }
    false
}

fn text_of(query: &[u8]) -> &[u8] {
    let total = head(query).ok().flatten().map_or(0, |h| h.total);
    let text = body(query.get(..total).unwrap_or_default());
    text.strip_suffix(b"\0").unwrap_or(text)
}
