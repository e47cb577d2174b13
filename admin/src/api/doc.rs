//! The envelope of every top-level document, and the rule of versions.
//!
//! `"api": 1` stands first in each document. A reader refuses any other number instead of
//! guessing: the two programs are installed together, and a wrong guess about a phase is worse
//! than no answer. Fields may be added without raising the number.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The version of the documents. Raised only when a field changes its meaning or disappears.
pub const API: u64 = 1;

/// The `api` field: always written as [`API`], and nothing else is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Api;

impl Serialize for Api {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(API)
    }
}

impl<'de> Deserialize<'de> for Api {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let found = u64::deserialize(from)?;
        if found == API {
            return Ok(Self);
        }
        Err(de::Error::custom(format!(
            "the document has api version {found}, this program reads version {API}; \
             install the daemon and writefencectl of one release"
        )))
    }
}

/// A document as it crosses the socket: the version, then the body's own fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doc<T> {
    /// Always 1.
    pub api: Api,
    /// The document itself; its fields stand beside `api`.
    #[serde(flatten)]
    pub body: T,
}

impl<T> Doc<T> {
    /// Wraps a body.
    pub const fn new(body: T) -> Self {
        Self { api: Api, body }
    }
}
