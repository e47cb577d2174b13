//! Why certificates cannot be used, and why a handshake towards a server failed.

use std::io;
use std::path::PathBuf;

/// What is wrong with the material, each with its file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read or is not PEM.
    #[error("{} cannot be read as PEM", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rustls::pki_types::pem::Error,
    },
    /// Nothing that is needed is in the file.
    #[error("{} holds no {wanted}", path.display())]
    Lacks {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
    /// The certificate and the key do not belong together, or the key is of a kind nobody uses.
    #[error("the key in {} does not go with the certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What the library says.
        source: rustls::Error,
    },
    /// A CA certificate cannot be used.
    #[error("{} holds a CA certificate that cannot be used", path.display())]
    Root {
        /// The file.
        path: PathBuf,
        /// What the library says.
        source: rustls::Error,
    },
    /// How client certificates are checked could not be set up.
    #[error("client certificates cannot be checked")]
    ClientCheck(#[source] rustls::server::VerifierBuilderError),
    /// The system has no CA certificates.
    #[error("the system has no CA certificates; give tls.ca")]
    NoSystemRoots,
    /// The library refuses the whole.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// A name that no certificate can carry.
pub(super) fn bad_name(host: &str) -> io::Error {
    let what =
        format!("{host:?} is neither a DNS name nor an address, so no certificate can be for it");
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
