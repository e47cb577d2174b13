//! Which record may stand where in a journal.
//!
//! The rules that matter: nothing is promoted without a certificate, nothing after `aborting`
//! rests on one, nothing goes back behind the point of no return, and nothing follows the end but what
//! is found of the old primary's log.
//! The daemon asks before it writes, [`super::fold`] asks again of what it reads.

use super::{Fact, Pinned, RunFacts, RunKind, RunState, Step, StepState, may_become};

type Rule = Result<(), &'static str>;

impl RunFacts {
    /// Whether a fact may be recorded now.
    ///
    /// # Errors
    /// The rule that it would break.
    pub fn check(&self, fact: &Fact) -> Rule {
        // What the old primary held alone is seen when it is there again, and that may be long after.
        if let Fact::Diverged(_) = fact {
            return rule(
                self.promoted.is_some(),
                "nothing was promoted, so no log has diverged",
            );
        }
        if self.state.is_final() {
            return Err("the run has ended");
        }
        match fact {
            Fact::Started(_) => Err("a run starts once"),
            Fact::StepStarted { step } => self.check_step(*step),
            Fact::StepDone { step, .. } | Fact::StepFailed { step, .. } => rule(
                self.step(*step).state == StepState::Running,
                "the step was not begun",
            ),
            Fact::StepSkipped { step, .. } => self.check_step(*step),
            Fact::Fence(_) | Fact::FenceLsn(_) | Fact::Evidence { .. } => self.check_forward(),
            Fact::Certificate { .. } => {
                self.check_forward()?;
                rule(self.evidence.is_some(), "a certificate needs evidence")
            }
            Fact::Candidate { region } => rule(
                self.pnr
                    .as_ref()
                    .is_none_or(|pinned| pinned.region == *region),
                "the candidate is pinned",
            ),
            Fact::Pnr { candidate } => self.check_pnr(candidate),
            Fact::Promoted(promoted) => rule(
                self.pnr
                    .as_ref()
                    .is_some_and(|pinned| pinned.region == promoted.region),
                "only the pinned candidate is promoted, behind the point of no return",
            ),
            Fact::Open(_) => self.check_open(),
            Fact::Aborting { .. } => self.check_abort(),
            Fact::State { state, .. } => self.check_state(*state),
            Fact::Verb { .. }
            | Fact::Exception { .. }
            | Fact::Loss(_)
            | Fact::Diverged(_)
            | Fact::Measured(_)
            | Fact::Note { .. }
            | Fact::HookBegun { .. }
            | Fact::HookEnded { .. } => Ok(()),
        }
    }

    /// A step begins when all earlier ones are behind; one that was begun may begin again, but
    /// behind the point of no return none before it.
    fn check_step(&self, step: Step) -> Rule {
        self.check_running()?;
        rule(
            self.pnr.is_none() || step >= Step::Pnr,
            "no step before the point of no return begins behind it",
        )?;
        let ready = Step::ALL.into_iter().take_while(|earlier| *earlier < step);
        rule(
            ready.into_iter().all(|earlier| self.is_behind(earlier)),
            "an earlier step is not done",
        )
    }

    fn check_running(&self) -> Rule {
        match self.state {
            RunState::Running => Ok(()),
            RunState::Interrupted => Err("the run is interrupted: first `running` or `aborting`"),
            _ => Err("the run is aborting"),
        }
    }

    fn check_forward(&self) -> Rule {
        self.check_running()?;
        rule(
            self.pnr.is_none(),
            "settled before the point of no return, not behind it",
        )
    }

    fn check_pnr(&self, candidate: &Pinned) -> Rule {
        self.check_running()?;
        rule(
            self.started.run_kind != RunKind::Drill,
            "a drill does not pass the point of no return",
        )?;
        rule(
            self.fence.is_some() && self.opened.is_none(),
            "the run is not fenced",
        )?;
        rule(
            self.certificate.is_some(),
            "the point of no return needs a certificate",
        )?;
        match &self.pnr {
            Some(pinned) => rule(pinned == candidate, "another candidate is pinned"),
            None => Ok(()),
        }
    }

    /// Opening goes with the promoted candidate, or back while aborting. A run of single steps may
    /// also open on a primary that others promoted, and a drill on the one it never left.
    fn check_open(&self) -> Rule {
        if self.state == RunState::Aborting {
            return Ok(());
        }
        self.check_running()?;
        let by_others = matches!(self.started.run_kind, RunKind::Steps | RunKind::Drill);
        rule(
            self.promoted.is_some() || (self.pnr.is_none() && by_others),
            "nothing was promoted and the run is not aborting",
        )
    }

    fn check_state(&self, state: RunState) -> Rule {
        rule(
            state != RunState::Aborting,
            "aborting has a record of its own",
        )?;
        rule(
            may_become(self.state, state),
            "the run's state cannot change so",
        )?;
        // A run that ended here would allow another run to another candidate, while this one may
        // have been promoted already.
        let undecided = self.pnr.is_some() && self.promoted.is_none();
        rule(
            !(undecided && state.is_final()),
            "between the point of no return and the promotion a run does not end",
        )
    }

    fn check_abort(&self) -> Rule {
        rule(
            self.pnr.is_none(),
            "there is no way back behind the point of no return",
        )?;
        rule(
            self.opened.is_none() || self.state == RunState::Aborting,
            "writes pass already, there is nothing to go back from",
        )
    }
}

const fn rule(holds: bool, otherwise: &'static str) -> Rule {
    if holds { Ok(()) } else { Err(otherwise) }
}
