//! How far a server's certificate is checked: libpq's `require`, `verify-ca`, `verify-full`.
//!
//! Two things are as libpq has them and rustls alone does not: a self-signed certificate is
//! trusted where it stands among the CAs itself, and a certificate without alternative names is
//! for its common name.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::certificate::{common_name, has_alternative_names, valid_at};

/// How far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Whoever has the key of the certificate that is shown.
    Any,
    /// A certificate of the CA.
    Ca,
    /// A certificate of the CA for the host's name.
    Full,
}

#[derive(Debug)]
pub(super) struct ServerCheck {
    level: Level,
    roots: Arc<RootCertStore>,
    own: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCheck {
    pub(super) fn new(
        level: Level,
        roots: Arc<RootCertStore>,
        own: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        Self {
            level,
            roots,
            own,
            provider,
        }
    }

    fn chain(
        &self,
        cert: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.own.iter().any(|own| own == cert) {
            return match valid_at(cert, now.as_secs()) {
                Some(Ok(())) => Ok(()),
                Some(Err(true)) => Err(CertificateError::Expired.into()),
                Some(Err(false)) => Err(CertificateError::NotValidYet.into()),
                None => Err(CertificateError::BadEncoding.into()),
            };
        }
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )
    }
}

fn name(
    cert: &CertificateDer<'_>,
    parsed: &ParsedCertificate<'_>,
    wanted: &ServerName<'_>,
) -> Result<(), Error> {
    let error = match verify_server_name(parsed, wanted) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let found = common_name(cert).filter(|_| !has_alternative_names(cert));
    let same = found.is_some_and(|found| covers(&found, &wanted.to_str()));
    if same { Ok(()) } else { Err(error) }
}

/// Whether a common name is for a host: equal, or a star for its first label.
fn covers(found: &str, host: &str) -> bool {
    let rest = || {
        let (first, rest) = host.split_once('.')?;
        (!first.is_empty() && rest.contains('.')).then_some(rest)
    };
    found.eq_ignore_ascii_case(host)
        || found
            .strip_prefix("*.")
            .is_some_and(|found| rest().is_some_and(|rest| found.eq_ignore_ascii_case(rest)))
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        wanted: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(cert);
        match self.level {
            Level::Any => {}
            Level::Ca => self.chain(cert, &parsed?, intermediates, now)?,
            Level::Full => {
                let parsed = parsed?;
                self.chain(cert, &parsed, intermediates, now)?;
                name(cert, &parsed, wanted)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_star_stands_for_one_label_below_a_domain() {
        assert!(covers("DB.example.com", "db.example.com"));
        assert!(covers("*.example.com", "db.example.com"));
        for (found, host) in [
            ("*.example.com", "a.b.example.com"),
            ("*.example.com", "example.com"),
            ("*.com", "example.com"),
            ("*", "db"),
            ("db", "db2"),
        ] {
            assert!(!covers(found, host), "{found} {host}");
        }
    }
}
