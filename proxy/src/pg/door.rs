//! What a listener asks of whoever comes: encryption, a proof, a place on its lists.
//!
//! Built once per listener by `app`. What stands in files is looked up anew for each login.

use std::collections::HashSet;
use std::sync::Arc;

use writefence_config::{Auth, CertMap};

use super::auth::{AuthQuery, Throttle, Users};
use crate::tls::ServerTls;
use crate::watched::Watched;

/// A listener's rules.
pub struct Door {
    /// How a session proves who it is.
    pub auth: Auth,
    /// Our certificate; none: TLS is not spoken.
    pub tls: Option<Arc<ServerTls>>,
    /// Sessions in plain text are refused.
    pub must_encrypt: bool,
    /// Users with their secrets.
    pub secrets: Option<Arc<Watched<Users>>>,
    /// Asks the server for the secrets of others.
    pub query: Option<AuthQuery>,
    /// Which users a client certificate is good for; none: the one it names.
    pub cert_map: Option<Arc<Watched<CertMap>>>,
    /// Who may log in; none: whoever proves to be somebody.
    pub users: Option<HashSet<String>>,
    /// What may be logged in to; none: everything.
    pub databases: Option<HashSet<String>>,
    /// What unknown users' exchanges are made of, so that they look like those of known ones.
    pub mock: [u8; 32],
    /// Slows down who guesses.
    pub throttle: Throttle,
}

impl Door {
    /// Everyone is believed, in plain text.
    pub fn trusting() -> Self {
        Self {
            auth: Auth::Trust,
            tls: None,
            must_encrypt: false,
            secrets: None,
            query: None,
            cert_map: None,
            users: None,
            databases: None,
            mock: [0; 32],
            throttle: Throttle::default(),
        }
    }
}
