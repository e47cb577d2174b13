//! A database's own objects as its catalog tables say, before anything is concluded from them.
//!
//! Plain data: what `load` reads and what tests write by hand.

/// An object's number in its catalog table.
pub type Oid = u32;

/// What a number is a number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// A function, procedure, aggregate or window function.
    Routine,
    /// A table, view, sequence or foreign table.
    Relation,
    /// A type or domain.
    Type,
    /// An operator.
    Operator,
}

/// Who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name {
    /// Its number.
    pub oid: Oid,
    /// Its schema; `pg_temp` for that of any session.
    pub schema: String,
    /// Its name in the schema.
    pub local: String,
}

/// A function, procedure or aggregate.
#[derive(Clone, Debug, Default)]
pub struct Routine {
    /// Who it is.
    pub name: Name,
    /// `sql`, `plpgsql`, `c`, `internal`, …
    pub language: String,
    /// Volatile by its marking, which proves nothing by itself.
    pub volatile: bool,
    /// An aggregate: its support functions are all there is to it.
    pub aggregate: bool,
    /// Fewest arguments of a call.
    pub least: usize,
    /// Most arguments of a call.
    pub most: usize,
    /// A built-in function has the same name.
    pub shares_name: bool,
    /// The extension it belongs to.
    pub extension: Option<String>,
    /// Its code as written; of a C or internal function the symbol's name.
    pub body: String,
    /// Its code where it is a SQL-standard one, as PostgreSQL writes it.
    pub standard_body: Option<String>,
    /// Defaults of its arguments, as a list of expressions.
    pub defaults: Option<String>,
    /// `name=value` of the settings it carries.
    pub settings: Vec<String>,
}

/// An operator; its function is an [`Edge`].
#[derive(Clone, Debug, Default)]
pub struct Operator {
    /// Who it is.
    pub name: Name,
    /// Takes one operand.
    pub unary: bool,
}

/// A type; its functions are edges.
#[derive(Clone, Debug, Default)]
pub struct Type {
    /// Who it is.
    pub name: Name,
    /// A base type or a range with functions of its own: its input runs code that is not SQL.
    pub opaque: bool,
    /// Conditions of a domain.
    pub checks: Vec<String>,
}

/// How a relation answers a SELECT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// From its own rows.
    #[default]
    Rows,
    /// It lies elsewhere.
    Foreign,
    /// In a file on the server.
    ForeignFile,
}

/// A relation.
#[derive(Clone, Debug, Default)]
pub struct Relation {
    /// Who it is.
    pub name: Name,
    /// Where its rows come from.
    pub storage: Storage,
    /// Query of a view.
    pub view: Option<String>,
    /// Conditions of its row-security policies, where they are in force.
    pub policies: Vec<String>,
    /// Rules but those of views.
    pub rules: Vec<Rule>,
}

/// What a rule answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
}

/// A rule of a relation.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What it answers.
    pub event: Event,
    /// It takes the statement's place, whatever the row.
    pub replaces: bool,
    /// As PostgreSQL writes it: CREATE RULE.
    pub definition: String,
}

/// One object uses another in a way its text need not show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Who uses; nobody: every statement may.
    pub from: Option<(Class, Oid)>,
    /// What is used.
    pub to: Used,
}

/// What is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Used {
    /// An object of the user.
    Own(Class, Oid),
    /// A built-in function, by name.
    BuiltIn(String),
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Functions, procedures, aggregates.
    pub routines: Vec<Routine>,
    /// Operators.
    pub operators: Vec<Operator>,
    /// Types but the row types of relations.
    pub types: Vec<Type>,
    /// Relations, the built-in ones too.
    pub relations: Vec<Relation>,
    /// Who uses what.
    pub edges: Vec<Edge>,
}

#[cfg(test)]
impl Facts {
    /// Tables as tests name them, one of them abroad.
    pub(crate) fn plain_tables() -> Self {
        const NAMES: &str = "t a b orders customers events pg_namespace";
        let relations = NAMES.split(' ').zip(1..).map(|(local, oid)| Relation {
            name: Name {
                oid,
                schema: "public".to_owned(),
                local: local.to_owned(),
            },
            ..Relation::default()
        });
        let abroad = Relation {
            name: Name {
                oid: 0,
                schema: "public".to_owned(),
                local: "abroad".to_owned(),
            },
            storage: Storage::Foreign,
            ..Relation::default()
        };
        Self {
            relations: relations.chain([abroad]).collect(),
            ..Self::default()
        }
    }
}
