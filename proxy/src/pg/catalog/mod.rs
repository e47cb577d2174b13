//! What the database in use holds besides PostgreSQL's own objects, as far as verdicts need it.
//!
//! `shelf` is where sessions find the catalog of their database: one pointer, swapped whole, read
//! without a lock. What is not on a shelf makes verdicts more careful, never less.

mod shelf;

pub use shelf::{Catalog, Catalogs, Shelf};
