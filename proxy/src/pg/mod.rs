//! The PostgreSQL front: what it does, message by message, and where it asks the gate.
//!
//! `listener` accepts, `startup` reads what a client wants, `negotiate` encrypts, `auth` finds out who
//! it is by the rules of the listener's `door`, `begin` logs in upstream, `session` is
//! the loop. `relay` moves the bytes and takes a permit before the first byte of a group;
//! `track` knows what is in flight. While fenced, `careful` takes groups one by one, `decide` says
//! what happens to each, `wall` has PostgreSQL refuse what was misjudged. `params` keeps once what
//! many sessions have alike. `stock` finds out what a session
//! has, `replay` logs in elsewhere with it, `migrate` moves the session there, `lost` deals with a peer that is gone. What clients are told is in `refuse`.
//!
//! Connections that are no sessions stand apart: `console` is PgBouncer's, `replication` passes physical
//! and logical replication on. `idle` and `quit` end sessions that say nothing or are killed.

pub mod auth;
mod begin;
mod careful;
pub mod catalog;
pub mod classify;
mod console;
mod decide;
pub mod door;
mod force;
mod frame;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod here;
mod hold;
pub mod idle;
mod kept;
pub mod kicked;
mod lasting;
mod left;
mod leg;
pub mod listener;
mod lost;
mod message;
mod migrate;
pub mod negotiate;
mod orphan;
pub mod params;
mod part;
mod quit;
mod refuse;
mod relay;
mod replay;
mod replication;
mod server;
mod session;
mod startup;
mod stock;
mod track;
mod wall;
mod wrap;
mod xid;
