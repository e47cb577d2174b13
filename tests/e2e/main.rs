//! End-to-end tests: the real daemon in front of real PostgreSQL, driven as a runbook drives it.
//!
//! One cluster pair and one daemon per test, on ports of their own; without the server programs
//! they fail, unless `SKIP_E2E=1` says that this is known.

mod api;
mod audit;
mod cancel;
mod catalog;
mod checks;
mod clients;
mod console;
mod corners;
mod crash;
mod differential;
mod drivers;
mod faults;
mod fence;
mod former;
mod frames;
mod garbage;
mod groups;
mod hardship;
mod hooks;
mod http_bodies;
mod http_fence;
mod http_memory;
mod http_orphans;
mod http_repoint;
mod http_smuggling;
mod http_support;
mod http_tls;
mod kicked;
mod limits;
mod logins;
mod mixed;
mod moments;
mod moves;
mod orphans;
mod outcomes;
mod pins;
mod preflight;
mod prepared;
mod protocol;
mod replication;
mod secure;
mod state;
mod support;
mod switchover;
mod talk;
mod tcp;
mod tls;
mod traps;
mod unasked;
mod wire;
