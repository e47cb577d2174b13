//! A listener's side of TLS.
//!
//! Each connection takes the material in force when it comes; a changed file touches no connection
//! that is there already. Tickets and sessions are not resumed: they would outlive a certificate
//! that was taken back, and connections to databases last.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::error::TlsError;
use super::{end_point, files, provider};
use crate::watched::{Refresh, Watched};

/// Where a listener's material comes from.
#[derive(Clone, Debug)]
pub struct ServerFiles {
    /// Our certificate, then those that link it to its CA.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// CAs of client certificates; given, clients are asked for theirs.
    pub client_ca: Option<PathBuf>,
    /// A client without a certificate is refused.
    pub client_must: bool,
    /// Protocols offered to clients that name theirs.
    pub alpn: Vec<Vec<u8>>,
}

/// What is in force.
#[derive(Debug)]
pub struct ServerMaterial {
    /// For a handshake.
    pub config: Arc<ServerConfig>,
    /// Our certificate's hash for channel binding, where one is defined.
    pub end_point: Option<Arc<[u8]>>,
    key: Arc<CertifiedKey>,
}

/// A listener's certificates, taken anew when their files change.
#[derive(Debug)]
pub struct ServerTls {
    live: Watched<ServerMaterial>,
}

impl ServerTls {
    /// Loads it; `what` names it in the log.
    ///
    /// # Errors
    /// What cannot be used.
    pub fn load(what: String, from: ServerFiles) -> Result<Self, TlsError> {
        let mut paths = vec![from.cert.clone(), from.key.clone()];
        paths.extend(from.client_ca.clone());
        let live = Watched::new(what, paths, move || material(&from))?;
        Ok(Self { live })
    }

    /// What a new connection takes.
    pub fn current(&self) -> Arc<ServerMaterial> {
        self.live.current()
    }
}

impl Refresh for ServerTls {
    fn refresh(&self) {
        self.live.refresh();
    }
}

/// For servers that bring their own rustls configuration.
impl ResolvesServerCert for ServerTls {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current().key))
    }
}

fn material(from: &ServerFiles) -> Result<ServerMaterial, TlsError> {
    let key = files::identity(&from.cert, &from.key)?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?;
    let verifier = match &from.client_ca {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(ca) => {
            let (roots, _) = files::roots(ca)?;
            let check = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let check = if from.client_must {
                check
            } else {
                check.allow_unauthenticated()
            };
            check.build().map_err(TlsError::ClientCheck)?
        }
    };
    let mut config = builder
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&key))));
    config.alpn_protocols.clone_from(&from.alpn);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    let end_point = key.cert.first().and_then(|cert| end_point(cert));
    Ok(ServerMaterial {
        config: Arc::new(config),
        end_point: end_point.map(Arc::from),
        key,
    })
}
