//! Tests of the repository itself that need no other program: its arrows and its documents.

mod documents;
mod layering;
mod traps;
