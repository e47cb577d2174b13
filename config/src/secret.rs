//! A value that must never be printed.
//!
//! Every credential of the configuration is a `Secret`. `Debug` and `Display` show a placeholder,
//! there is no `Deref` and no `Serialize`, so the only way to the value is [`Secret::expose`],
//! which is easy to search for. Comparison is meant for reload's diff, not for checking a login.

use std::fmt;

/// A credential; prints as `(secret)`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a value that must not be printed.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself, for the one place that sends it.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}
