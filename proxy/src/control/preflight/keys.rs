//! SCRAM keys: sessions that log in with the key of their own client's login.

use writefence_admin::api::Finding;

use super::super::desk::Desk;
use super::{pass, warn};
use crate::scram::Verifier;
use crate::sessions::SessionView;
use crate::upstream::Region;

const KEYS: &str = "scram_keys";

/// Users in one answer.
const NAMED: usize = 20;

/// Sessions that log in with the key of their client's own login can do so only where the server has
/// the same verifier. Other clusters than physical copies, and changed passwords, have another.
pub(super) async fn look(desk: &Desk, to: &Region) -> Vec<Finding> {
    let all = desk.group.sessions.snapshot();
    let target = desk.group.targets.region(to).ok();
    let asks_key = |s: &SessionView| {
        let target = target.as_ref();
        target.is_some_and(|t| t.user.is_none() && t.password_for(&s.database, &s.user).is_none())
    };
    let used = all.iter().filter(|s| asks_key(s));
    let mut used: Vec<_> = used.filter_map(|s| Some((&*s.user, s.key?))).collect();
    if used.is_empty() {
        return Vec::new();
    }
    used.sort_unstable();
    let there = match desk.servers.verifiers(to).await {
        Ok(there) => there,
        Err(error) => {
            let text = format!("{to}: whether sessions can log in is not known: {error}");
            return vec![warn(KEYS, text)];
        }
    };
    let fits = |user: &str, key: u64| {
        let of_user = there.iter().find(|(name, _)| name == user);
        let verifier = of_user.and_then(|(_, text)| Verifier::parse(text).ok());
        verifier.is_some_and(|verifier| verifier.fingerprint() == key)
    };
    let mut lost: Vec<(&str, usize)> = Vec::new();
    for (user, _) in used.iter().filter(|(user, key)| !fits(user, *key)) {
        match lost.last_mut() {
            Some((known, n)) if known == user => *n += 1,
            _ => lost.push((user, 1)),
        }
    }
    if lost.is_empty() {
        let text = format!(
            "{to} knows the {} SCRAM keys that sessions log in with",
            used.len()
        );
        return vec![pass(KEYS, text)];
    }
    let one = |(user, n): &(&str, usize)| {
        let text = format!(
            "{to} keeps another SCRAM verifier for user \"{user}\" than {n} of its sessions logged in \
             with, so they will be ended; its password in users_file or the region's passfile helps"
        );
        warn(KEYS, text)
    };
    lost.iter().take(NAMED).map(one).collect()
}
