//! Arbitrary bytes as the first of a connection: SSL and GSS requests, cancel, startup packet.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| writefence::fuzzing::startup(data));
