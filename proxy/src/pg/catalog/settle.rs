//! From a database's facts to what is known of each object.
//!
//! Every object begins harmless but for what its own words say, and takes on what its parts may do
//! until nothing changes any more. Natures only grow, so that comes to an end, also where functions
//! call each other in a circle.

use std::collections::HashMap;

use super::facts::{Class, Edge, Facts, Name, Oid, Relation, Routine, Storage, Type, Used};
use super::model::{Found, Model, Shape};
use super::named::parameters;
use super::nature::Nature;
use super::scan::{Scan, scan};
use crate::pg::classify::{Code, Effect, effect_of, is_read_only_setting, is_safe_function};

/// Rounds after which a database's objects are given up on. A round carries knowledge over at least
/// one step of a chain of objects that use each other; real chains have a handful.
const ROUNDS: usize = 100;

/// Extensions whose C functions compute and do nothing else, when they are not marked volatile.
/// Without them, one `CREATE EXTENSION citext` would leave every `=` to wall two.
const COMPUTING: &[&str] = &[
    "bloom",
    "btree_gin",
    "btree_gist",
    "citext",
    "cube",
    "dict_int",
    "dict_xsyn",
    "earthdistance",
    "fuzzystrmatch",
    "hstore",
    "intarray",
    "isn",
    "lo",
    "ltree",
    "pg_trgm",
    "pgcrypto",
    "postgis",
    "seg",
    "tsm_system_rows",
    "tsm_system_time",
    "unaccent",
    "uuid-ossp",
    "vector",
];

/// The objects use each other in chains that are too long.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("its objects use each other in chains of more than {ROUNDS}")]
pub struct Unsettled;

/// What an object consists of.
#[derive(Default)]
struct Parts {
    own: Nature,
    /// A function that the planner may call.
    foldable: bool,
    through: Option<String>,
    codes: Vec<Code>,
    scan: Option<Scan>,
    uses: Vec<usize>,
    rules: Vec<(usize, Code)>,
}

impl Parts {
    fn of(own: Nature) -> Self {
        Self {
            own,
            ..Self::default()
        }
    }

    fn code(&mut self, code: Option<Code>) {
        match code {
            Some(code) => self.codes.push(code),
            None => self.own = self.own.and(Nature::UNKNOWN),
        }
    }
}

/// Concludes what there is to be concluded.
///
/// # Errors
/// See [`Unsettled`].
pub fn settle(facts: &Facts) -> Result<Model, Unsettled> {
    let mut model = Model::default();
    model.parameters = parameters(&facts.routines);
    let mut parts = Vec::new();
    let mut places: HashMap<(Class, Oid), usize> = HashMap::new();
    let mut add = |name: &Name, class, shape, its: Parts| {
        let place = model.add(name, shape);
        parts.push(its);
        places.insert((class, name.oid), place);
    };
    for it in &facts.routines {
        let shape = Shape::Routine {
            least: it.least,
            most: it.most,
        };
        add(&it.name, Class::Routine, shape, routine(it));
    }
    for it in &facts.operators {
        let shape = Shape::Operator { unary: it.unary };
        add(&it.name, Class::Operator, shape, Parts::default());
    }
    for it in &facts.types {
        add(&it.name, Class::Type, Shape::Type, type_(it));
    }
    for it in &facts.relations {
        let (its, replaced) = relation(it);
        add(&it.name, Class::Relation, Shape::Relation { replaced }, its);
    }
    for edge in &facts.edges {
        link(edge, &places, &mut parts, &mut model);
    }
    for _ in 0..ROUNDS {
        if !round(&mut model, &parts, &facts.edges, &places) {
            return Ok(model);
        }
    }
    Err(Unsettled)
}

fn routine(it: &Routine) -> Parts {
    let mut own = Nature::HARMLESS;
    let symbol = matches!(it.language.as_str(), "c" | "internal").then_some(it.body.as_str());
    for name in [Some(it.name.local.as_str()), symbol].into_iter().flatten() {
        if let Some(effect) = effect_of(name) {
            own.effects = own.effects.with(effect);
        }
    }
    // The built-in function of that name may be meant as well.
    own.unknown = it.shares_name && !is_safe_function(&it.name.local);
    own.way_out = it.settings.iter().any(|setting| {
        let name = setting.split('=').next().unwrap_or_default();
        is_read_only_setting(name)
    });
    let mut parts = Parts::of(own);
    parts.foldable = !it.volatile && !it.aggregate;
    if let Some(defaults) = &it.defaults {
        parts.code(Code::expressions(defaults));
    }
    match (it.language.as_str(), &it.standard_body) {
        _ if it.aggregate => {}
        ("sql", Some(body)) => parts.code(Code::standard_body(body)),
        ("sql", None) => {
            let code = Code::statements(&it.body);
            if code.is_none() {
                parts.scan = Some(scan(&it.body, true));
            }
            parts.code(code);
        }
        ("c" | "internal", _) => {
            let computes = it
                .extension
                .as_deref()
                .is_some_and(|e| COMPUTING.contains(&e));
            if !computes || it.volatile {
                parts.own = parts.own.and(Nature::UNKNOWN);
            }
        }
        (language, _) => {
            parts.own = parts.own.and(Nature::UNKNOWN);
            parts.scan = Some(scan(&it.body, language == "plpgsql"));
        }
    }
    parts
}

fn type_(it: &Type) -> Parts {
    let mut parts = Parts::default();
    if it.opaque {
        parts.own = Nature::UNKNOWN;
    }
    for check in &it.checks {
        parts.code(Code::expressions(check));
    }
    parts
}

fn relation(it: &Relation) -> (Parts, [Option<Nature>; 3]) {
    let mut parts = Parts::default();
    if it.storage == Storage::Foreign {
        parts.own.effects = parts.own.effects.with(Effect::ForeignTables);
    }
    if let Some(view) = &it.view {
        parts.code(Code::statements(view));
    }
    for policy in &it.policies {
        parts.code(Code::expressions(policy));
    }
    let mut replaced = [None; 3];
    for rule in it.rules.iter().filter(|rule| rule.replaces) {
        replaced[rule.event as usize] = Some(Nature::HARMLESS);
    }
    for rule in &it.rules {
        match Code::rule_actions(&rule.definition) {
            Some(code) => parts.rules.push((rule.event as usize, code)),
            // It changes rows itself, or is not understood: so does the statement.
            None => replaced[rule.event as usize] = None,
        }
    }
    (parts, replaced)
}

/// Built-in functions are settled at once, by their names.
fn link(
    edge: &Edge,
    places: &HashMap<(Class, Oid), usize>,
    parts: &mut [Parts],
    model: &mut Model,
) {
    let from = edge.from.and_then(|from| places.get(&from));
    let user = from.and_then(|place| parts.get_mut(*place));
    match (&edge.to, user) {
        (Used::Own(class, oid), Some(user)) => match places.get(&(*class, *oid)) {
            Some(place) => user.uses.push(*place),
            // Made since: nothing is known of it.
            None if matches!(class, Class::Routine | Class::Operator) => user.own.unknown = true,
            None => {}
        },
        (Used::BuiltIn(name), Some(user)) => user.own = user.own.and(built_in(name)),
        (Used::BuiltIn(name), None) if edge.from.is_none() => {
            model.implied = model.implied.and(built_in(name));
        }
        (Used::BuiltIn(_) | Used::Own(..), None) => {}
    }
}

fn built_in(name: &str) -> Nature {
    match effect_of(name) {
        Some(effect) => Nature {
            effects: crate::pg::classify::Effects::NONE.with(effect),
            ..Nature::UNKNOWN
        },
        None if is_safe_function(name) => Nature::HARMLESS,
        None => Nature::UNKNOWN,
    }
}

/// Lets every object take on what its parts may do; whether anything changed.
fn round(
    model: &mut Model,
    parts: &[Parts],
    edges: &[Edge],
    places: &HashMap<(Class, Oid), usize>,
) -> bool {
    let mut changed = false;
    for (place, its) in parts.iter().enumerate() {
        let (nature, through) = look(model, its);
        let replaced = replaced(model, its);
        let Some(object) = model.objects.get_mut(place) else {
            continue;
        };
        if object.nature != nature {
            object.nature = nature;
            object.through = object.through.take().or(through);
            changed = true;
        }
        if let Shape::Relation { replaced: was } = &mut object.shape {
            for (was, now) in was.iter_mut().zip(replaced) {
                let Some(was) = was else { continue };
                changed |= *was != was.and(now);
                *was = was.and(now);
            }
        }
    }
    let everywhere = edges.iter().filter(|edge| edge.from.is_none());
    for edge in everywhere {
        if let Used::Own(class, oid) = &edge.to
            && let Some(used) = places
                .get(&(*class, *oid))
                .and_then(|p| model.objects.get(*p))
        {
            let implied = model.implied.and(used.nature);
            changed |= implied != model.implied;
            model.implied = implied;
        }
    }
    changed
}

fn look(model: &Model, its: &Parts) -> (Nature, Option<String>) {
    let mut nature = its.own;
    let mut through = its.through.clone();
    let mut join = |other: Nature, name: &dyn Fn() -> Option<String>| {
        if through.is_none() && !other.is_harmless() {
            through = name();
        }
        nature = nature.and(other);
    };
    for object in its
        .uses
        .iter()
        .filter_map(|place| model.objects.get(*place))
    {
        let name = || {
            let name = format!("{}.{}", object.name.schema, object.name.local);
            Some(chained(&name, object.through.as_deref()))
        };
        join(object.nature, &name);
    }
    for code in &its.codes {
        let (found, by) = code.look(model);
        join(found, &|| by.clone());
    }
    if let Some(scan) = &its.scan {
        join(scan.nature, &|| Some("its code".to_owned()));
        for (name, found) in named(model, scan) {
            join(found.nature, &|| Some(chained(name, found.through)));
        }
    }
    nature.folds |= its.foldable && nature.has_effects();
    (nature, through)
}

/// The user's objects whose names stand in code that is not parsed.
fn named<'s>(model: &'s Model, scan: &'s Scan) -> impl Iterator<Item = (&'s str, Found<'s>)> {
    let called = scan
        .called
        .iter()
        .map(|name| (name, model.any_function(name)));
    let operators = scan
        .operators
        .iter()
        .map(|name| (name, model.any_operator(name)));
    let named = scan.named.iter().flat_map(|name| {
        let found = [
            model.relation(None, name),
            model.type_name(None, name),
            model.field(name),
        ];
        found.into_iter().map(move |found| (name, found))
    });
    let all = called.chain(operators).chain(named);
    all.filter_map(|(name, found)| Some((name.as_str(), found?)))
}

/// What code that is not parsed may do by its own words and by the objects that it names.
pub(crate) fn told(code: &str, language: &str, model: Option<&Model>) -> Nature {
    let scan = scan(code, language == "plpgsql");
    let objects = model.into_iter().flat_map(|model| named(model, &scan));
    objects.fold(scan.nature, |nature, (_, found)| nature.and(found.nature))
}

fn replaced(model: &Model, its: &Parts) -> [Nature; 3] {
    let mut all = [Nature::HARMLESS; 3];
    for (event, code) in &its.rules {
        if let Some(nature) = all.get_mut(*event) {
            *nature = nature.and(code.look(model).0);
        }
    }
    all
}

/// A name and what decided inside it, in words for people.
pub(crate) fn chained(name: &str, through: Option<&str>) -> String {
    /// Longer chains say no more than their beginning.
    const LONGEST: usize = 200;
    match through {
        Some(inner) if name.len() + inner.len() < LONGEST => format!("{name} > {inner}"),
        Some(_) => format!("{name} > …"),
        None => name.to_owned(),
    }
}
