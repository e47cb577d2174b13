//! One group: what fails over as one. Its parts have files of their own; this is their sum.

use crate::gate::{Drain, Fence, Preflight, Run};
use crate::listen::Listener;
use crate::moment::Evidence;
use crate::names;
use crate::pg::Sql;
use crate::raw::{Findings, Section};
use crate::upstream::{Driver, Objectives, Observer, Reads, Region};
use crate::value;

/// `[group.X]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The group's name, unique in the file and never `all`.
    pub name: String,
    /// The region that is the primary at the very first start; afterwards the durable state says
    /// which one is. Always one of `regions`.
    pub primary: String,
    /// At least one, in the order of the file.
    pub regions: Vec<Region>,
    /// At least one, in the order of the file; no two of the whole file share an address.
    pub listeners: Vec<Listener>,
    /// Our own login.
    pub observer: Observer,
    /// How a candidate is observed and promoted.
    pub driver: Driver,
    /// What shows that an old primary that does not answer is stopped.
    pub evidence: Evidence,
    /// How a fence answers.
    pub fence: Fence,
    /// What a drain may take.
    pub drain: Drain,
    /// What a run may take.
    pub run: Run,
    /// How often it is looked whether a candidate could take over.
    pub preflight: Preflight,
    /// Where reads may go.
    pub reads: Reads,
    /// What a report measures against.
    pub objectives: Objectives,
    /// How statements are judged.
    pub sql: Sql,
}

impl Group {
    /// The region of that name.
    pub fn region(&self, name: &str) -> Option<&Region> {
        self.regions.iter().find(|region| region.name == name)
    }

    /// Whether PostgreSQL servers are behind it: what can be asked for roles and positions, barred and
    /// promoted by SQL.
    pub fn has_database(&self) -> bool {
        self.regions.iter().any(|region| region.postgres.is_some())
    }

    /// Reads one group; `None` if a part that has no default has a problem.
    pub(crate) fn read(
        name: String,
        section: &Section<'_>,
        found: &mut Findings<'_>,
    ) -> Option<Self> {
        names::check_group(&name, section, found);
        let regions: Vec<_> = section
            .named("region")
            .into_iter()
            .filter_map(|(name, region)| {
                names::check(&name, &region, found);
                Region::read(name, &region, found)
            })
            .collect();
        let listeners = section
            .listed("listen")
            .iter()
            .filter_map(|one| Listener::read(one, found))
            .collect();
        let primary = section.read("primary", found, value::text("a region's name"));
        Some(Self {
            primary: primary.or_else(|| regions.first().map(|region| region.name.clone()))?,
            name,
            regions,
            listeners,
            observer: Observer::read(&section.section("observer"), found),
            driver: Driver::read(&section.section("driver"), found),
            evidence: Evidence::read(&section.section("evidence"), found),
            fence: Fence::read(&section.section("fence"), found),
            drain: Drain::read(&section.section("drain"), found),
            run: Run::read(&section.section("run"), found),
            preflight: Preflight::read(&section.section("preflight"), found),
            reads: Reads::read(&section.section("reads"), found),
            objectives: Objectives::read(&section.section("objectives"), found),
            sql: Sql::read(&section.section("sql"), found),
        })
    }
}
