//! Taking stock: what a session has is asked of its server, and said to whoever wants to know.
//!
//! Asked between transactions only, when a candidate is named or an operator asks; not again while
//! nothing ran that could have changed the answer.

use super::catalog::Model;
use super::message::own;
use super::session::{End, Session};
use super::track::{Asked, DEFAULTS, Defaults, Inventory, LAST_VALUE, question};
use crate::gate::Phase;
use crate::sessions::{Moves, Pin};

impl Session {
    /// It is wanted, and the server is ours for a moment. While fenced only behind wall two, so
    /// that nothing waits for it that the fence needs.
    pub(crate) fn stock_due(&self) -> bool {
        (self.stock_wanted || self.handle.moves_asked())
            && self.track.quiescent()
            && !self.passing
            && (self.look.phase == Phase::Open || self.wall.stands())
    }

    /// Finds out what the session has, as far as that is not known, and says how it would move.
    pub(crate) async fn take_stock(&mut self) -> Result<(), End> {
        let round = self.handle.moves_round();
        if std::mem::take(&mut self.stock_wanted) && self.server.is_some() {
            self.ask_defaults().await?;
        }
        if !self.track.known() && self.server.is_some() {
            self.ask_stock().await?;
        }
        self.tell_moves();
        self.handle.answer_moves(round);
        Ok(())
    }

    /// Asked of every session that is to move, since others alter what it would log in to.
    async fn ask_defaults(&mut self) -> Result<(), End> {
        let mut message = Vec::new();
        own(&mut message, DEFAULTS);
        let told = self.question(&message, 1).await?;
        let told = told.filter(|answer| answer.error.is_none());
        if let Some(defaults) = told.and_then(|answer| Defaults::read(&answer.rows)) {
            self.track.took(defaults);
        }
        Ok(())
    }

    /// Says how the session would move, as far as is known.
    pub(crate) fn tell_moves(&self) {
        let refused = self.refused.as_ref().map(|error| Pin {
            kind: "login_refused",
            reason: format!("its login on the candidate was refused: {error}"),
        });
        self.handle.set_moves(Moves {
            replays: self.replays(),
            pins: self.pins().into_iter().chain(refused).collect(),
        });
    }

    /// A server that does not tell leaves what was learned as it is: it is asked again at the move.
    async fn ask_stock(&mut self) -> Result<(), End> {
        let mut message = Vec::new();
        {
            let catalog = self.eyes.shelf.catalog();
            let of_routines = catalog.model().into_iter().flat_map(Model::parameters);
            let names = self.track.sets.custom_names().chain(of_routines);
            own(&mut message, &question(names));
        }
        let walled = self.wall.stands();
        let told = self.question(&message, 1).await?;
        let Some(mut told) = told
            .filter(|answer| answer.error.is_none())
            .and_then(|answer| Inventory::read(&answer.rows))
        else {
            return Ok(());
        };
        if self.track.sets.reads_sequences() {
            message.clear();
            own(&mut message, LAST_VALUE);
            let value = self.question(&message, 1).await?;
            if value.is_some_and(|answer| answer.error.is_none()) {
                told.has_sequence_values();
            }
        }
        let startup = self.who.params.iter().find(|(name, _)| name == "user");
        let login = self.server.as_ref().and_then(|s| s.target.user.clone());
        let login = login.or_else(|| startup.map(|(_, user)| user.clone()));
        let asked = Asked {
            walled,
            login: &login.unwrap_or_default(),
        };
        self.track.adopt(told, asked, &self.eyes);
        Ok(())
    }

    /// Why the session cannot be moved, as far as is known.
    pub(crate) fn pins(&self) -> Vec<Pin> {
        let statements = self.track.statements.pin().map(|reason| Pin {
            kind: "prepared_statement",
            reason,
        });
        let login = self.passed_through.then(|| Pin {
            kind: "passthrough",
            reason: "its login was settled between client and server (auth = \"passthrough\")"
                .into(),
        });
        let all = login.into_iter().chain(self.track.sets.pins());
        all.chain(statements).collect()
    }

    /// It cannot be moved, as far as is known.
    pub(crate) fn pinned(&self) -> bool {
        self.passed_through
            || self.track.statements.pin().is_some()
            || self.track.sets.pins().next().is_some()
    }

    /// What would be replayed, in words.
    fn replays(&self) -> Vec<String> {
        let (sets, statements) = (&self.track.sets, &self.track.statements);
        let mut all = sets.names();
        let count = statements.named().count() + statements.sql.len();
        match count {
            0 => {}
            1 => all.push("1 prepared statement".into()),
            n => all.push(format!("{n} prepared statements")),
        }
        all.extend(
            sets.listens
                .iter()
                .map(|channel| format!("LISTEN {channel}")),
        );
        all
    }
}
