//! Sharing a round's rate among the accepted slots.

use super::MachineError;
use crate::state::{bits, Bits, Header, Slot};

/// Highest `round_rate`: with the largest carry the sum stays in 64 bits.
pub(super) const MAX_ROUND_RATE: u64 = 1 << 62;
/// Highest `pay_per_tier`: shares stay below 2^36 and their sum below 2^44, so that every product
/// here fits 64 bits; wider division is slow on chain.
pub(super) const MAX_PAY_PER_TIER: u32 = 1_000_000;

fn share(header: &Header, slot: &Slot) -> u64 {
    let pay = header
        .config
        .pay_per_tier
        .get(usize::from(slot.tier))
        .copied()
        .unwrap_or(0);
    u64::from(slot.weight).wrapping_mul(u64::from(pay)) // 16 bits times 32
}

/// Pay the accepted slots: each the floor of `total * share / sum`; the remainder is carried to the
/// next round that pays. Returns what was paid. Where no accepted slot has a share nothing changes.
///
/// A run that has earned all that 64 bits can count pays no more.
///
/// # Errors
/// `Overflow`: the configuration is out of its bounds.
pub(super) fn pay(
    header: &mut Header,
    slots: &mut [Slot],
    accepted: &Bits,
) -> Result<u64, MachineError> {
    let mut sum = 0u64;
    bits::each(accepted, slots.iter(), |_, place| {
        sum = sum.saturating_add(share(header, place));
        Ok::<(), MachineError>(())
    })?;
    let total = header
        .round_rate
        .checked_add(header.pay_carry)
        .ok_or(MachineError::Overflow)?;
    if sum == 0 || header.total_earned.checked_add(total).is_none() {
        return Ok(0);
    }
    let mut paid = 0u64;
    let mut last = (0u64, 0u64); // share and amount of the slot before: most slots are alike
    bits::each(accepted, slots, |_, place| {
        let share = share(header, place);
        if share != last.0 {
            last = (
                share,
                portion(total, share, sum).ok_or(MachineError::Overflow)?,
            );
        }
        place.earned = place
            .earned
            .checked_add(last.1)
            .ok_or(MachineError::Overflow)?;
        paid = paid.checked_add(last.1).ok_or(MachineError::Overflow)?;
        Ok(())
    })?;
    header.total_earned = header
        .total_earned
        .checked_add(paid)
        .ok_or(MachineError::Overflow)?;
    header.pay_carry = total.checked_sub(paid).ok_or(MachineError::Overflow)?;
    Ok(paid)
}

/// `floor(total * share / sum)` in 64-bit steps, for `share <= sum < 2^44` and `share < 2^36`; `None`
/// for a sum of 0. Within these bounds no product wraps; checked ones are slow on chain.
fn portion(total: u64, share: u64, sum: u64) -> Option<u64> {
    const HALF: u32 = 18;
    let whole = total.checked_div(sum)?.wrapping_mul(share); // <= total
    let rest = total.checked_rem(sum)?;
    let (high, low) = (share >> HALF, share & ((1 << HALF) - 1));
    let upper = rest.wrapping_mul(high); // < 2^62
    let lower = rest.wrapping_mul(low); // < 2^62
    let carried = upper.checked_rem(sum)? << HALF; // < 2^62
    let fine = carried.wrapping_add(lower).checked_div(sum)?;
    let coarse = upper.checked_div(sum)? << HALF;
    Some(whole.wrapping_add(coarse).wrapping_add(fine))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn portion_equals_wide_division(
            total in 0..=(MAX_ROUND_RATE + (1 << 44)),
            share in 0u64..(1 << 36),
            others in 1u64..(1 << 43),
        ) {
            let sum = share + others;
            let wide = u128::from(total) * u128::from(share) / u128::from(sum);
            prop_assert_eq!(portion(total, share, sum), Some(u64::try_from(wide).unwrap()));
        }
    }

    #[test]
    fn portion_at_the_bounds_fits() {
        let share = u64::from(u16::MAX) * u64::from(MAX_PAY_PER_TIER);
        let sum = share * 256;
        assert_eq!(
            portion(MAX_ROUND_RATE, share, sum),
            Some(MAX_ROUND_RATE / 256)
        );
        assert_eq!(portion(MAX_ROUND_RATE, share, share), Some(MAX_ROUND_RATE));
    }
}
