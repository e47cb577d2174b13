//! What the fuzz targets call; no part of the product. See `fuzz/`.

pub use crate::pg::fuzzing::{Negotiation, conversation, is_read, scram, startup};
