//! Which names are being parsed by what is in flight.
//!
//! A Bind may name a statement whose Parse is not answered yet. Looking for that Parse through all
//! that is in flight would make a long pipeline cost the square of its length, so the last one of
//! each name is kept here, for as long as any Parse of that name is in flight. Nothing here knows
//! whether a Parse will succeed.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Group, Item, Prepared};

/// A name's last Parse in flight, and how many there are.
#[derive(Debug)]
struct Last {
    prepared: Arc<Prepared>,
    /// The run that it stands in.
    run: u64,
    in_flight: usize,
}

/// The names of all Parses in flight.
#[derive(Debug, Default)]
pub(super) struct Pending {
    // Most drivers use only this one on their busy path: no hashing, no allocation.
    unnamed: Option<Last>,
    named: HashMap<Box<[u8]>, Last>,
}

impl Pending {
    /// A Parse goes out in this run.
    pub(super) fn parse(&mut self, name: &[u8], prepared: &Arc<Prepared>, run: u64) {
        let found = if name.is_empty() {
            self.unnamed.as_mut()
        } else {
            self.named.get_mut(name)
        };
        if let Some(last) = found {
            last.prepared = Arc::clone(prepared);
            last.run = run;
            last.in_flight += 1;
            return;
        }
        let last = Last {
            prepared: Arc::clone(prepared),
            run,
            in_flight: 1,
        };
        if name.is_empty() {
            self.unnamed = Some(last);
        } else {
            self.named.insert(name.into(), last);
        }
    }

    /// What the last Parse of this name in flight makes.
    pub(super) fn get(&self, name: &[u8]) -> Option<Arc<Prepared>> {
        self.last(name).map(|last| Arc::clone(&last.prepared))
    }

    /// That Parse stands in another run than this: this one is run also where it fails.
    pub(super) fn is_elsewhere(&self, name: &[u8], run: u64) -> bool {
        self.last(name).is_some_and(|last| last.run != run)
    }

    fn last(&self, name: &[u8]) -> Option<&Last> {
        if name.is_empty() {
            self.unnamed.as_ref()
        } else {
            self.named.get(name)
        }
    }

    /// A group is answered.
    pub(super) fn settle(&mut self, group: &Group) {
        for item in &group.items {
            if let Item::Parse(name, _) = item {
                self.parsed(name);
            }
        }
    }

    fn parsed(&mut self, name: &[u8]) {
        if name.is_empty() {
            if let Some(last) = &mut self.unnamed {
                last.in_flight -= 1;
            }
            self.unnamed.take_if(|last| last.in_flight == 0);
        } else if let Some(last) = self.named.get_mut(name) {
            last.in_flight -= 1;
            if last.in_flight == 0 {
                self.named.remove(name);
            }
        }
    }

    /// Nothing is in flight.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
