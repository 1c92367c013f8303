//! Members come and go; slots stay where they are.

use super::{checkpoint, ensure, signed, slot_mut, touch, Env, Event, MachineError, Reason, Sink};
use crate::state::{bits, phase, round_status, slot_flag, slot_status, Config, Slot, State};

/// Warmups missed in a row that end a member's presence.
pub(super) const MAX_MISSED_WARMUPS: u16 = 3;

/// What a wallet brings along; the limits of its authorization are checked by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    pub wallet: [u8; 32],
    /// May sign the duties; all zero where only the wallet does.
    pub hot_key: [u8; 32],
    pub p2p_key: [u8; 32],
    pub tier: u8,
    pub weight: u16,
}

/// What `settle` did: points to add to the membership account, and whether the slot is free now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    pub moved: u64,
    pub freed: bool,
}

/// Members that could take part in the next epoch, at most one a slot: nothing wraps.
#[derive(Clone, Copy, Default)]
struct Crowd {
    present: u16,
    full: u16,
}

impl Crowd {
    fn count(&mut self, slot: &Slot, max_tier: u8) {
        if is_eligible(slot, max_tier) {
            self.add(slot.next_tier);
        }
    }

    fn add(&mut self, tier: u8) {
        self.present = self.present.wrapping_add(1);
        self.full = self.full.wrapping_add(u16::from(tier == 0));
    }

    /// Whether they could start an epoch.
    fn suffices(self, config: &Config) -> bool {
        self.present >= config.init_min_clients && self.full >= config.min_full_members
    }
}

/// Whether the members present could start an epoch.
pub(super) fn enough_present(s: &State) -> bool {
    let mut crowd = Crowd::default();
    for slot in s.slots.iter() {
        crowd.count(slot, s.header.config.max_tier);
    }
    crowd.suffices(&s.header.config)
}

/// Present, and of a tier that the run still allows.
pub(super) fn is_eligible(slot: &Slot, max_tier: u8) -> bool {
    slot.is_present() && slot.next_tier <= max_tier
}

/// Become a member, or come back. Returns the slot.
///
/// Who comes back into an epoch that it belongs to, with the same tier and weight and without having
/// missed too much, is active at once and says `ready` when it is; everyone else waits for the next epoch.
/// The last slots are kept for the members of tier 0 that an epoch needs.
///
/// # Errors
/// `NotConfigured`, `RunFinished`, `ZeroWallet`, `ZeroWeight`, `TierTooHigh`, `AlreadyJoined`,
/// `DuplicatePeer`, `TableFull`, `KeptForFull`.
pub fn join(
    s: &mut State,
    env: &Env,
    request: &JoinRequest,
    sink: &mut dyn Sink,
) -> Result<u16, MachineError> {
    ensure(
        s.header.phase != phase::UNINITIALIZED,
        MachineError::NotConfigured,
    )?;
    ensure(s.header.phase != phase::FINISHED, MachineError::RunFinished)?;
    let keys = request.wallet != [0; 32] && request.p2p_key != [0; 32];
    ensure(keys, MachineError::ZeroWallet)?;
    ensure(request.weight > 0, MachineError::ZeroWeight)?;
    ensure(
        request.tier <= s.header.config.max_tier,
        MachineError::TierTooHigh,
    )?;
    let mut own = None;
    let mut free = None;
    let mut others = Crowd::default();
    let mut taken = 1u16; // by this member, then by all who are present
    for (index, slot) in s.slots.iter().enumerate() {
        if slot.is_free() {
            free = free.or(Some(index));
        } else if same_key(&slot.wallet, &request.wallet) {
            ensure(!slot.is_present(), MachineError::AlreadyJoined)?;
            own = Some(index);
        } else {
            let same = same_key(&slot.p2p_key, &request.p2p_key);
            ensure(!same, MachineError::DuplicatePeer)?;
            others.count(slot, s.header.config.max_tier);
            taken = taken.wrapping_add(u16::from(slot.is_present()));
        }
    }
    // departed members can be settled, so their slots are room
    let kept = s.header.config.min_full_members.saturating_sub(others.full);
    let room = s.header.capacity.saturating_sub(taken);
    ensure(request.tier == 0 || room >= kept, MachineError::KeptForFull)?;
    let index = own
        .or(free)
        .or_else(|| reclaimable(s))
        .ok_or(MachineError::TableFull)?;
    let number = u16::try_from(index).map_err(|_| MachineError::TableFull)?;
    // the extra wait counts from the member that makes them enough
    let mut together = others;
    together.add(request.tier);
    let starts_wait = s.header.phase == phase::WAITING_FOR_MEMBERS
        && together.suffices(&s.header.config)
        && !others.suffices(&s.header.config);
    let in_epoch = matches!(
        s.header.phase,
        phase::WARMUP | phase::ROUND_TRAIN | phase::ROUND_WITNESS | phase::COOLDOWN
    );
    let max_missed = s.header.config.max_missed;
    let place = slot_mut(s, index)?;
    if own.is_none() {
        *place = Slot::default();
        place.wallet = request.wallet;
        place.tier = request.tier;
        place.weight = request.weight;
    }
    place.hot_key = request.hot_key;
    place.p2p_key = request.p2p_key;
    place.next_tier = request.tier;
    place.next_weight = request.weight;
    place.flags &= slot_flag::IN_EPOCH;
    let active = in_epoch
        && place.has(slot_flag::IN_EPOCH)
        && place.tier == request.tier
        && place.weight == request.weight
        && place.missed < max_missed;
    place.status = if active {
        slot_status::ACTIVE
    } else {
        slot_status::WAITING
    };
    if starts_wait {
        s.header.phase_start = env.now;
    }
    touch(s);
    let JoinRequest {
        wallet,
        tier,
        weight,
        ..
    } = *request;
    sink.emit(Event::Joined {
        slot: number,
        wallet,
        tier,
        weight,
        active,
    });
    Ok(number)
}

/// Equality of keys that mostly differ: comparing 32 bytes is a call, comparing one is not.
fn same_key(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let ([first_a, .., last_a], [first_b, .., last_b]) = (a, b);
    first_a == first_b && last_a == last_b && a == b
}

/// A slot whose member is gone, has nothing to settle and is in no round that anybody needs.
fn reclaimable(s: &State) -> Option<usize> {
    let idle = |slot: &Slot| slot.status == slot_status::DEPARTED && slot.earned == 0;
    (0..s.slots.len()).find(|i| s.slots.get(*i).is_some_and(idle) && !is_named(s, *i))
}

/// Whether a round that is not closed names the slot, or, while members still fold this epoch's log, a
/// closed one that is kept on chain does: its tier and weight belong to the record.
fn is_named(s: &State, slot: usize) -> bool {
    let folding = matches!(
        s.header.phase,
        phase::WARMUP | phase::ROUND_TRAIN | phase::ROUND_WITNESS | phase::COOLDOWN
    );
    s.header.rounds.iter().any(|round| {
        let assigned = bits::contains(&round.assigned, slot);
        match round.status {
            round_status::OPEN | round_status::COMMITTED => {
                assigned || bits::contains(&round.witnesses, slot)
            }
            round_status::CLOSED => assigned && folding,
            _ => false,
        }
    })
}

/// End a presence; the slot stays.
pub(super) fn depart(slot: &mut Slot) {
    slot.status = slot_status::DEPARTED;
    slot.flags &= !(slot_flag::READY | slot_flag::ATTESTED);
}

fn go(s: &mut State, slot: u16, reason: Reason, sink: &mut dyn Sink) -> Result<(), MachineError> {
    let place = slot_mut(s, usize::from(slot))?;
    depart(place);
    let wallet = place.wallet;
    touch(s);
    sink.emit(Event::Left {
        slot,
        wallet,
        reason,
    });
    checkpoint::agree(s, sink); // one holder less may settle it
    Ok(())
}

/// Leave: no more work from the next round on; what was committed still counts and is paid.
///
/// # Errors
/// `NoSuchSlot`, `WrongSigner`, `NotPresent`.
pub fn leave(
    s: &mut State,
    slot: u16,
    signer: &[u8; 32],
    sink: &mut dyn Sink,
) -> Result<(), MachineError> {
    let place = signed(s, slot, signer)?;
    ensure(place.is_present(), MachineError::NotPresent)?;
    go(s, slot, Reason::Left, sink)
}

/// End the presence of a member whose authorization was revoked, which the caller checks. `wallet`
/// is the membership account's.
///
/// # Errors
/// `NoSuchSlot`, `NotPresent`: the wallet is not a member any more.
pub fn evict(
    s: &mut State,
    slot: u16,
    wallet: &[u8; 32],
    sink: &mut dyn Sink,
) -> Result<(), MachineError> {
    let place = s
        .slots
        .get(usize::from(slot))
        .ok_or(MachineError::NoSuchSlot)?;
    ensure(
        place.is_present() && place.wallet == *wallet,
        MachineError::NotPresent,
    )?;
    go(s, slot, Reason::Evicted, sink)
}

/// Take a slot's pay out, for the membership account of `wallet`, and free the slot if its member is
/// gone and no round needs it. Nothing happens, without an error, where the slot is not the wallet's any
/// more: everything was settled when it was freed.
///
/// # Errors
/// `NoSuchSlot`.
pub fn settle(s: &mut State, slot: u16, wallet: &[u8; 32]) -> Result<Settled, MachineError> {
    let index = usize::from(slot);
    let place = s.slots.get(index).ok_or(MachineError::NoSuchSlot)?;
    if place.is_free() || place.wallet != *wallet {
        return Ok(Settled::default());
    }
    let freed = place.status == slot_status::DEPARTED && !is_named(s, index);
    let place = slot_mut(s, index)?;
    let moved = place.earned;
    place.earned = 0;
    if freed {
        *place = Slot::default();
    }
    if freed || moved > 0 {
        touch(s);
    }
    Ok(Settled { moved, freed })
}
