//! What we have to show where a server asks who we are.

use std::sync::Arc;

use writefence_config::Secret;

use crate::scram::Keys;

/// What a login can be made with.
#[derive(Clone, Debug, Default)]
pub enum Proof {
    /// Nothing: only a server that asks for nothing lets us in, or one that our certificate convinces.
    #[default]
    None,
    /// A password.
    Password(Secret<String>),
    /// The key that a client's own login left behind.
    Keys(Arc<Keys>),
}

impl From<Option<Secret<String>>> for Proof {
    fn from(password: Option<Secret<String>>) -> Self {
        password.map_or(Self::None, Self::Password)
    }
}
