//! A bounded part of what `make fuzz-machine` does without end: the same harness, inputs from a fixed seed.

use coordinator::{machine, state};

#[path = "../fuzz/harness.rs"]
mod harness;

/// splitmix64
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn input(&mut self, mode: u8, len: usize) -> Vec<u8> {
        let mut input: Vec<u8> = (0..len).map(|_| (self.next() >> 32) as u8).collect();
        input[0] = mode;
        input
    }
}

fn inputs(mode: u8, count: u64, len: usize) {
    for seed in 0..count {
        harness::run(&Random(seed).input(mode, len));
    }
}

#[test]
fn any_calls_on_a_run_are_done_or_refused() {
    inputs(0, 200, 3000);
}

#[test]
fn any_calls_on_a_run_with_damaged_bytes_are_done_or_refused() {
    inputs(2, 200, 3000);
}

#[test]
fn any_calls_on_any_bytes_are_done_or_refused() {
    inputs(3, 2000, 9000);
}

#[test]
fn short_inputs_are_inputs() {
    for len in 0..40 {
        harness::run(&vec![255; len]);
        harness::run(&vec![0; len]);
    }
}
