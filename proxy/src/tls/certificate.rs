//! What is read out of a certificate besides its key: names, validity, and its hash for channel
//! binding.

use ring::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::signature_algorithm::SignatureAlgorithm;

/// The hash that `tls-server-end-point` binds to (RFC 5929, 4.1): that of the certificate's own
/// signature, but SHA-256 in place of MD5 and SHA-1. `None` where the signature has no hash of its
/// own, as with Ed25519: for those no binding is defined.
pub fn end_point(der: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let signature = &certificate.signature_algorithm;
    let hash = match signature.algorithm.to_id_string().as_str() {
        // RSA and ECDSA with MD5, SHA-1 or SHA-256.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => &SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &SHA512,
        "1.2.840.113549.1.1.10" => match SignatureAlgorithm::try_from(signature).ok()? {
            SignatureAlgorithm::RSASSA_PSS(pss) => {
                of_pss(pss.hash_algorithm_oid().to_id_string().as_str())?
            }
            _ => return None,
        },
        _ => return None,
    };
    Some(digest(hash, der).as_ref().to_vec())
}

fn of_pss(oid: &str) -> Option<&'static Algorithm> {
    match oid {
        // SHA-1 is its default.
        "1.3.14.3.2.26" | "2.16.840.1.101.3.4.2.1" => Some(&SHA256),
        "2.16.840.1.101.3.4.2.2" => Some(&SHA384),
        "2.16.840.1.101.3.4.2.3" => Some(&SHA512),
        _ => None,
    }
}

/// The subject's common name; `None` where there is none, or more than one, or it holds a zero byte.
pub fn common_name(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?.to_owned();
    (names.next().is_none() && !name.is_empty() && !name.contains('\0')).then_some(name)
}

/// Whether it is for some name at all in the place where names stand today.
pub(super) fn has_alternative_names(der: &[u8]) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return true;
    };
    let Ok(found) = certificate.subject_alternative_name() else {
        return true;
    };
    found.is_some_and(|names| {
        let counts = |name: &GeneralName<'_>| {
            matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_))
        };
        names.value.general_names.iter().any(counts)
    })
}

/// Whether it is valid at this time, in seconds since 1970; `None` if it cannot be read.
pub(super) fn valid_at(der: &[u8], seconds: u64) -> Option<Result<(), bool>> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let now = i64::try_from(seconds).ok()?;
    let validity = certificate.validity();
    if now > validity.not_after.timestamp() {
        return Some(Err(true));
    }
    if now < validity.not_before.timestamp() {
        return Some(Err(false));
    }
    Some(Ok(()))
}

/// When it ended, if it has.
pub(super) fn ended(der: &[u8]) -> Option<String> {
    let now = rustls::pki_types::UnixTime::now().as_secs();
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let ended = valid_at(der, now)? == Err(true);
    ended.then(|| certificate.validity().not_after.to_string())
}
