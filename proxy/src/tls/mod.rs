//! TLS for every leg: certificates from files, taken anew when the files change, and one stream for
//! encrypted and plain connections.
//!
//! `ServerTls` is a listener's side and can be shared by fronts of any protocol (it is a rustls
//! certificate resolver as well), `ClientTls` is ours towards a server with libpq's sslmodes.
//! rustls with ring, chosen here explicitly: no default of the process is asked or set. Nothing
//! here knows PostgreSQL or HTTP beyond the ALPN names it is given.

mod certificate;
mod client;
mod error;
mod files;
mod server;
mod stream;
#[cfg(test)]
mod tests;
mod verify;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use certificate::{common_name, end_point};
pub use client::{ClientFiles, ClientTls};
pub use error::TlsError;
pub use server::{ServerFiles, ServerMaterial, ServerTls};
pub use stream::Stream;
pub use verify::Level;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
