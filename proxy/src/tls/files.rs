//! Certificates and keys out of PEM files.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::error::TlsError;
use super::{certificate, provider};

/// All certificates of a file, in its order.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable)?;
    if found.is_empty() {
        return Err(TlsError::Lacks {
            path: path.to_owned(),
            wanted: "certificate",
        });
    }
    Ok(found)
}

/// A certificate with its chain and its key, known to belong together.
pub(super) fn identity(cert: &Path, key: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates(cert)?;
    if let Some(over) = chain.first().and_then(|cert| certificate::ended(cert)) {
        tracing::warn!(file = %cert.display(), ended = over, "this certificate has expired");
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|source| match source {
        Error::NoItemsFound => TlsError::Lacks {
            path: key.to_owned(),
            wanted: "private key (an encrypted one cannot be used)",
        },
        source => TlsError::Unreadable {
            path: key.to_owned(),
            source,
        },
    })?;
    let joined = CertifiedKey::from_der(chain, private, &provider());
    joined.map(Arc::new).map_err(|source| TlsError::Mismatch {
        cert: cert.to_owned(),
        key: key.to_owned(),
        source,
    })
}

/// The CAs of a file, and the same certificates as they are, since a server's own self-signed
/// certificate is often what stands there.
pub(super) fn roots(
    path: &Path,
) -> Result<(Arc<RootCertStore>, Vec<CertificateDer<'static>>), TlsError> {
    let found = certificates(path)?;
    let mut store = RootCertStore::empty();
    for one in &found {
        store.add(one.clone()).map_err(|source| TlsError::Root {
            path: path.to_owned(),
            source,
        })?;
    }
    Ok((Arc::new(store), found))
}

/// The CAs that this system trusts.
pub(super) fn system_roots() -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        return Err(TlsError::NoSystemRoots);
    }
    Ok(Arc::new(store))
}
