//! `layout.json` freezes the offsets that clients decode by. `WRITE_FIXTURE=1` writes it anew.

use coordinator::state::{
    Checkpoint, Config, Header, Interval, Round, Slot, State, MAX_CAPACITY, MAX_WITNESSES, RING,
};
use std::fmt::Write;
use std::mem::{offset_of, size_of};

macro_rules! layout {
    ($($name:ident { $($field:ident: $kind:ty),* $(,)? })*) => {{
        let mut out = String::from("{\n");
        let mut separator = "";
        $(
            let mut end = 0;
            let mut fields = Vec::new();
            $(
                let offset = offset_of!($name, $field);
                let _: fn(&$name) -> &$kind = |s| &s.$field; // the type named here is the field's
                assert_eq!(offset, end, concat!("unnamed padding before ", stringify!($name.$field)));
                end = offset + size_of::<$kind>();
                fields.push(format!("      \"{}\": [{}, {}]", stringify!($field), offset, size_of::<$kind>()));
            )*
            assert_eq!(end, size_of::<$name>(), concat!("fields missing in ", stringify!($name)));
            write!(
                out,
                "{separator}  \"{}\": {{\n    \"size\": {},\n    \"fields\": {{\n{}\n    }}\n  }}",
                stringify!($name), size_of::<$name>(), fields.join(",\n"),
            ).unwrap();
            #[allow(unused_assignments)]
            { separator = ",\n"; }
        )*
        out.push_str(",\n");
        out
    }};
}

type Bits = [u64; 4];

fn document() -> String {
    let mut out = layout! {
        Config {
            warmup_time: u64, cooldown_time: u64, max_round_train_time: u64, round_witness_time: u64,
            epoch_time: u64, waiting_for_members_extra_time: u64,
            global_batch_size_warmup_tokens: u64, total_steps: u64, global_batch_size_start: u32,
            global_batch_size_end: u32, max_seq_len: u32, pay_per_tier: [u32; 4],
            init_min_clients: u16, min_clients: u16, min_full_members: u16, witness_nodes: u16,
            max_missed: u16, max_failed_warmups: u16, max_tier: u8, _pad: [u8; 7],
        }
        Interval { start: [u32; 2], len: u32 }
        Checkpoint {
            weights_hash: [u8; 32], history: [u8; 32], step: u64, round: u64, data_index: u64,
            epoch: u64, uri_len: u16, agreed: u8, _pad: [u8; 5], uri: [u8; 128],
        }
        Round {
            number: u64, step: u64, epoch: u64, data_index: u64, opened_at: i64, seed: [u8; 32],
            assigned: Bits, committed: Bits, witnesses: Bits, attested: Bits, accepted: Bits,
            fills: [Interval; 8], samples: u32, num_fills: u16, trained: u8, status: u8,
        }
        Slot {
            wallet: [u8; 32], hot_key: [u8; 32], p2p_key: [u8; 32], earned: u64, last_epoch: u32,
            weight: u16, next_weight: u16, missed: u16, missed_warmups: u16, status: u8, flags: u8,
            tier: u8, next_tier: u8,
        }
        Header {
            version: u64, nonce: u64, run: [u8; 32], spec_hash: [u8; 32], history: [u8; 32],
            seed: [u8; 32], config: Config, round_rate: u64, next_round_rate: u64, pay_carry: u64,
            epoch: u64, step: u64, data_index: u64, next_round: u64, phase_start: i64,
            epoch_start: i64, lost_samples: u64, fills_since_checkpoint: u64,
            lost_since_checkpoint: u64, total_earned: u64, created_slot: u64, capacity: u16, returned_len: u16,
            failed_warmups: u16, uploader: u16, phase: u8, flags: u8, open: u8, _pad: [u8; 5],
            checkpoint: Checkpoint, pending: Checkpoint, rounds: [Round; 4],
        }
    };
    let commitments = RING * 32;
    let attestations = MAX_WITNESSES * size_of::<Bits>();
    write!(
        out,
        concat!(
            "  \"account\": {{\n",
            "    \"discriminator\": 8,\n",
            "    \"parts\": [\n",
            "      {{\"name\": \"header\", \"size\": {}, \"per_slot\": 0}},\n",
            "      {{\"name\": \"slots\", \"size\": 0, \"per_slot\": {}}},\n",
            "      {{\"name\": \"commitments\", \"size\": 0, \"per_slot\": {}}},\n",
            "      {{\"name\": \"attestations\", \"size\": {}, \"per_slot\": 0}},\n",
            "      {{\"name\": \"returned\", \"size\": 0, \"per_slot\": {}}}\n",
            "    ],\n",
            "    \"size_16\": {},\n",
            "    \"size_256\": {}\n",
            "  }}\n}}\n",
        ),
        size_of::<Header>(),
        size_of::<Slot>(),
        commitments,
        attestations,
        size_of::<Interval>(),
        State::account_size(16),
        State::account_size(MAX_CAPACITY),
    )
    .unwrap();
    out
}

#[test]
fn layout_equals_the_fixture() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/layout.json");
    let now = document();
    if std::env::var_os("WRITE_FIXTURE").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        kept, now,
        "the account's layout changed: raise its version, or undo the change"
    );
}

#[test]
fn account_sizes_hold_their_limits() {
    assert!(State::account_size(16) <= 8 * 1024);
    assert!(State::account_size(256) <= 72 * 1024);
    let parts = |capacity: usize| {
        8 + size_of::<Header>()
            + capacity * size_of::<Slot>()
            + RING * capacity * 32
            + MAX_WITNESSES * 32
            + capacity * size_of::<Interval>()
    };
    for capacity in 1..=256 {
        assert_eq!(State::account_size(capacity), parts(capacity));
        assert_eq!(State::capacity_of(State::size(capacity)), Ok(capacity));
        assert!(State::capacity_of(State::size(capacity) + 1).is_err());
    }
    assert!(State::capacity_of(State::size(0)).is_err());
    assert!(State::capacity_of(State::size(257)).is_err());
}
