//! The HTTP front.
//!
//! Reading order: `classify` (whether a request may write).

pub mod classify;
