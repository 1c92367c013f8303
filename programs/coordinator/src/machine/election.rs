//! Draws from a round's seed. Clients read the result; they never repeat a draw.

use crate::state::{bits, Bits, MAX_CAPACITY};
use solana_sha256_hasher::hashv;

/// A short stream of numbers out of a seed (splitmix64).
struct Draw(u64);

impl Draw {
    fn new(seed: &[u8; 32], label: &[u8]) -> Self {
        let digest = hashv(&[seed, label]).to_bytes();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        Self(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }

    /// A number below `bound`, which is at most 256.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let z = z ^ (z >> 31);
        let bound = u64::try_from(bound).unwrap_or(0);
        usize::try_from((z >> 32).wrapping_mul(bound) >> 32).unwrap_or(0)
    }
}

/// Draw `want` of the candidates, all of them where there are no more.
pub(super) fn draw(candidates: &Bits, want: usize, seed: &[u8; 32], label: &[u8]) -> Bits {
    let mut list = [0u8; MAX_CAPACITY];
    let mut len = 0usize;
    for (entry, slot) in list.iter_mut().zip(bits::iter(candidates)) {
        *entry = u8::try_from(slot).unwrap_or(u8::MAX);
        len = len.saturating_add(1);
    }
    if len <= want {
        return *candidates;
    }
    let mut stream = Draw::new(seed, label);
    let mut drawn = bits::EMPTY;
    for _ in 0..want {
        // take one out, put the last one in its place
        let chosen = stream.below(len);
        len = len.saturating_sub(1);
        let last = list.get(len).copied().unwrap_or(0);
        if let Some(entry) = list.get_mut(chosen) {
            bits::insert(&mut drawn, usize::from(*entry));
            *entry = last;
        }
    }
    drawn
}

/// Draw one of the candidates.
pub(super) fn draw_one(candidates: &Bits, seed: &[u8; 32], label: &[u8]) -> Option<usize> {
    bits::iter(&draw(candidates, 1, seed, label)).next()
}
