//! The first login of a session: the client's on ours, ours on the target.
//!
//! While a target cannot be reached the client waits, bounded; a login that the server refuses is
//! refused to the client in the server's own words.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::auth::Admitted;
use super::classify::Eyes;
use super::frame::put;
use super::left::left;
use super::leg::Leg;
use super::message::{parameter, ready};
use super::refuse;
use super::replay::{VIRTUAL, Who, chain, login_as};
use super::server::Server;
use super::session::{Session, Virtual};
use super::startup::Startup;
use super::track::Track;
use crate::gate::{Lane, Phase};
use crate::group::Group;
use crate::sessions::{LoggingIn, SessionGuard, SessionState};
use crate::tls::Stream;
use crate::upstream::Target;
use crate::upstream::wire::{LoginError, Proof, login_through, login_told};

/// Pause between attempts to reach a target at login, milliseconds.
const RETRY_MS: u64 = 50;

/// Makes a session of a client that has sent its startup packet; `None` when it was refused.
pub(crate) async fn begin(
    group: Arc<Group>,
    mut stream: Stream,
    handle: SessionGuard,
    startup: Startup,
    admitted: Admitted,
) -> Option<Box<Session>> {
    let watch = group.gate.watch();
    let look = group.gate.look(Lane::Sql);
    let targets_seen = group.targets.version();
    let passed_through = admitted.passed_through;
    let who = Arc::new(Who {
        params: group.params.share(startup.params.clone()),
        minor: startup.spoken(),
        proof: admitted.proof,
    });
    if let Proof::Keys(keys) = &who.proof {
        handle.set_key(keys.verifier().fingerprint());
    }
    let through = passed_through.then_some(&mut stream);
    let first = first_login(&group, &who, through).await;
    let mut client = Leg::new(stream);
    let (server, notices, under_way) = match first {
        Ok(first) => first,
        Err(refusal) => {
            client.queue().extend_from_slice(&refusal);
            let _ = tokio::time::timeout(std::time::Duration::from_secs(1), client.flush()).await;
            return None;
        }
    };
    handle.set_backend(Some((server.target.region.clone(), server.pid)));
    drop(under_way);
    handle.set_state(SessionState::Idle);
    let eyes = Eyes {
        policy: group.settings.load().policy,
        shelf: group.catalogs.shelf(handle.database()),
    };
    let mut session = Box::new(Session {
        handle,
        watch,
        client,
        server: None,
        track: Track::default(),
        permit: None,
        unproven: None,
        let_go: false,
        look,
        turned: None,
        targets_seen,
        stock_wanted: false,
        told: Arc::default(),
        careful: true,
        wall: Default::default(),
        virt: Virtual::None,
        sealed: false,
        temporaries_asked: None,
        catalog_waited: None,
        untold: None,
        grace_over: false,
        ahead: None,
        ready: None,
        refused: None,
        parked: None,
        kept: Default::default(),
        timer: None,
        cancelling: None,
        drop_bytes: 0,
        drop_to_sync: false,
        passing: false,
        flush_due: false,
        probe_due: false,
        client_rest: 0,
        server_rest: 0,
        client_gone: false,
        torn: None,
        orphan: Default::default(),
        undoing: false,
        xid: Default::default(),
        last_words: None,
        who,
        passed_through,
        eyes,
        group,
    });
    session.greet(&startup, &server, &notices);
    session.track.reported = server.reading();
    session.server = Some(server);
    session.recheck();
    session.log_in_ahead();
    Some(session)
}

/// Logs in on the accepted target; while fenced on the candidate where the target is gone.
/// With it the notices that came meanwhile; the error is what the client is to be told, framed.
async fn first_login(
    group: &Arc<Group>,
    who: &Who,
    mut through: Option<&mut Stream>,
) -> Result<(Server, Vec<Bytes>, LoggingIn), Vec<u8>> {
    let started = Instant::now();
    let settings = group.settings.load_full();
    'wanted: loop {
        let accepted = group.targets.accepted();
        let fenced = group.gate.look(Lane::Sql).phase != Phase::Open;
        let candidate = group.targets.candidate().filter(|_| fenced);
        let mut last = None;
        for target in std::iter::once(accepted).chain(candidate) {
            let as_whom = login_as(&target, who, settings.login_timeout);
            let under_way = group.sessions.logs_in(&target.region);
            let told = |address| under_way.at(address);
            let made = match &mut through {
                Some(client) => login_through(&target.endpoint, &as_whom, &told, *client).await,
                None => tokio::select! {
                    made = login_told(&target.endpoint, &as_whom, &told) => made,
                    // The primary has moved meanwhile, and this server may never answer.
                    () = left(group, target.serial) => continue 'wanted,
                },
            };
            match made {
                Ok(mut connected) => {
                    group.logins.opened(target.region.as_str(), connected.pid);
                    let notices = std::mem::take(&mut connected.notices);
                    let server = Server::new(connected, target, &group.params);
                    return Ok((server, notices, under_way));
                }
                Err(e) => {
                    // Nobody else can go on with a client that is in the middle of an exchange.
                    let is_over = through.is_some() && cuts_short(&e);
                    last = Some((target, e));
                    if is_over {
                        break;
                    }
                }
            }
        }
        let Some((target, e)) = last else { continue };
        group
            .sessions
            .totals
            .login_failures
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let waited = started.elapsed();
        let mut refusal = Vec::new();
        match &e {
            // The server's own words, unless it is only starting or being stopped.
            LoginError::Server { source: said, .. }
                if !matches!(said.sqlstate.as_str(), "57P01" | "57P02" | "57P03") =>
            {
                put(&mut refusal, b'E', &[&said.raw]);
                return Err(refusal);
            }
            _ if through.is_some() && cuts_short(&e) => {
                refuse::cut_short(target.region.as_str(), &chain(&e)).error(&mut refusal);
                return Err(refusal);
            }
            // Nothing was done by it, and the client has not heard of it.
            LoginError::Server { .. }
            | LoginError::Unreachable { .. }
            | LoginError::Closed { .. }
            | LoginError::Timeout { .. }
                if waited < settings.reach_timeout => {}
            _ => return Err(unreached(&target, waited, &e)),
        }
        tokio::time::sleep(std::time::Duration::from_millis(RETRY_MS)).await;
    }
}

/// Whether a server may have ended a login that it had begun: the barrier does so to whoever it does
/// not know, as behind an address translation. Of a login that is passed through the client has
/// heard, so it cannot be tried again in its stead.
fn cuts_short(e: &LoginError) -> bool {
    match e {
        LoginError::Timeout { .. } | LoginError::Closed { .. } => true,
        // Not 57P03, which is said before anything is asked.
        LoginError::Server { source: said, .. } => {
            matches!(said.sqlstate.as_str(), "57P01" | "57P02")
        }
        LoginError::Unreachable { .. }
        | LoginError::Protocol { .. }
        | LoginError::NoPassword { .. }
        | LoginError::NotAllowed { .. }
        | LoginError::OtherVerifier { .. }
        | LoginError::Tls { .. }
        | LoginError::UnsupportedAuth { .. } => false,
    }
}

pub(super) fn unreached(target: &Target, waited: std::time::Duration, e: &LoginError) -> Vec<u8> {
    let mut refusal = Vec::new();
    let region = target.region.as_str();
    let mut report = match e {
        LoginError::NoPassword { .. }
        | LoginError::NotAllowed { .. }
        | LoginError::OtherVerifier { .. }
        | LoginError::Tls { .. }
        | LoginError::UnsupportedAuth { .. } => refuse::no_login(region, &chain(e)),
        LoginError::Unreachable { .. }
        | LoginError::Closed { .. }
        | LoginError::Timeout { .. }
        | LoginError::Server { .. }
        | LoginError::Protocol { .. } => refuse::unreachable(region, waited, &chain(e)),
    };
    report.severity = "FATAL";
    report.error(&mut refusal);
    refusal
}

impl Session {
    /// Tells the client that it is logged in, and what the server said of itself.
    fn greet(&mut self, startup: &Startup, server: &Server, notices: &[Bytes]) {
        if let Ok(pid) = u32::try_from(server.pid) {
            self.handle.set_named(pid);
        }
        let (id, key) = (self.handle.named(), self.handle.key().bytes().to_vec());
        let fenced = self.look.phase != Phase::Open;
        let asks =
            |(name, value): &(String, String)| name == VIRTUAL[0] || value.contains(VIRTUAL[0]);
        let own_wish = startup.params.iter().any(asks);
        let out = self.client.queue();
        put(out, b'R', &[&0i32.to_be_bytes()]);
        for notice in notices {
            put(out, b'N', &[notice]);
        }
        for (name, value) in server.params.iter() {
            // While fenced the server's own value may be ours (the barrier's); who reads either
            // variable wants to know whether this is the primary, and through us it is.
            let ours = fenced && !own_wish && VIRTUAL.contains(&name.as_str());
            let hot = name == VIRTUAL[1];
            let shown = if ours || hot { "off" } else { value };
            if name == VIRTUAL[0] {
                self.wall.tell(shown);
            }
            parameter(out, name, shown);
        }
        put(out, b'K', &[&id.to_be_bytes(), &key]);
        ready(out, b'I');
    }
}
