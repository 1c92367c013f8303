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
    BitIter {
        bits: *bits,
        word: 0,
    }
}

pub struct BitIter {
    bits: Bits,
    word: usize,
}

impl Iterator for BitIter {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        loop {
            let word = self.bits.get_mut(self.word)?;
            if *word == 0 {
                self.word = self.word.wrapping_add(1);
                continue;
            }
            let bit = word.trailing_zeros();
            *word &= word.wrapping_sub(1);
            return Some((self.word << 6) | (bit as usize));
        }
    }
}

/// The 32 bytes of a set, little-endian words.
pub fn to_bytes(bits: &Bits) -> [u8; 32] {
    bytemuck::cast(bits.map(u64::to_le))
}

/// The set that 32 bytes stand for.
pub fn from_le_bytes(bytes: &[u8; 32]) -> Bits {
    bytemuck::pod_read_unaligned::<Bits>(bytes).map(u64::from_le)
}
