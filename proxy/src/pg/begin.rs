//! The first login of a session: the client's on ours, ours on the target.
//!
//! While a target cannot be reached the client waits, bounded; a login that the server refuses is
//! refused to the client in the server's own words.

use std::net::SocketAddr;
use std::sync::Arc;

use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::startup::{BackendKeyData, NegotiateProtocolVersion, SecretKey};
use tokio::time::Instant;

use super::auth::Admitted;
use super::classify::Eyes;
use super::frame::put;
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
use crate::sessions::SessionState;
use crate::tls::Stream;
use crate::upstream::Target;
use crate::upstream::wire::{LoginError, Proof, login, login_through};

/// Protocol 3.0, in full as PostgreSQL's own servers name it: libpq refuses a bare minor version.
const SPOKEN: i32 = 3 << 16;

/// Pause between attempts to reach a target at login, milliseconds.
const RETRY_MS: u64 = 50;

/// Makes a session of a client that has sent its startup packet; `None` when it was refused.
pub(crate) async fn begin(
    group: Arc<Group>,
    mut stream: Stream,
    client: SocketAddr,
    startup: Startup,
    admitted: Admitted,
) -> Option<Session> {
    let user = startup.param("user").unwrap_or_default().to_owned();
    let database = startup
        .param("database")
        .filter(|d| !d.is_empty())
        .unwrap_or(&user)
        .to_owned();
    let application = startup
        .param("application_name")
        .unwrap_or_default()
        .to_owned();
    let handle = group.sessions.enter(&user, &database, &application, client);
    let watch = group.gate.watch();
    let look = group.gate.look(Lane::Sql);
    let targets_seen = group.targets.version();
    let passed_through = admitted.passed_through;
    let who = Arc::new(Who {
        params: startup.params.clone(),
        proof: admitted.proof,
    });
    if let Proof::Keys(keys) = &who.proof {
        handle.set_key(keys.verifier().fingerprint());
    }
    let through = passed_through.then_some(&mut stream);
    let first = first_login(&group, &who, through).await;
    let mut client = Leg::new(stream);
    let server = match first {
        Ok(server) => server,
        Err(refusal) => {
            client.queue().extend_from_slice(&refusal);
            let _ = tokio::time::timeout(std::time::Duration::from_secs(1), client.flush()).await;
            return None;
        }
    };
    handle.set_backend(Some((server.target.region.clone(), server.pid)));
    handle.set_state(SessionState::Idle);
    let mut session = Session {
        handle,
        watch,
        client,
        server: None,
        track: Track::default(),
        permit: None,
        unproven: None,
        look,
        targets_seen,
        stock_wanted: false,
        told: Vec::new(),
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
        eyes: Eyes {
            policy: group.settings.policy,
            shelf: group.catalogs.shelf(&database),
        },
        group,
    };
    session.greet(&startup, &server);
    session.track.reported = server.reading();
    session.server = Some(server);
    session.recheck();
    session.log_in_ahead();
    Some(session)
}

/// Logs in on the accepted target; while fenced on the candidate where the target is gone.
/// The error is what the client is to be told, framed.
async fn first_login(
    group: &Arc<Group>,
    who: &Who,
    mut through: Option<&mut Stream>,
) -> Result<Server, Vec<u8>> {
    let started = Instant::now();
    let timeout = group.settings.login_timeout;
    loop {
        let accepted = group.targets.accepted();
        let fenced = group.gate.look(Lane::Sql).phase != Phase::Open;
        let candidate = group.targets.candidate().filter(|_| fenced);
        let mut last = None;
        for target in std::iter::once(accepted).chain(candidate) {
            let as_whom = login_as(&target, who, timeout);
            let made = match &mut through {
                Some(client) => login_through(&target.endpoint, &as_whom, *client).await,
                None => login(&target.endpoint, &as_whom).await,
            };
            match made {
                Ok(connected) => {
                    group.logins.opened(target.region.as_str(), connected.pid);
                    return Ok(Server::new(connected, target));
                }
                Err(e) => last = Some((target, e)),
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
            // The client is in the middle of an exchange with a server that does not go on.
            LoginError::Timeout { .. } if through.is_some() => {
                return Err(unreached(&target, waited, &e));
            }
            LoginError::Server { .. }
            | LoginError::Unreachable { .. }
            | LoginError::Timeout { .. }
                if waited < group.settings.reach_timeout => {}
            _ => return Err(unreached(&target, waited, &e)),
        }
        tokio::time::sleep(std::time::Duration::from_millis(RETRY_MS)).await;
    }
}

fn unreached(target: &Target, waited: std::time::Duration, e: &LoginError) -> Vec<u8> {
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

/// What of a startup packet is not spoken here, if anything.
pub(crate) fn negotiation(out: &mut Vec<u8>, startup: &Startup) {
    if startup.minor > 0 || !startup.options.is_empty() {
        let spoken = NegotiateProtocolVersion::new(SPOKEN, startup.options.clone());
        encode(out, PgWireBackendMessage::NegotiateProtocolVersion(spoken));
    }
}

impl Session {
    /// Tells the client that it is logged in, and what the server said of itself.
    fn greet(&mut self, startup: &Startup, server: &Server) {
        let (id, secret) = (self.handle.id(), self.handle.secret());
        let fenced = self.look.phase != Phase::Open;
        let asks =
            |(name, value): &(String, String)| name == VIRTUAL[0] || value.contains(VIRTUAL[0]);
        let own_wish = startup.params.iter().any(asks);
        let out = self.client.queue();
        put(out, b'R', &[&0i32.to_be_bytes()]);
        for (name, value) in &server.params {
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
        let id = i32::try_from(id).unwrap_or(0);
        encode(
            out,
            PgWireBackendMessage::BackendKeyData(BackendKeyData::new(id, SecretKey::I32(secret))),
        );
        ready(out, b'I');
    }
}

fn encode(out: &mut Vec<u8>, message: PgWireBackendMessage) {
    let mut buf = bytes::BytesMut::new();
    if message.encode(&mut buf).is_ok() {
        out.extend_from_slice(&buf);
    }
}
