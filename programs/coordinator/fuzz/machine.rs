//! The state machine against arbitrary bytes. See `harness.rs` for what they stand for.

#![no_main]
#![allow(dead_code)] // not everything that the program uses is used here

#[path = "../src/machine/mod.rs"]
mod machine;
#[path = "../src/state/mod.rs"]
mod state;

mod harness;

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::run(data));
