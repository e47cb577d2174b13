//! Users with their secrets, as a file has them or as the server says.
//!
//! A password's verifier is made once, ahead where the file is loaded, since it takes milliseconds.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use writefence_config::{Secret, Stored, Userlist};

use crate::scram::{BadVerifier, Verifier};
use crate::upstream::wire::Proof;

/// PostgreSQL's default.
pub(super) const ITERATIONS: u32 = 4096;

/// Passwords whose verifiers are made while the file is loaded: a second or two at most. Those
/// beyond are made at the user's first login.
const AHEAD: usize = 500;

/// A user's secret.
#[derive(Debug)]
pub struct User {
    password: Option<Secret<String>>,
    verifier: OnceLock<Option<Verifier>>,
}

impl User {
    /// As it is stored somewhere.
    ///
    /// # Errors
    /// It looks like a verifier and is none.
    pub fn new(stored: &Stored) -> Result<Self, BadVerifier> {
        Ok(match stored {
            Stored::Verifier(text) => Self {
                password: None,
                verifier: OnceLock::from(Some(Verifier::parse(text.expose())?)),
            },
            Stored::Password(password) => Self {
                password: Some(password.clone()),
                verifier: OnceLock::new(),
            },
        })
    }

    /// The verifier, made if it is not there yet: call it where blocking is allowed.
    pub(super) fn verifier(&self) -> Option<&Verifier> {
        let make = || Verifier::of_password(self.password.as_ref()?.expose()).ok();
        self.verifier.get_or_init(make).as_ref()
    }

    /// The verifier, if it is there.
    pub(super) fn made(&self) -> Option<&Verifier> {
        self.verifier.get().and_then(Option::as_ref)
    }

    /// The password, where that is what was stored.
    pub(super) fn password(&self) -> Proof {
        self.password.clone().into()
    }
}

/// All users of a file.
#[derive(Debug, Default)]
pub struct Users {
    users: HashMap<String, Arc<User>>,
    iterations: Option<u32>,
}

impl Users {
    /// Reads a file in PgBouncer's format.
    ///
    /// # Errors
    /// What is wrong with it, without any secret.
    pub fn load(path: &Path) -> Result<Self, String> {
        let named = |what: String| format!("{}: {what}", path.display());
        let mut users = HashMap::new();
        let mut iterations = None;
        for (name, stored) in Userlist::load(path).map_err(named)?.iter() {
            let user =
                User::new(stored).map_err(|e| named(format!("the secret of user {name:?} {e}")))?;
            iterations = iterations.or(user.made().map(Verifier::iterations));
            users.insert(name.to_owned(), Arc::new(user));
        }
        let unmade = users.values().filter(|user| user.made().is_none());
        unmade.take(AHEAD).for_each(|user| {
            user.verifier();
        });
        Ok(Self { users, iterations })
    }

    /// A user.
    pub(super) fn get(&self, name: &str) -> Option<Arc<User>> {
        self.users.get(name).cloned()
    }

    /// What an unknown user's verifier would have.
    pub(super) fn iterations(&self) -> u32 {
        self.iterations.unwrap_or(ITERATIONS)
    }
}
