//! What the configuration allows a run to take, as the steps need it.
//!
//! Replaced whole by a reload; a run keeps the settings it began with.

use std::time::Duration;

use tokio::time::Instant;
use writefence_config as config;

use crate::gate::{Answer, Begin, Plan};

/// A group's settings for fences, drains and runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What a fence does with new writes.
    pub answer: Answer,
    /// How long one write is held.
    pub hold: Duration,
    /// What becomes of a BEGIN.
    pub begin: Begin,
    /// Reads are fenced too.
    pub all: bool,
    /// The http lane is fenced first and drained before the other.
    pub http_first: bool,
    /// How long that first stage may take.
    pub http_deadline: Duration,
    /// Until then an open transaction may still write.
    pub grace: Duration,
    /// After it whoever holds a permit is a straggler.
    pub deadline: Duration,
    /// From the fence to the point of no return.
    pub budget: Duration,
    /// Between two probes of a region.
    pub interval: Duration,
    /// A standby further behind counts as degraded.
    pub max_lag: Duration,
    /// Between two looks at whether each candidate could take over.
    pub preflight: Duration,
    /// Candidates are promoted by SQL, through the observer's login.
    pub by_sql: bool,
    /// What promotes a candidate, in words.
    pub promotes: String,
    /// How long a promotion may take.
    pub promotion: Duration,
    /// What shows that an old primary that does not answer is stopped.
    pub evidence: config::Evidence,
    /// Reads may go to a standby within that lag while the primary's region cannot be reached.
    pub reads_elsewhere: bool,
    /// The objective for the time of recovery, for reports.
    pub rto: Option<Duration>,
    /// The objective for the loss, for reports.
    pub rpo: Option<Duration>,
}

impl From<&config::Group> for Settings {
    fn from(group: &config::Group) -> Self {
        Self {
            answer: match group.fence.answer {
                config::Answer::Hold => Answer::Hold,
                config::Answer::Reject => Answer::Reject,
            },
            hold: group.fence.hold,
            begin: match group.fence.begin {
                config::Begin::Auto => Begin::Auto,
                config::Begin::Defer => Begin::Defer,
                config::Begin::Hold => Begin::Hold,
            },
            all: group.fence.scope == config::Scope::All,
            http_first: group.fence.order == config::Order::HttpFirst,
            http_deadline: group.fence.http_deadline,
            grace: group.drain.grace,
            deadline: group.drain.deadline,
            budget: group.run.budget,
            interval: group.observer.interval,
            max_lag: group.reads.max_lag,
            preflight: group.preflight.interval,
            by_sql: group.driver.means == config::DriverMeans::Postgres && group.has_database(),
            promotes: match &group.driver.means {
                config::DriverMeans::Postgres if !group.has_database() => String::new(),
                config::DriverMeans::Postgres => "SELECT pg_promote(false)".to_owned(),
                config::DriverMeans::Patroni(_) => "POST /switchover or /failover".to_owned(),
                config::DriverMeans::Command(words) => words.join(" "),
            },
            promotion: group.driver.timeout,
            evidence: group.evidence.clone(),
            reads_elsewhere: group.reads.away == config::Away::Other,
            rto: group.objectives.rto,
            rpo: group.objectives.rpo,
        }
    }
}

impl Settings {
    /// The times of a fence that falls now.
    pub(crate) fn plan(&self, now: Instant, hold: Option<Duration>) -> Plan {
        Plan {
            grace: now + self.grace,
            deadline: now + self.deadline,
            hold: hold.unwrap_or(self.hold),
            begin: self.begin,
            all: self.all,
        }
    }
}
