//! How a server is spoken to, beyond where it is: TLS, and which use of a password is allowed.
//!
//! It travels with the endpoint, so that whoever connects (sessions, observer, catalog, cancel)
//! speaks to a server in the one way that is configured for its region.

use std::sync::Arc;

use crate::tls::ClientTls;

/// Which use of a password a server may ask for. SCRAM is always one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Methods {
    /// md5.
    pub md5: bool,
    /// Clear text.
    pub cleartext: bool,
}

/// TLS towards a server.
#[derive(Clone, Debug, Default)]
pub enum Security {
    /// Not spoken.
    #[default]
    Plain,
    /// Where the server has it.
    Prefer(Arc<ClientTls>),
    /// Always.
    Require(Arc<ClientTls>),
}

/// How a server is spoken to.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// TLS.
    pub security: Security,
    /// Passwords.
    pub methods: Methods,
}
