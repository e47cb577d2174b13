//! The state after the move: what should be true now, seen anew.

use std::time::Duration;

use writefence_admin::api::{ApiError, Code, Finding, Level};

use super::super::checks::{self, Kept, Scene};
use super::super::desk::Desk;
use super::super::error::refused;
use super::super::former::rewind;
use super::{Course, Found, Stop};
use crate::upstream::{Region, Role, Wanted};

/// How long the canary's commit may take; a commit that hangs waits for a standby that is gone.
const CANARY: Duration = Duration::from_secs(5);

/// How long the other regions are asked.
const OTHERS: Duration = Duration::from_secs(2);

impl Course {
    pub(super) async fn verify(&mut self) -> Found {
        let mut findings = verified(&self.desk, &self.run).await;
        let primary = self.desk.accepted();
        // A run that was resumed behind the promotion has nothing to compare with.
        let (kept, nothing) = (self.desk.kept.load_full(), Kept::new());
        let kept = if kept.0 == self.run {
            &kept.1
        } else {
            &nothing
        };
        let scene = Scene {
            primary: Some(&primary),
            other: Some(&self.from).filter(|from| **from != primary),
            kept: Some(kept),
        };
        findings.extend(checks::after(&self.desk, &scene).await);
        match worst(&findings) {
            Some(error) => Err(Stop::Failed(error)),
            None => Ok(findings),
        }
    }
}

/// What is found of the accepted primary and of the others.
pub(crate) async fn verified(desk: &Desk, run: &str) -> Vec<Finding> {
    let accepted = desk.group.targets.accepted();
    let region = &accepted.region;
    let mut findings = Vec::new();
    if desk.actor.is_fenced() {
        findings.push(Finding::new(Level::Block, "open", "writes are fenced"));
    }
    if !desk.servers.has_database() {
        findings.extend(super::origins::verified(desk).await);
        return findings;
    }
    let wanted = accepted.identity.map_or(Wanted::First, Wanted::Same);
    findings.push(match desk.servers.check(region, wanted, None, None).await {
        Ok(checked) => {
            let identity = checked.identity().map(|identity| identity.to_string());
            let text = format!(
                "{region} is the primary that was accepted: {}",
                identity.unwrap_or_default()
            );
            Finding::new(Level::Pass, "identity", text)
        }
        Err(error) => Finding::new(Level::Block, "identity", format!("{region}: {error}")),
    });
    let canary = tokio::time::timeout(CANARY, desk.servers.canary(region, run)).await;
    findings.push(match canary {
        Ok(Ok(lsn)) => Finding::new(
            Level::Pass,
            "canary",
            format!("{region} committed at {lsn}"),
        ),
        Ok(Err(error)) => Finding::new(Level::Block, "canary", format!("{region}: {error}")),
        Err(_) => Finding::new(
            Level::Block,
            "canary",
            format!(
                "{region} did not commit within {} s; is a synchronous standby missing?",
                CANARY.as_secs()
            ),
        ),
    });
    for target in desk.group.targets.regions() {
        if target.region != *region {
            findings.push(other(desk, &target.region).await);
        }
    }
    findings
}

async fn other(desk: &Desk, region: &Region) -> Finding {
    match tokio::time::timeout(OTHERS, desk.servers.observe(region)).await {
        Ok(Ok(seen)) if seen.writable == Some(true) => Finding::new(
            Level::Block,
            "two_writable_sides",
            format!("{region} takes writes too: stop it before anybody connects to it"),
        ),
        Ok(Ok(seen)) if seen.role == Some(Role::Primary) => Finding::new(
            Level::Pass,
            "old_primary",
            format!(
                "{region} is a former primary and barred; {}",
                rewind(desk, region, &desk.accepted())
            ),
        ),
        Ok(Ok(_)) => Finding::new(
            Level::Pass,
            "old_primary",
            format!("{region} is in recovery"),
        ),
        Ok(Err(_)) | Err(_) => {
            let text =
                format!("{region} does not answer; it is refused by its timeline if it returns");
            Finding::new(Level::Warn, "old_primary", text)
        }
    }
}

/// The error that these findings amount to, if one blocks.
pub(crate) fn worst(findings: &[Finding]) -> Option<ApiError> {
    let blocking: Vec<&str> = findings
        .iter()
        .filter(|f| f.level == Level::Block)
        .map(|f| f.sentence.as_str())
        .collect();
    if blocking.is_empty() {
        return None;
    }
    Some(
        refused(Code::VerificationFailed, blocking.join("; "))
            .hint("repair it, then `verify` again"),
    )
}
