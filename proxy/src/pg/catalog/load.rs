//! Reads a database's own objects from its catalog tables, in one transaction and one round trip.
//!
//! The question (`load.sql`) asks for what a user has made and for the names of the built-in
//! relations, so its answer is as large as the schema and not as the data. Works on PostgreSQL 15
//! to 18.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::facts::{
    Class, Edge, Event, Facts, Name, Oid, Operator, Relation, Routine, Rule, Storage, Type, Used,
};
use crate::upstream::wire::{Client, QueryError, Row, Rows};

const QUESTION: &str = include_str!("load.sql");

/// BEGIN and SET, before the first answer that counts.
const PREAMBLE: usize = 5;

/// What the catalog tables said, not yet put in order.
pub(super) struct Answer {
    sets: Vec<Rows>,
}

impl Answer {
    /// Equal for equal answers: most readings find what the one before found.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.sets.hash(&mut hasher);
        hasher.finish()
    }

    /// Puts it in order. Rows that cannot be read are as if the object did not exist, so that its
    /// name is unknown.
    pub(super) fn facts(self) -> Facts {
        let mut sets = self.sets.into_iter().skip(PREAMBLE);
        let mut next = || sets.next().unwrap_or_default().into_iter();
        let mut facts = Facts {
            routines: next().filter_map(routine).collect(),
            operators: next().filter_map(operator).collect(),
            types: next().filter_map(type_).collect(),
            relations: next().filter_map(relation).collect(),
            edges: Vec::new(),
        };
        let places: HashMap<Oid, usize> = facts
            .relations
            .iter()
            .enumerate()
            .map(|(place, relation)| (relation.name.oid, place))
            .collect();
        let place = |row: &mut Reader| places.get(&row.number::<Oid>()?).copied();
        for mut row in next().map(Reader::of) {
            let relation = place(&mut row).and_then(|place| facts.relations.get_mut(place));
            if let (Some(relation), Some(condition)) = (relation, row.text()) {
                relation.policies.push(condition);
            }
        }
        for mut row in next().map(Reader::of) {
            let relation = place(&mut row).and_then(|place| facts.relations.get_mut(place));
            if let (Some(relation), Some(rule)) = (relation, rule(&mut row)) {
                relation.rules.push(rule);
            }
        }
        facts.edges = next().filter_map(edge).collect();
        facts
    }
}

/// Asks the server.
///
/// # Errors
/// As [`Client::query_all`].
pub(super) async fn ask(client: &mut Client) -> Result<Answer, QueryError> {
    let sets = client.query_all(QUESTION).await?;
    Ok(Answer { sets })
}

/// A row's columns from left to right.
struct Reader(std::vec::IntoIter<Option<String>>);

impl Reader {
    fn of(row: Row) -> Self {
        Self(row.into_iter())
    }

    fn text(&mut self) -> Option<String> {
        self.0.next()?
    }

    fn number<T: std::str::FromStr>(&mut self) -> Option<T> {
        self.text()?.parse().ok()
    }

    fn flag(&mut self) -> bool {
        self.text().as_deref() == Some("t")
    }

    fn name(&mut self) -> Option<Name> {
        let oid = self.number()?;
        let schema = self.text()?;
        let temporary = schema.starts_with("pg_temp_");
        Some(Name {
            oid,
            schema: if temporary {
                "pg_temp".to_owned()
            } else {
                schema
            },
            local: self.text()?,
        })
    }

    fn class(&mut self) -> Option<Class> {
        match self.text()?.as_str() {
            "routine" => Some(Class::Routine),
            "operator" => Some(Class::Operator),
            "type" => Some(Class::Type),
            "relation" => Some(Class::Relation),
            _ => None,
        }
    }
}

fn routine(row: Row) -> Option<Routine> {
    let mut row = Reader::of(row);
    Some(Routine {
        name: row.name()?,
        language: row.text()?,
        volatile: row.flag(),
        aggregate: row.flag(),
        least: row.number()?,
        most: row.number()?,
        shares_name: row.flag(),
        extension: row.text(),
        body: row.text().unwrap_or_default(),
        standard_body: row.text(),
        defaults: row.text(),
        settings: row
            .text()
            .map(|all| all.lines().map(str::to_owned).collect())
            .unwrap_or_default(),
    })
}

fn operator(row: Row) -> Option<Operator> {
    let mut row = Reader::of(row);
    Some(Operator {
        name: row.name()?,
        unary: row.flag(),
    })
}

fn type_(row: Row) -> Option<Type> {
    let mut row = Reader::of(row);
    Some(Type {
        name: row.name()?,
        opaque: row.flag(),
        checks: row.text().into_iter().collect(),
    })
}

fn relation(row: Row) -> Option<Relation> {
    let mut row = Reader::of(row);
    Some(Relation {
        name: row.name()?,
        storage: match row.text()?.as_str() {
            "rows" => Storage::Rows,
            "file" => Storage::ForeignFile,
            _ => Storage::Foreign,
        },
        view: row.text(),
        ..Relation::default()
    })
}

fn rule(row: &mut Reader) -> Option<Rule> {
    Some(Rule {
        event: match row.text()?.as_str() {
            "2" => Event::Update,
            "3" => Event::Insert,
            "4" => Event::Delete,
            _ => return None,
        },
        replaces: row.flag(),
        definition: row.text()?,
    })
}

fn edge(row: Row) -> Option<Edge> {
    /// The first number that PostgreSQL gives to a user's object (FirstNormalObjectId).
    const FIRST: Oid = 16384;
    let mut row = Reader::of(row);
    let from = row.class();
    let from = from.zip(row.number());
    let (class, oid) = (row.class()?, row.number::<Oid>()?);
    let to = match row.text() {
        Some(name) if oid < FIRST => Used::BuiltIn(name),
        Some(_) | None => Used::Own(class, oid),
    };
    Some(Edge { from, to })
}
