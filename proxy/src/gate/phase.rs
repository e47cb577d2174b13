//! Lanes, phases, and the table of legal moves between them.
//!
//! Pure: what a lane looks like after a move depends on what it looked like before, nothing else.
//! `releasing` is a third standing besides open and fenced: writes pass again, but those that
//! waited leave first and newcomers queue behind them.

use super::epoch::Epoch;

/// The two kinds of traffic of a group; TCP belongs to `Sql`. Both share one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// HTTP requests.
    Http,
    /// PostgreSQL sessions and opaque TCP connections.
    Sql,
}

impl Lane {
    /// Both lanes, in the order in which they are fenced.
    pub const ALL: [Self; 2] = [Self::Http, Self::Sql];

    pub(super) const fn index(self) -> usize {
        match self {
            Self::Http => 0,
            Self::Sql => 1,
        }
    }
}

/// How a fence answers a new write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// It waits, bounded in number, bytes and time.
    Hold,
    /// It is refused at once.
    Reject,
}

/// Whether a lane lets writes pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Writes are admitted.
    Open,
    /// No new write is admitted (G1).
    Fenced(Answer),
}

/// What one load of a lane's word shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Look {
    /// Epoch of the last phase change of the gate.
    pub epoch: Epoch,
    /// Phase of the lane.
    pub phase: Phase,
    /// The lane is open, but held writes leave first: newcomers park behind them.
    pub releasing: bool,
}

/// What may happen to a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// It is fenced, or fenced again with another answer.
    Fence(Answer),
    /// It opens, and nobody is left waiting.
    Open,
    /// It opens, and some that waited have still to be called.
    OpenReleasing,
    /// The other lane moved: the phase stays, the epoch is shared.
    Stand,
    /// The last one waiting was called: newcomers need not queue any more.
    Released,
}

impl Look {
    /// The lane after `step`, or `None` where the move is not legal. Everything but the end of a
    /// release is a phase change of the gate and so raises the epoch (G3).
    pub(super) const fn after(self, step: Move) -> Option<Self> {
        let epoch = self.epoch.next();
        match (step, self.phase, self.releasing) {
            (Move::Fence(answer), _, _) => Some(Self {
                epoch,
                phase: Phase::Fenced(answer),
                releasing: false,
            }),
            (Move::Open, _, _) => Some(Self {
                epoch,
                phase: Phase::Open,
                releasing: false,
            }),
            (Move::OpenReleasing, _, _) => Some(Self {
                epoch,
                phase: Phase::Open,
                releasing: true,
            }),
            (Move::Stand, phase, releasing) => Some(Self {
                epoch,
                phase,
                releasing,
            }),
            (Move::Released, Phase::Open, true) => Some(Self {
                releasing: false,
                ..self
            }),
            (Move::Released, Phase::Open, false) | (Move::Released, Phase::Fenced(_), _) => None,
        }
    }

    /// Whether a write may pass that asks as `pass`.
    pub(super) const fn admits(self, pass: Pass) -> bool {
        match (self.phase, self.releasing, pass) {
            (Phase::Open, false, _) | (Phase::Open, true, Pass::Called) => true,
            (Phase::Open, true, Pass::Newcomer) | (Phase::Fenced(_), _, _) => false,
        }
    }
}

/// Who asks for admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// A write that has not waited, or whose turn has not come.
    Newcomer,
    /// A held write that was called. That is a rumour, not an admission: it only may go ahead of
    /// newcomers.
    Called,
}
