//! Targets that are left behind: nobody waits for a server where no session is wanted any more.

use crate::group::Group;

/// Waits until a target is neither the one in force nor the candidate. May be dropped.
pub(super) async fn left(group: &Group, serial: u64) {
    // Enrolled first, looked second.
    let mut watch = group.gate.watch();
    loop {
        // The candidate first: it is put in force before it stops being the candidate.
        let candidate = group.targets.candidate();
        let stands = candidate.is_some_and(|candidate| candidate.serial == serial)
            || group.targets.serial() == serial;
        if !stands {
            return;
        }
        watch.changed().await;
    }
}
