//! The `RunState` account as typed memory.

pub mod bits;
mod layout;

pub use layout::*;

use crate::machine::MachineError;
use core::mem::size_of;

/// A view of a `RunState` account, after its discriminator.
pub struct State<'a> {
    pub header: &'a mut Header,
    pub slots: &'a mut [Slot],
    /// Commitment of slot `s` in the round of ring index `r`: `commitments[r * capacity + s]`.
    pub commitments: &'a mut [[u8; 32]],
    /// What the `k`-th witness, in slot order, of the round being attested holds.
    pub attestations: &'a mut [Bits; MAX_WITNESSES],
    pub returned: &'a mut [Interval],
}

const FIXED: usize = size_of::<Header>() + size_of::<[Bits; MAX_WITNESSES]>();
const PER_SLOT: usize = size_of::<Slot>() + RING * size_of::<[u8; 32]>() + size_of::<Interval>();
/// Anchor's account discriminator.
pub const DISCRIMINATOR: usize = 8;

impl<'a> State<'a> {
    /// Bytes after the discriminator.
    pub const fn size(capacity: usize) -> usize {
        FIXED.saturating_add(PER_SLOT.saturating_mul(capacity))
    }

    /// Bytes of the whole account.
    pub const fn account_size(capacity: usize) -> usize {
        Self::size(capacity).saturating_add(DISCRIMINATOR)
    }

    /// The capacity of an account with `len` bytes after the discriminator.
    ///
    /// # Errors
    /// `WrongSize`: no capacity from 1 to [`MAX_CAPACITY`] has this size.
    pub fn capacity_of(len: usize) -> Result<usize, MachineError> {
        let capacity = len
            .checked_sub(FIXED)
            .and_then(|rest| rest.checked_div(PER_SLOT))
            .ok_or(MachineError::WrongSize)?;
        if capacity == 0 || capacity > MAX_CAPACITY || Self::size(capacity) != len {
            return Err(MachineError::WrongSize);
        }
        Ok(capacity)
    }

    /// View an account's bytes, which start after the discriminator and at a multiple of 8 in memory.
    ///
    /// # Errors
    /// `WrongSize`, `WrongVersion`, `Misaligned`.
    pub fn from_bytes(data: &'a mut [u8]) -> Result<Self, MachineError> {
        let state = Self::cast(data)?;
        if state.header.version != VERSION {
            return Err(MachineError::WrongVersion);
        }
        if usize::from(state.header.capacity) != state.slots.len() {
            return Err(MachineError::WrongSize);
        }
        Ok(state)
    }

    /// Make a new run's state out of zeroed memory.
    ///
    /// # Errors
    /// `WrongSize`, `Misaligned`, `NotZeroed`.
    pub fn init(
        data: &'a mut [u8],
        run: &[u8; 32],
        created_slot: u64,
    ) -> Result<Self, MachineError> {
        let state = Self::cast(data)?;
        let header = &mut *state.header;
        if header.version != 0 || header.capacity != 0 || header.nonce != 0 {
            return Err(MachineError::NotZeroed);
        }
        header.version = VERSION;
        header.run = *run;
        header.created_slot = created_slot;
        header.capacity = u16::try_from(state.slots.len()).map_err(|_| MachineError::WrongSize)?;
        header.next_round = 1;
        header.checkpoint.round = 1;
        header.uploader = NO_UPLOADER;
        Ok(state)
    }

    fn cast(data: &'a mut [u8]) -> Result<Self, MachineError> {
        let capacity = Self::capacity_of(data.len())?;
        let (header, data) = split(data, size_of::<Header>())?;
        let (slots, data) = split(data, size_of::<Slot>().saturating_mul(capacity))?;
        let row = size_of::<[u8; 32]>().saturating_mul(capacity);
        let (commitments, data) = split(data, row.saturating_mul(RING))?;
        let (attestations, returned) = split(data, size_of::<[Bits; MAX_WITNESSES]>())?;
        let misaligned = |_| MachineError::Misaligned;
        Ok(Self {
            header: bytemuck::try_from_bytes_mut(header).map_err(misaligned)?,
            slots: bytemuck::try_cast_slice_mut(slots).map_err(misaligned)?,
            commitments: bytemuck::try_cast_slice_mut(commitments).map_err(misaligned)?,
            attestations: bytemuck::try_from_bytes_mut(attestations).map_err(misaligned)?,
            returned: bytemuck::try_cast_slice_mut(returned).map_err(misaligned)?,
        })
    }

    /// The slot of a wallet that is a member or has unsettled pay.
    pub fn slot_of(&self, wallet: &[u8; 32]) -> Option<u16> {
        let found = self
            .slots
            .iter()
            .position(|s| !s.is_free() && s.wallet == *wallet);
        found.and_then(|i| u16::try_from(i).ok())
    }
}

fn split(data: &mut [u8], at: usize) -> Result<(&mut [u8], &mut [u8]), MachineError> {
    data.split_at_mut_checked(at).ok_or(MachineError::WrongSize)
}
