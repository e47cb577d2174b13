//! What a session keeps of the group in flight while not everything may pass.

use super::decide::After;

/// Answers withheld while it is open whether the server takes a statement for a write.
const WITHHELD: usize = 64 * 1024;

/// A read-only transaction of ours around the group in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wrap {
    #[default]
    None,
    Around,
    /// The group is answered, with this transaction status, and the transaction is to be ended.
    ToEnd(u8),
}

/// Whether the group in flight is the first part of a client's group, whose rest is at the front of the
/// inbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Part {
    #[default]
    Whole,
    First,
    /// The rest is the Query that a run without a Sync stands before. If the run fails, the server
    /// ignores the Query and all behind it up to the next Sync.
    Run,
}

/// What is kept of the group in flight.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(super) group: Vec<u8>,
    withheld: Option<Vec<u8>>,
    misjudged: bool,
    /// The answers turned out well: what was withheld goes out before anything else.
    well: bool,
    pub(crate) after: After,
    pub(crate) wrap: Wrap,
    pub(crate) part: Part,
    /// A refusal stands in it, for this reason.
    pub(crate) planted: Option<&'static str>,
}

impl Kept {
    /// Keeps a group and withholds its answers.
    pub(crate) fn arm(&mut self, group: &[u8]) {
        self.group = group.to_vec();
        self.withheld = Some(Vec::new());
        self.misjudged = false;
        self.well = false;
    }

    /// True when the answers of the group in flight are being withheld.
    pub(crate) fn armed(&self) -> bool {
        self.withheld.is_some() && !self.well
    }

    /// The server took the group for a write.
    pub(crate) fn mark_misjudged(&mut self) {
        self.misjudged = true;
    }

    /// Keeps bytes back; false when they are to be relayed.
    pub(crate) fn withhold(&mut self, data: &[u8]) -> bool {
        match &mut self.withheld {
            Some(withheld) if !self.well && withheld.len() + data.len() <= WITHHELD => {
                withheld.extend_from_slice(data);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Gives up withholding: what was kept has to be relayed first.
    pub(crate) fn let_go(&mut self) -> Option<Vec<u8>> {
        self.well = false;
        self.withheld.take()
    }

    /// What comes next the client has to see at once.
    pub(crate) fn disarm(&mut self) {
        self.well = self.withheld.is_some();
    }

    /// The group ended and was a write after all. Its withheld answers are dropped.
    pub(crate) fn misjudged(&mut self) -> bool {
        let misjudged = self.misjudged && self.withheld.is_some();
        if misjudged {
            self.withheld = None;
        }
        misjudged
    }

    /// The group ended as it should: nothing is withheld any longer.
    pub(crate) fn answered(&mut self) {
        self.misjudged = false;
        self.planted = None;
        self.disarm();
        self.group = Vec::new();
    }
}
