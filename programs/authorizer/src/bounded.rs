//! Texts and lists in the arguments of instructions, no longer than a program's memory can bear.
//!
//! A program has 32 KiB that are never given back. Borsh takes up to 1 MiB for a text or for bytes, as many as their
//! length claims, before it looks whether they are there; a list that really comes, by a call of another program,
//! exhausts the memory as it grows. Both would end the program without an error of its own. These types read the
//! length first and refuse what is too long; otherwise they are what borsh reads and writes.
//!
//! Anchor's IDL generator goes by names: it follows a type alias by its text, and takes `String` for a string and
//! `Vec<u8>` for bytes, whatever these are. So the types are named like those of the standard library, and the programs
//! use aliases: Anchor's macros want the standard library's under these names where the arguments are declared.

use anchor_lang::prelude::borsh::io::{ErrorKind, Read, Result, Write};
use anchor_lang::prelude::*;
use std::{ops::Deref, string, vec};

/// Longest text: a transaction holds no longer one.
pub const MAX_TEXT_BYTES: usize = 1_232;
/// Longest list, in memory: three times what a transaction holds, and twice the delegates of an authorization.
pub const MAX_LIST_BYTES: usize = 4_096;

/// A text or list of limited length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounded<T>(T);
/// A text of at most [`MAX_TEXT_BYTES`].
pub type String = Bounded<string::String>;
/// A list of at most [`MAX_LIST_BYTES`].
pub type Vec<T> = Bounded<vec::Vec<T>>;

/// The text of an argument.
pub type Text = String;
/// Bytes as an argument.
pub type Bytes = Vec<u8>;
/// Keys as an argument.
pub type Keys = Vec<Pubkey>;

impl<T> Bounded<T> {
    /// What was read, as the standard library's type.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> From<T> for Bounded<T> {
    fn from(inner: T) -> Self {
        Self(inner)
    }
}

impl From<String> for string::String {
    fn from(text: String) -> Self {
        text.0
    }
}

impl<T> From<Vec<T>> for vec::Vec<T> {
    fn from(list: Vec<T>) -> Self {
        list.0
    }
}

impl<T: Deref> Deref for Bounded<T> {
    type Target = T::Target;

    fn deref(&self) -> &T::Target {
        &self.0
    }
}

impl<T: AnchorSerialize> AnchorSerialize for Bounded<T> {
    fn serialize<W: Write>(&self, writer: &mut W) -> Result<()> {
        self.0.serialize(writer)
    }
}

impl AnchorDeserialize for String {
    fn deserialize_reader<R: Read>(reader: &mut R) -> Result<Self> {
        at_most(MAX_TEXT_BYTES, reader).map(Self)
    }
}

impl<T: AnchorDeserialize> AnchorDeserialize for Vec<T> {
    fn deserialize_reader<R: Read>(reader: &mut R) -> Result<Self> {
        let most = MAX_LIST_BYTES.checked_div(size_of::<T>());
        at_most(most.unwrap_or(MAX_LIST_BYTES), reader).map(Self)
    }
}

/// Reads as borsh does, once the length in front has been seen to be at most `most`.
fn at_most<T: AnchorDeserialize, R: Read>(most: usize, reader: &mut R) -> Result<T> {
    let len = u32::deserialize_reader(reader)?;
    if !usize::try_from(len).is_ok_and(|len| len <= most) {
        return Err(ErrorKind::InvalidData.into());
    }
    T::deserialize_reader(&mut (&len.to_le_bytes()[..]).chain(reader))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(value: &impl AnchorSerialize) -> vec::Vec<u8> {
        let mut data = vec![];
        value.serialize(&mut data).expect("writes to memory");
        data
    }

    fn refused<T: AnchorDeserialize>(data: &[u8]) -> bool {
        matches!(T::deserialize(&mut &data[..]), Err(e) if e.kind() == ErrorKind::InvalidData)
    }

    #[test]
    fn a_length_that_is_claimed_is_refused_whether_it_comes_or_not() {
        for len in [MAX_LIST_BYTES as u32 + 1, 1 << 20, u32::MAX] {
            let head = len.to_le_bytes();
            assert!(refused::<Text>(&head) && refused::<Bytes>(&head) && refused::<Keys>(&head));
        }
        for len in [1, 100, MAX_TEXT_BYTES as u32] {
            let head = len.to_le_bytes();
            assert!(refused::<Text>(&head) && refused::<Bytes>(&head) && refused::<Keys>(&head));
        }
        let longest = "x".repeat(MAX_TEXT_BYTES);
        assert!(!refused::<Text>(&written(&longest)));
        assert!(refused::<Text>(&written(&(longest + "x"))));
        assert!(!refused::<Bytes>(&written(&vec![7; MAX_LIST_BYTES])));
        assert!(refused::<Bytes>(&written(&vec![7; MAX_LIST_BYTES + 1])));
        let keys = vec![Pubkey::default(); MAX_LIST_BYTES / 32 + 1];
        assert!(!refused::<Keys>(&written(&keys[1..].to_vec())));
        assert!(refused::<Keys>(&written(&keys)));
    }

    proptest! {
        #[test]
        fn any_data_are_read_as_borsh_reads_them_or_refused(
            len in 0u32..100, body in proptest::collection::vec(any::<u8>(), 0..100), ascii: bool
        ) {
            let body = body.iter().map(|b| if ascii { b & 127 } else { *b });
            let data: vec::Vec<u8> = len.to_le_bytes().into_iter().chain(body).collect();
            let (mut ours, mut borsh) = (&data[..], &data[..]);
            let texts = (
                Text::deserialize(&mut ours).map(string::String::from).ok(),
                string::String::deserialize(&mut borsh).ok(),
            );
            prop_assert_eq!(&texts.0, &texts.1);
            if texts.0.is_some() {
                prop_assert_eq!(ours, borsh);
                prop_assert_eq!(written(&Text::from(texts.1.unwrap_or_default())), &data[..data.len() - ours.len()]);
            }
            prop_assert_eq!(
                Bytes::deserialize(&mut &data[..]).map(vec::Vec::from).ok(),
                vec::Vec::<u8>::deserialize(&mut &data[..]).ok()
            );
        }

        #[test]
        fn what_is_written_is_what_borsh_writes(text: string::String, bytes: vec::Vec<u8>, keys: vec::Vec<[u8; 32]>) {
            let keys: vec::Vec<Pubkey> = keys.into_iter().map(Pubkey::from).collect();
            prop_assert_eq!(written(&Text::from(text.clone())), written(&text));
            prop_assert_eq!(written(&Bytes::from(bytes.clone())), written(&bytes));
            prop_assert_eq!(written(&Keys::from(keys.clone())), written(&keys));
            let back = Keys::deserialize(&mut &written(&keys)[..]).map(Bounded::into_inner);
            prop_assert_eq!(back.ok(), Some(keys));
        }
    }
}
