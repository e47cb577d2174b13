//! Our side of TLS towards a server, with libpq's words for how far it is checked.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::error::{TlsError, bad_name};
use super::verify::{Level, ServerCheck};
use super::{Stream, files, provider};
use crate::watched::{Refresh, Watched};

/// Where our material comes from.
#[derive(Clone, Debug)]
pub struct ClientFiles {
    /// How far the server's certificate is checked.
    pub level: Level,
    /// Its CAs; none: the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Protocols that we name.
    pub alpn: Vec<Vec<u8>>,
}

/// What is needed to open an encrypted connection, taken anew when its files change.
#[derive(Debug)]
pub struct ClientTls {
    level: Level,
    live: Watched<Arc<ClientConfig>>,
}

impl ClientTls {
    /// Loads it; `what` names it in the log.
    ///
    /// # Errors
    /// What cannot be used.
    pub fn load(what: String, from: ClientFiles) -> Result<Self, TlsError> {
        let mut paths = Vec::new();
        paths.extend(from.ca.clone());
        if let Some((cert, key)) = &from.identity {
            paths.extend([cert.clone(), key.clone()]);
        }
        let level = from.level;
        let live = Watched::new(what, paths, move || config(&from))?;
        Ok(Self { level, live })
    }

    /// Does the handshake with `host` on a connection whose peer has agreed to it.
    ///
    /// # Errors
    /// The peer's certificate is not accepted, ours is not, or the connection broke.
    pub async fn connect(&self, stream: TcpStream, host: &str) -> io::Result<Stream> {
        let name = match ServerName::try_from(host.to_owned()) {
            Ok(name) => name,
            Err(_) if self.level == Level::Full => return Err(bad_name(host)),
            // Only what would be sent as a hint, and nobody looks at it.
            Err(_) => ServerName::try_from("unnamed.invalid").map_err(|_| bad_name(host))?,
        };
        let connector = TlsConnector::from(Arc::clone(&*self.live.current()));
        Ok(Stream::tls(connector.connect(name, stream).await?))
    }
}

impl Refresh for ClientTls {
    fn refresh(&self) {
        self.live.refresh();
    }
}

fn config(from: &ClientFiles) -> Result<Arc<ClientConfig>, TlsError> {
    let check = match (&from.ca, from.level) {
        (Some(ca), level) => {
            let (roots, own) = files::roots(ca)?;
            ServerCheck::new(level, roots, own, provider())
        }
        (None, Level::Any) => ServerCheck::new(
            Level::Any,
            Arc::new(RootCertStore::empty()),
            Vec::new(),
            provider(),
        ),
        (None, level) => ServerCheck::new(level, files::system_roots()?, Vec::new(), provider()),
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(check));
    let mut config = match &from.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let key = files::identity(cert, key)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
        }
    };
    config.alpn_protocols.clone_from(&from.alpn);
    // A login is rare and PostgreSQL resumes nothing.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
