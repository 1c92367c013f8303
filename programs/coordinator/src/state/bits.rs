//! Sets of slots in four words.

use super::layout::Bits;

pub const EMPTY: Bits = [0; 4];

/// Word index and mask of a slot; slots beyond 255 have no bit.
fn locate(slot: usize) -> (usize, u64) {
    let mask = if slot < 256 { 1u64 << (slot & 63) } else { 0 };
    (slot >> 6, mask)
}

pub fn contains(bits: &Bits, slot: usize) -> bool {
    let (word, mask) = locate(slot);
    bits.get(word).is_some_and(|w| w & mask != 0)
}

pub fn insert(bits: &mut Bits, slot: usize) {
    let (word, mask) = locate(slot);
    if let Some(w) = bits.get_mut(word) {
        *w |= mask;
    }
}

pub fn remove(bits: &mut Bits, slot: usize) {
    let (word, mask) = locate(slot);
    if let Some(w) = bits.get_mut(word) {
        *w &= !mask;
    }
}

pub fn count(bits: &Bits) -> u32 {
    let [a, b, c, d] = bits;
    a.count_ones()
        .saturating_add(b.count_ones())
        .saturating_add(c.count_ones())
        .saturating_add(d.count_ones())
}

pub fn is_empty(bits: &Bits) -> bool {
    let [a, b, c, d] = bits;
    a | b | c | d == 0
}

pub fn and(x: &Bits, y: &Bits) -> Bits {
    let ([a, b, c, d], [e, f, g, h]) = (x, y);
    [a & e, b & f, c & g, d & h]
}

pub fn or(x: &Bits, y: &Bits) -> Bits {
    let ([a, b, c, d], [e, f, g, h]) = (x, y);
    [a | e, b | f, c | g, d | h]
}

/// The slots of `x` that are not in `y`.
pub fn minus(x: &Bits, y: &Bits) -> Bits {
    let ([a, b, c, d], [e, f, g, h]) = (x, y);
    [a & !e, b & !f, c & !g, d & !h]
}

/// How many slots of the set come before `slot`.
pub fn rank(bits: &Bits, slot: usize) -> usize {
    let mut rank = 0u32;
    let mut base = 0usize;
    for word in bits {
        let below = slot.saturating_sub(base).min(64);
        let mask = match below {
            64 => u64::MAX,
            n => (1u64 << n).wrapping_sub(1),
        };
        rank = rank.saturating_add((word & mask).count_ones());
        base = base.saturating_add(64);
    }
    usize::try_from(rank).unwrap_or(usize::MAX)
}

/// The slots of a set, ascending.
pub fn iter(bits: &Bits) -> BitIter {
    let [rest, later @ ..] = *bits;
    BitIter {
        rest,
        slot: 0,
        later,
        word: 0,
    }
}

pub struct BitIter {
    /// What is left of the current word, shifted so that `slot` is its lowest bit.
    rest: u64,
    slot: usize,
    later: [u64; 3],
    word: usize,
}

impl Iterator for BitIter {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while self.rest == 0 {
            self.rest = *self.later.get(self.word)?;
            self.word = self.word.wrapping_add(1);
            self.slot = self.word << 6;
        }
        // step by step: the chain has no instruction that counts zeros
        while self.rest & 0xff == 0 {
            self.rest >>= 8;
            self.slot = self.slot.wrapping_add(8);
        }
        while self.rest & 1 == 0 {
            self.rest >>= 1;
            self.slot = self.slot.wrapping_add(1);
        }
        let slot = self.slot;
        self.rest >>= 1;
        self.slot = slot.wrapping_add(1);
        Some(slot)
    }
}

/// Calls `f` with the items of the set's slots, ascending: where many slots are in the set this is the fastest way
/// through the table.
///
/// # Errors
/// The first one of `f`, which ends it.
pub fn each<T, E>(
    bits: &Bits,
    table: impl IntoIterator<Item = T>,
    mut f: impl FnMut(usize, T) -> Result<(), E>,
) -> Result<(), E> {
    if is_empty(bits) {
        return Ok(());
    }
    let mut table = table.into_iter();
    let mut slot = 0usize;
    for word in bits {
        let mut rest = *word;
        if rest == 0 {
            table.nth(63); // none of these
            slot = slot.wrapping_add(64);
            continue;
        }
        for item in table.by_ref().take(64) {
            if rest & 1 != 0 {
                f(slot, item)?;
            }
            rest >>= 1;
            slot = slot.wrapping_add(1);
        }
    }
    Ok(())
}

/// The 32 bytes of a set, little-endian words.
pub fn to_bytes(bits: &Bits) -> [u8; 32] {
    bytemuck::cast(bits.map(u64::to_le))
}

/// The set that 32 bytes stand for.
pub fn from_le_bytes(bytes: &[u8; 32]) -> Bits {
    bytemuck::pod_read_unaligned::<Bits>(bytes).map(u64::from_le)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn iter_and_each_visit_the_slots_of_a_set_in_order(
            words in prop::array::uniform4(prop_oneof![
                Just(0u64),
                Just(u64::MAX),
                any::<u64>(),
                (0u32..64).prop_map(|bit| 1 << bit),
            ]),
            len in 0usize..=256,
        ) {
            let wanted: Vec<usize> = (0..256).filter(|slot| contains(&words, *slot)).collect();
            prop_assert_eq!(iter(&words).collect::<Vec<_>>(), &wanted[..]);
            let table: Vec<usize> = (0..len).collect();
            let mut seen = Vec::new();
            let all = each(&words, &table, |slot, item| {
                seen.push(slot);
                if slot == *item { Ok(()) } else { Err(slot) }
            });
            prop_assert_eq!(all, Ok(()));
            let within: Vec<usize> = wanted.iter().copied().filter(|slot| *slot < len).collect();
            prop_assert_eq!(seen, within);
        }
    }

    #[test]
    fn each_ends_at_the_first_error() {
        let mut calls = 0;
        let all = each(&[0b1110, 0, 0, 1], 0..256, |slot, _| {
            calls += 1;
            if slot < 2 {
                Ok(())
            } else {
                Err(slot)
            }
        });
        assert_eq!((all, calls), (Err(2), 2));
    }
}
