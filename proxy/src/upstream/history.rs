//! The history of a timeline: which timelines it descends from, and where it left each.
//!
//! Read with the replication command TIMELINE_HISTORY, the only exact source of the point where a
//! promotion parted from the old primary. What the old primary wrote beyond it is lost.

use super::wire::{Client, QueryError};
use super::{Lsn, Timeline};

/// The ancestors of a timeline, oldest first, each with the position where it was left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(Vec<(Timeline, Lsn)>);

impl History {
    /// Asks a server, over a connection with the startup parameter `replication`. Timeline 1 has
    /// no history file, and none is asked for.
    ///
    /// # Errors
    /// Not answered, or not in the form of a history file.
    pub async fn read(client: &mut Client, timeline: Timeline) -> Result<Self, QueryError> {
        if timeline.value() == 1 {
            return Ok(Self::default());
        }
        let rows = client
            .query(&format!("TIMELINE_HISTORY {timeline}"))
            .await?;
        let content = rows.first().and_then(|row| row.get(1)?.as_deref());
        let history = content.and_then(Self::parse);
        history.ok_or_else(|| client.answer_error("timeline history"))
    }

    /// Reads a history file; `None` when a line has another form.
    pub fn parse(content: &str) -> Option<Self> {
        let lines = content.lines().map(str::trim);
        let entries = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let entry = |line: &str| {
            let mut words = line.split_whitespace();
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        };
        entries.map(entry).collect::<Option<Vec<_>>>().map(Self)
    }

    /// Where this timeline began: where it left its own parent.
    pub fn start(&self) -> Option<Lsn> {
        self.0.last().map(|(_, lsn)| *lsn)
    }

    /// Where this line of descent left an ancestor; `None` when that is no ancestor.
    pub fn left(&self, ancestor: Timeline) -> Option<Lsn> {
        self.0
            .iter()
            .find(|(timeline, _)| *timeline == ancestor)
            .map(|(_, lsn)| *lsn)
    }
}
