//! The servers behind, one per region: where they are and what they speak.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use writefence_config::HttpVersion;

use super::FrontError;
use super::pool::Need;
use crate::tls::{ClientFiles, ClientTls, Level, Stream};

/// The HTTP origin of a region.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) region: String,
    tls: Option<ClientTls>,
    /// For what cannot go over HTTP/2.
    tls_http1: Option<ClientTls>,
    host: String,
    port: u16,
    version: HttpVersion,
}

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    Http1,
    Http2,
}

/// Why an origin cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{url:?} of region {region} is no origin such as http://10.0.0.1:8080")]
pub struct BadOrigin {
    region: String,
    url: String,
}

/// Host and port of an origin's URL; `None` for what is no URL of one.
pub fn address(url: &str) -> Option<(String, u16)> {
    let uri: http::Uri = url.parse().ok()?;
    let port = match uri.scheme_str()? {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let host = uri.host()?.trim_matches(['[', ']']).to_owned();
    Some((host, uri.port_u16().unwrap_or(port)))
}

impl Origin {
    /// Reads a region's `http`.
    pub(super) fn new(
        region: &str,
        url: &str,
        version: HttpVersion,
        ca: Option<PathBuf>,
    ) -> Result<Self, FrontError> {
        let bad = || BadOrigin {
            region: region.to_owned(),
            url: url.to_owned(),
        };
        let bad = || FrontError::Origin(bad());
        let (host, port) = address(url).ok_or_else(bad)?;
        let tls = url
            .get(..6)
            .is_some_and(|s| s.eq_ignore_ascii_case("https:"));
        let open = |version| {
            let load = || client(region, version, ca.clone());
            tls.then(load).transpose()
        };
        Ok(Self {
            region: region.to_owned(),
            host,
            port,
            tls_http1: open(HttpVersion::Http1)?,
            tls: open(version)?,
            version,
        })
    }

    pub(super) const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// What is spoken where the connection does not decide it. gRPC needs HTTP/2.
    pub(super) const fn speaks(&self, need: Need) -> Speaks {
        match (self.version, need) {
            (_, Need::Upgrade) => Speaks::Http1,
            (HttpVersion::Http2, _) | (HttpVersion::Auto, Need::Grpc) => Speaks::Http2,
            (HttpVersion::Http1, _) | (HttpVersion::Auto, Need::Any) => Speaks::Http1,
        }
    }

    /// Opens a connection. Each address of the name is tried.
    pub(super) async fn connect(&self, need: Need, within: Duration) -> io::Result<Stream> {
        let connect = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            // Without it small requests would wait for delayed acknowledgements.
            let _ = stream.set_nodelay(true);
            let tls = match need {
                Need::Upgrade => &self.tls_http1,
                Need::Any | Need::Grpc => &self.tls,
            };
            match tls {
                None => Ok(Stream::Plain(stream)),
                Some(tls) => tls.connect(stream, &self.host).await,
            }
        };
        let opened = timeout(within, connect).await;
        opened.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

fn client(
    region: &str,
    version: HttpVersion,
    ca: Option<PathBuf>,
) -> Result<ClientTls, FrontError> {
    let what = format!("HTTP origin of region {region}");
    let (h1, h2) = (b"http/1.1".to_vec(), b"h2".to_vec());
    let files = ClientFiles {
        level: Level::Full,
        ca,
        identity: None,
        alpn: match version {
            HttpVersion::Auto => vec![h2, h1],
            HttpVersion::Http1 => vec![h1],
            HttpVersion::Http2 => vec![h2],
        },
    };
    ClientTls::load(what.clone(), files).map_err(|source| FrontError::Tls {
        what,
        source: Box::new(source),
    })
}
