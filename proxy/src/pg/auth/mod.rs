//! Who a client is: the listener's way of finding out, and what is left for logging in upstream.
//!
//! `exchange` speaks SCRAM with the client, `secrets` and `query` know what to check it against,
//! `throttle` slows down who guesses. Unknown and forbidden users get the same exchange, the same
//! work and the same words as a wrong password. Nothing here talks to the session's own server,
//! but `query`, through a login of its own.

mod exchange;
mod query;
mod secrets;
mod throttle;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use writefence_config::Auth;

use super::door::Door;
use super::message::Report;
use super::refuse::refused;
use super::startup::Startup;
use crate::scram;
use crate::tls::common_name;
use crate::upstream::Targets;
use crate::upstream::wire::Proof;

#[cfg(feature = "fuzzing")]
pub(super) use exchange::initial;
pub use query::AuthQuery;
pub use secrets::{User, Users};
pub use throttle::Throttle;

/// A client that has shown who it is.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    /// What its login left behind for logging in upstream.
    pub(crate) proof: Proof,
    /// Nothing was asked: client and server are to settle it.
    pub(crate) passed_through: bool,
}

/// What is known of a client before it has said anything about itself.
#[derive(Clone, Copy)]
pub(crate) struct Peer<'a> {
    pub(crate) address: SocketAddr,
    /// The hash of our certificate, on an encrypted connection.
    pub(crate) end_point: Option<&'a [u8]>,
    /// Its own certificate.
    pub(crate) certificate: Option<&'a [u8]>,
}

/// Why a client is not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Denied {
    #[error("the connection was lost during the login")]
    Gone(#[from] std::io::Error),
    #[error("not done within {0:?}")]
    Slow(Duration),
    #[error("{0}")]
    Offence(&'static str),
    #[error("{0}")]
    Scram(#[from] scram::Offence),
    /// Wrong, unknown and not listed are one thing to the client.
    #[error("password authentication failed for user \"{0}\"")]
    Password(String),
    #[error("too many failed logins for user \"{user}\" from {from}")]
    Throttled {
        user: String,
        from: std::net::IpAddr,
        wait: Duration,
    },
    #[error("user \"{0}\" may not log in at this listener")]
    User(String),
    #[error("database \"{0}\" is not served by this listener")]
    Database(String),
    #[error("the client's certificate is for {found}, which is not good for user \"{user}\"")]
    Certificate { found: String, user: String },
    #[error("the user's secret could not be looked up: {0}")]
    NoLookup(String),
}

impl Denied {
    /// What the client is told; `None` where nobody listens any more.
    pub(crate) fn report(&self) -> Option<Report> {
        let say =
            |sqlstate: &str, hint: Option<String>| Some(refused(sqlstate, self.to_string(), hint));
        match self {
            Self::Gone(_) => None,
            Self::Slow(_) | Self::Offence(_) | Self::Scram(_) => say("08P01", None),
            Self::Password(_) => say("28P01", None),
            Self::Throttled { wait, .. } => {
                let wait = format!("The next attempt is looked at in {} ms.", wait.as_millis());
                say("28000", Some(wait))
            }
            Self::User(_) | Self::Database(_) | Self::Certificate { .. } => say("28000", None),
            // What the server said of it is for the log.
            Self::NoLookup(_) => Some(refused(
                "57P03",
                "the user's secret could not be looked up".to_owned(),
                Some("The server that knows it cannot be asked now; try again.".to_owned()),
            )),
        }
    }
}

/// Finds out who the client is.
pub(crate) async fn admit<S>(
    door: &Door,
    targets: &Targets,
    stream: &mut S,
    peer: Peer<'_>,
    startup: &Startup,
) -> Result<Admitted, Denied>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let user = startup.param("user").unwrap_or_default();
    let listed = door.users.as_ref().is_none_or(|users| users.contains(user));
    let known = door.secrets.as_ref().map(|secrets| secrets.current());
    let own = || match known.as_ref().and_then(|known| known.get(user)) {
        Some(user) => user.password(),
        None => Proof::None,
    };
    let admitted = match door.auth {
        Auth::Scram => Admitted {
            proof: exchange::scram(door, targets, stream, peer, user, listed).await?,
            passed_through: false,
        },
        _ if !listed => return Err(Denied::User(user.to_owned())),
        Auth::Trust => Admitted {
            proof: own(),
            passed_through: false,
        },
        Auth::Cert => {
            certificate(door, peer, user)?;
            Admitted {
                proof: own(),
                passed_through: false,
            }
        }
        Auth::Passthrough => Admitted {
            proof: Proof::None,
            passed_through: true,
        },
    };
    let database = startup.param("database").filter(|d| !d.is_empty());
    let database = database.unwrap_or(user);
    if door
        .databases
        .as_ref()
        .is_some_and(|all| !all.contains(database))
    {
        return Err(Denied::Database(database.to_owned()));
    }
    Ok(admitted)
}

/// The certificate itself was checked in the handshake.
fn certificate(door: &Door, peer: Peer<'_>, user: &str) -> Result<(), Denied> {
    let name = peer.certificate.and_then(common_name);
    let good = name.as_ref().is_some_and(|name| match &door.cert_map {
        Some(map) => map.current().allows(name, user),
        None => name == user,
    });
    if good {
        return Ok(());
    }
    Err(Denied::Certificate {
        found: name.map_or("nobody".to_owned(), |name| format!("\"{name}\"")),
        user: user.to_owned(),
    })
}
