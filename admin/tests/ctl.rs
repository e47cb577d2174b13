//! The admin socket from end to end: the built `writefencectl`, the client and raw bytes on one
//! side, the server with a fake `Control` on the other. No daemon, no PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

#[path = "ctl/commands.rs"]
mod commands;
#[path = "ctl/fake.rs"]
mod fake;
#[path = "ctl/following.rs"]
mod following;
#[path = "ctl/kit.rs"]
mod kit;
#[path = "ctl/socket.rs"]
mod socket;
