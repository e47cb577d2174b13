//! Secrets asked of the accepted server, as PgBouncer's `auth_query` does.
//!
//! One connection, the observer's login, one question at a time; answers are kept for seconds while
//! the server can be asked and for an hour while it cannot, so that clients can log in during a move.
//! A wrong password drops what was kept: it may have been changed a moment ago.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use writefence_config::{Secret, Stored};

use super::secrets::User;
use crate::scram::Verifier;
use crate::upstream::wire::{Client, Login, QueryError, Row};
use crate::upstream::{Endpoint, Target, Targets};

/// An answer is taken again without a question for this long: a pool that opens its connections
/// asks once, a changed password counts within seconds.
const FRESH: Duration = Duration::from_secs(5);
/// An answer is taken for this long while the server cannot be asked.
const STALE: Duration = Duration::from_secs(3600);
/// Answers that are kept. Full, those about nobody go first, whoever has made up the names: the
/// others are what clients log in with during a move. Then all that are not fresh.
const KEPT: usize = 10_000;
/// PostgreSQL cuts names at this length; a longer one is nobody's.
const NAME: usize = 63;
/// Attempts where the server ends the connection, as a move of the primary may.
const TRIES: u32 = 3;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(20);
/// They are made within this time: a server that is silent is not waited for again.
const TRIED: Duration = Duration::from_millis(500);

type How = Box<dyn Fn(&Target) -> Login + Send + Sync>;

/// Asks the accepted server.
pub struct AuthQuery {
    sql: String,
    how: How,
    line: Mutex<Option<Client>>,
    kept: StdMutex<HashMap<String, Kept>>,
    iterations: AtomicU32,
}

#[derive(Clone)]
struct Kept {
    user: Option<Arc<User>>,
    at: Instant,
}

impl AuthQuery {
    /// Asks with this query and this login.
    pub fn new(sql: String, how: How) -> Self {
        Self {
            sql,
            how,
            line: Mutex::default(),
            kept: StdMutex::default(),
            iterations: AtomicU32::new(0),
        }
    }

    /// What the server knows of a user; `None`: nothing that could be logged in with.
    pub(super) async fn find(
        &self,
        targets: &Targets,
        user: &str,
    ) -> Result<Option<Arc<User>>, String> {
        if user.len() > NAME {
            return Ok(None);
        }
        if let Some(kept) = self.kept(user, FRESH) {
            return Ok(kept.user);
        }
        let mut line = self.line.lock().await;
        // Whoever was before us may have asked the same.
        if let Some(kept) = self.kept(user, FRESH) {
            return Ok(kept.user);
        }
        let began = Instant::now();
        let mut asked = self.ask(&mut line, &targets.accepted(), user).await;
        for _ in 1..TRIES {
            // The server has ended the connection, as a move of the primary does; it only reads.
            let quick = began.elapsed() < TRIED;
            let ended = asked.is_err() && quick && !line.as_ref().is_some_and(Client::is_usable);
            if !ended {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            asked = self.ask(&mut line, &targets.accepted(), user).await;
        }
        match asked {
            Ok(found) => {
                self.keep(user, found.clone());
                Ok(found)
            }
            Err(error) => match self.kept(user, STALE) {
                Some(kept) => Ok(kept.user),
                None => {
                    tracing::warn!(user, error, "auth_query could not be asked");
                    Err(error)
                }
            },
        }
    }

    /// A login with what is kept has failed.
    pub(super) fn doubt(&self, user: &str) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(one) = kept.get_mut(user)
            && let Some(before) = Instant::now().checked_sub(FRESH)
        {
            one.at = one.at.min(before);
        }
    }

    /// Of the last verifier that was found.
    pub(super) fn iterations(&self) -> Option<u32> {
        Some(self.iterations.load(Ordering::Relaxed)).filter(|n| *n > 0)
    }

    fn kept(&self, user: &str, within: Duration) -> Option<Kept> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(user)
            .filter(|one| one.at.elapsed() < within)
            .cloned()
    }

    fn keep(&self, user: &str, found: Option<Arc<User>>) {
        let now = Instant::now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.retain(|_, one| one.user.is_some());
        }
        if kept.len() >= KEPT {
            kept.retain(|_, one| one.at.elapsed() < FRESH);
        }
        if kept.len() < KEPT {
            let one = Kept {
                user: found,
                at: now,
            };
            kept.insert(user.to_owned(), one);
        }
    }

    async fn ask(
        &self,
        line: &mut Option<Client>,
        target: &Target,
        user: &str,
    ) -> Result<Option<Arc<User>>, String> {
        let text = |e: &dyn std::error::Error| super::super::replay::chain(e);
        let question = question(&self.sql, user);
        let usable = |client: &mut Client| {
            let same = |endpoint: &Endpoint| *endpoint == target.endpoint;
            client.is_usable() && client.is_quiet() && same(client.endpoint())
        };
        if !line.as_mut().is_some_and(usable) {
            *line = None;
            let client = Client::connect(&target.endpoint, &(self.how)(target)).await;
            *line = Some(client.map_err(|e| text(&e))?);
        }
        let Some(client) = line else {
            return Err("no connection".to_owned());
        };
        let answer = client.query_all(&question).await;
        let rows = answer.map_err(|e| {
            if !matches!(e, QueryError::Server { .. }) {
                *line = None;
            }
            text(&e)
        })?;
        // The results of DEALLOCATE, PREPARE and EXECUTE: only one of them can have rows.
        let row = rows.into_iter().flatten().next();
        Ok(row.and_then(|row| self.read(user, &row)))
    }

    fn read(&self, user: &str, row: &Row) -> Option<Arc<User>> {
        let secret = row.get(1)?.clone().filter(|secret| !secret.is_empty())?;
        let stored = match secret {
            hash if is_md5(&hash) => {
                tracing::warn!(user, "auth_query gives an md5 hash, which SCRAM cannot use");
                return None;
            }
            text if text.starts_with("SCRAM-SHA-256$") => Stored::Verifier(Secret::new(text)),
            text => Stored::Password(Secret::new(text)),
        };
        let found = User::new(&stored).ok()?;
        if let Some(made) = found.made().map(Verifier::iterations) {
            self.iterations.store(made, Ordering::Relaxed);
        }
        Some(Arc::new(found))
    }
}

fn is_md5(text: &str) -> bool {
    let hash = text.strip_prefix("md5");
    hash.is_some_and(|hash| hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The query with its `$1`, prepared so that the name is a value whatever is in it. The form of
/// literal reads the same whatever `standard_conforming_strings` says. Forgotten first: a query that
/// has failed leaves its statement behind, which is not undone with the rest.
fn question(sql: &str, user: &str) -> String {
    let sql = sql.trim_end().trim_end_matches(';');
    let name = user.replace('\\', "\\\\").replace('\'', "''");
    format!(
        "DEALLOCATE ALL; PREPARE writefence_auth (text) AS {sql}; EXECUTE writefence_auth (E'{name}')"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_names_do_not_drive_out_who_is_known() {
        let how: How = Box::new(|_| unreachable!("nobody is asked"));
        let query = AuthQuery::new(String::new(), how);
        let known = User::new(&Stored::Password(Secret::new("x".to_owned()))).ok();
        query.keep("known", known.map(Arc::new));
        query.doubt("known"); // As after five seconds.
        for n in 0..2 * KEPT {
            query.keep(&format!("made up {n}"), None);
        }
        let found = query.kept("known", STALE).and_then(|kept| kept.user);
        assert!(found.is_some());
        assert!(query.kept.lock().expect("no panic").len() <= KEPT);
    }

    #[test]
    fn a_name_is_a_value_whatever_is_in_it() {
        let asked = question(
            "SELECT a, b FROM c WHERE d = $1 ;",
            r"x'\'; DROP TABLE t; --",
        );
        assert_eq!(
            asked,
            r"DEALLOCATE ALL; PREPARE writefence_auth (text) AS SELECT a, b FROM c WHERE d = $1 ; EXECUTE writefence_auth (E'x''\\''; DROP TABLE t; --')"
        );
    }
}
