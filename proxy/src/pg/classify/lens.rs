//! One look at a text: the operator's choices and the catalog as they are at that moment.
//!
//! Every name in a statement is judged here, so that what a missing or a full catalog means stands
//! in one place: a name that the catalog does not exclude could stand for anything of that name.

use pg_query::protobuf::RangeVar;

use super::finding::{Finding, Verdict};
use super::functions::{self, Known};
use super::names::Name;
use super::policy::{Effect, Policy};
use super::rule;
use crate::pg::catalog::{Event, Found, Model, Nature, chained, told};

/// See the module.
#[derive(Clone, Copy)]
pub(super) struct Lens<'a> {
    pub(super) policy: &'a Policy,
    /// `None`: nothing is known of the database.
    pub(super) model: Option<&'a Model>,
}

impl<'a> Lens<'a> {
    pub(super) fn effect(self, effect: Effect) -> Finding {
        self.policy.effect(effect)
    }

    pub(super) fn unknown(self, rule: &'static str, name: impl Into<String>) -> Finding {
        self.policy.unknown(rule, name)
    }

    /// A call of a function that is neither a sequence's nor set_config.
    pub(super) fn function(self, name: &Name<'_>, arguments: usize) -> Finding {
        let known = functions::look_up(name);
        if let Known::Effect(effect) = known {
            return self.effect(effect).by(name.to_string());
        }
        let own = |model: &'a Model| model.function(name.schema, name.local, arguments);
        self.resolve(rule::FUNCTION, name, matches!(known, Known::Safe), own)
    }

    pub(super) fn operator(self, name: &Name<'_>, unary: bool) -> Finding {
        let own = |model: &'a Model| model.operator(name.schema, name.local, unary);
        self.resolve(rule::OPERATOR, name, name.is_operator(), own)
    }

    pub(super) fn type_name(self, name: &Name<'_>) -> Finding {
        let own = |model: &'a Model| model.type_name(name.schema, name.local);
        self.resolve(rule::TYPE, name, name.is_type(), own)
    }

    /// A relation that is read.
    pub(super) fn relation(self, relation: &RangeVar) -> Finding {
        let name = Name::in_schema(&relation.schemaname, &relation.relname);
        let system = matches!(name.schema, Some("pg_catalog" | "information_schema"));
        let own = |model: &'a Model| model.relation(name.schema, name.local);
        self.resolve(rule::RELATION, &name, system, own)
    }

    /// A field taken of an expression or of a row.
    pub(super) fn field(self, field: &str) -> Finding {
        let Some(model) = self.model else {
            return self.unknown(rule::FIELD, field);
        };
        match (functions::effect(field), model.field(field)) {
            (Some(effect), _) => self.effect(effect).by(field),
            (None, Some(found)) => self.found(rule::FIELD, field, found),
            (None, None) => Finding::read(rule::QUERY),
        }
    }

    /// Conversions that are written nowhere.
    pub(super) fn implied(self) -> Finding {
        let nature = self.model.map_or(Nature::HARMLESS, Model::implied);
        let found = Found {
            nature,
            through: None,
        };
        self.found(rule::TYPE, "cast between built-in types", found)
    }

    /// A change of a relation's rows.
    pub(super) fn change(self, relation: &RangeVar, event: Option<Event>) -> Finding {
        let name = Name::in_schema(&relation.schemaname, &relation.relname);
        let replaced = |event| self.model?.replaced(name.schema, name.local, event);
        let Some(nature) = event.and_then(replaced) else {
            return Finding::write(rule::DML).by(name.to_string());
        };
        let mut finding = Finding::new(Verdict::Uncertain, rule::REWRITTEN, Some(name.to_string()));
        let found = Found {
            nature,
            through: None,
        };
        finding.worsen(self.found(rule::REWRITTEN, &name.to_string(), found));
        finding
    }

    /// Code that is not parsed, run where it can neither write nor end its transaction.
    pub(super) fn code(self, code: &str, language: &str) -> Finding {
        let mut nature = told(code, language, self.model);
        // What it may lift is put up again when it has ended, and it cannot commit.
        nature.way_out = false;
        let found = Found {
            nature,
            through: None,
        };
        self.found(rule::PROCEDURE, "its code", found)
    }

    fn resolve(
        self,
        rule: &'static str,
        name: &Name<'_>,
        built_in: bool,
        own: impl FnOnce(&'a Model) -> Option<Found<'a>>,
    ) -> Finding {
        let Some(model) = self.model else {
            return match name.schema {
                Some("pg_catalog" | "information_schema") if built_in => Finding::read(rule::QUERY),
                // Left to PostgreSQL even where what is unknown is refused: it is most likely what
                // it looks like.
                _ if built_in || rule == rule::RELATION => {
                    Finding::new(Verdict::Uncertain, rule::NO_CATALOG, Some(name.to_string()))
                }
                _ => self.unknown(rule, name.to_string()),
            };
        };
        match own(model) {
            Some(found) => self.found(rule, &name.to_string(), found),
            None if built_in => Finding::read(rule::QUERY),
            // Made since the catalog was read, or temporary.
            None if rule == rule::RELATION => {
                Finding::new(Verdict::Uncertain, rule, Some(name.to_string()))
            }
            None => self.unknown(rule, name.to_string()),
        }
    }

    /// What a nature makes of its statement.
    fn found(self, rule: &'static str, name: &str, found: Found<'_>) -> Finding {
        let Found { nature, through } = found;
        let by = || chained(name, through);
        let refused = Effect::ALL
            .iter()
            .copied()
            .find(|effect| nature.effects.contains(*effect) && !self.policy.pass.contains(*effect));
        let mut finding = if nature.way_out {
            Finding::write(rule::WAY_OUT).by(by())
        } else if let Some(effect) = refused {
            self.effect(effect).by(by())
        } else if nature.is_harmless() {
            Finding::read(rule::QUERY)
        } else {
            self.unknown(rule, by())
        };
        finding.nature = nature;
        finding
    }
}
