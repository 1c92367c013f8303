//! Opening a round: the seed moves on, work is assigned, the witnesses of the round before are drawn.

use super::{data, election, Env, Event, MachineError, Sink};
use crate::state::{
    bits, round_status, Bits, Header, Interval, Round, Slot, State, FILLS, MAX_WITNESSES, RING,
};
use solana_sha256_hasher::hashv;

/// The members that can be given work and be drawn.
pub(super) fn assignable(slots: &[Slot]) -> Bits {
    select(slots, Slot::is_assignable)
}

/// The slots for which `wanted` says so.
pub(super) fn select<S>(
    slots: impl IntoIterator<Item = S>,
    mut wanted: impl FnMut(S) -> bool,
) -> Bits {
    let mut slots = slots.into_iter();
    let mut set = bits::EMPTY;
    for word in &mut set {
        let mut mask = 1u64;
        for slot in slots.by_ref().take(64) {
            if wanted(slot) {
                *word |= mask;
            }
            mask = mask.wrapping_shl(1);
        }
    }
    set
}

/// The newest round.
pub(super) fn open_round(header: &Header) -> Result<&Round, MachineError> {
    header
        .rounds
        .get(usize::from(header.open))
        .ok_or(MachineError::Overflow)
}

/// Ring index of the round that is being attested: the one before the newest, while it is not closed.
pub(super) fn attested_index(header: &Header) -> Option<usize> {
    let before = usize::from(header.open).wrapping_sub(1) & (RING - 1);
    let round = header.rounds.get(before)?;
    (round.status == round_status::COMMITTED).then_some(before)
}

/// Open the next round: `trained` with the `assignable` members, or a drain round in which nobody
/// trains and the round before is attested. `history` is the log's before this transition closed anything: its last
/// vote knows the slot hash, so a seed that depended on that vote could be chosen.
pub(super) fn open(
    s: &mut State,
    env: &Env,
    history: &[u8; 32],
    assignable: &Bits,
    trained: bool,
    sink: &mut dyn Sink,
) -> Result<(), MachineError> {
    let header = &mut *s.header;
    header.seed = hashv(&[&header.seed, history, &env.slot_hash]).to_bytes();
    let number = header.next_round;
    let index = usize::try_from(number & 3).map_err(|_| MachineError::Overflow)?;
    header.open = u8::try_from(index).map_err(|_| MachineError::Overflow)?;
    header.next_round = number.checked_add(1).ok_or(MachineError::Overflow)?;

    let want = match header.config.witness_nodes {
        0 => MAX_WITNESSES,
        n => usize::from(n).min(MAX_WITNESSES),
    };
    let mut witnesses = bits::EMPTY;
    let before = attested_index(header).and_then(|i| header.rounds.get_mut(i));
    if let Some(before) = before.filter(|r| !bits::is_empty(&r.committed)) {
        witnesses = election::draw(assignable, want, &header.seed, b"witness");
        before.witnesses = witnesses;
        before.attested = bits::EMPTY;
    }

    let mut round = Round {
        number,
        step: header.step,
        epoch: header.epoch,
        data_index: header.data_index,
        opened_at: env.now,
        seed: header.seed,
        assigned: bits::EMPTY,
        committed: bits::EMPTY,
        witnesses: bits::EMPTY,
        attested: bits::EMPTY,
        accepted: bits::EMPTY,
        fills: [Interval::default(); FILLS],
        samples: 0,
        num_fills: 0,
        trained: u8::from(trained),
        status: round_status::OPEN,
    };
    if trained {
        round.assigned = *assignable;
        round.samples = data::batch_size(header, bits::count(assignable))?;
        data::take(header, s.returned, &mut round)?;
        header.step = header.step.checked_add(1).ok_or(MachineError::Overflow)?;
    }
    sink.emit(Event::RoundOpened {
        round: number,
        step: round.step,
        epoch: round.epoch,
        trained,
        seed: round.seed,
        data_index: round.data_index,
        samples: round.samples,
        assigned: round.assigned,
        witnesses,
    });
    *header.rounds.get_mut(index).ok_or(MachineError::Overflow)? = round;
    Ok(())
}
