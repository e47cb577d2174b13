//! Qualified names, and the lists of what PostgreSQL ships with.
//!
//! A name counts as built in when it is on the list and stands without a schema or in
//! `pg_catalog`. Without a schema, `search_path` may put a user's object in front of it, and a
//! user's overload may match its arguments better: `lens` asks the catalog.

use std::collections::HashSet;
use std::sync::LazyLock;

use pg_query::NodeEnum;
use pg_query::protobuf::Node;

type Names = LazyLock<HashSet<&'static str>>;

static FUNCTIONS: Names = LazyLock::new(|| list(include_str!("data/functions.txt")));
static OPERATORS: Names = LazyLock::new(|| list(include_str!("data/operators.txt")));
static TYPES: Names = LazyLock::new(|| list(include_str!("data/types.txt")));

fn list(text: &'static str) -> HashSet<&'static str> {
    text.lines()
        .filter(|line| !line.starts_with("-- "))
        .collect()
}

/// Whether PostgreSQL ships a function of this name and every one of them leaves nothing behind.
pub(super) fn is_safe_function(name: &str) -> bool {
    FUNCTIONS.contains(name)
}

/// A name with its schema, as the parser folded it.
pub(super) struct Name<'a> {
    pub(super) schema: Option<&'a str>,
    pub(super) local: &'a str,
}

impl<'a> Name<'a> {
    /// From a list of string nodes; `None` if it is anything else. A database in front of the
    /// schema has to be the current one and says nothing.
    pub(super) fn of(parts: &'a [Node]) -> Option<Self> {
        let mut parts = parts.iter().rev().map(text);
        let local = parts.next()??;
        let schema = match parts.next() {
            Some(part) => Some(part?),
            None => None,
        };
        Some(Self { schema, local })
    }

    /// From its parts, of which the schema may be empty.
    pub(super) fn in_schema(schema: &'a str, local: &'a str) -> Self {
        Self {
            schema: (!schema.is_empty()).then_some(schema),
            local,
        }
    }

    pub(super) fn is_safe_function(&self) -> bool {
        self.is_built_in(&FUNCTIONS)
    }

    pub(super) fn is_operator(&self) -> bool {
        self.is_built_in(&OPERATORS)
    }

    pub(super) fn is_type(&self) -> bool {
        self.is_built_in(&TYPES)
    }

    fn is_built_in(&self, names: &Names) -> bool {
        self.schema.is_none_or(|schema| schema == "pg_catalog") && names.contains(self.local)
    }
}

impl std::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.local),
            None => f.write_str(self.local),
        }
    }
}

/// The string in a string node.
pub(super) fn text(node: &Node) -> Option<&str> {
    match &node.node {
        Some(NodeEnum::String(string)) => Some(&string.sval),
        _ => None,
    }
}
