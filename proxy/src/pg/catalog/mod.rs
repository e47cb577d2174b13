//! What the database in use holds besides PostgreSQL's own objects, as far as verdicts need it.
//!
//! `facts` are what the catalog's tables say; `settle` concludes from them what each object may do
//! (`nature`), looking through SQL with the rules of `classify` and through other code with `scan`;
//! `model` finds objects by the names in a statement. `load` asks the server, `keeper` says when.
//! `shelf` is where sessions find the catalog of
//! their database: one pointer, swapped whole, read without a lock. What is not known makes verdicts
//! more careful, never less.

pub mod facts;
pub mod keeper;
mod load;
mod model;
mod named;
mod nature;
mod readers;
mod scan;
mod settle;
mod shelf;

pub use facts::{Event, Facts};
pub use model::{Found, Model};
pub use nature::Nature;
pub use settle::{Unsettled, settle};
pub(crate) use settle::{chained, told};
pub use shelf::{Catalog, Catalogs, LoginTo, Proof, Shelf};

#[cfg(test)]
mod tests;
