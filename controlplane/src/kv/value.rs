//! How values are written: protobuf with a schema number, keeping what a newer version has added.
//!
//! During a rolling upgrade a replica rewrites values that a newer one has written. Field numbers are
//! contiguous and never reused, so every top-level field above the highest one known here belongs to a
//! newer version, and is carried over byte by byte.

use std::ops::{Deref, DerefMut};

use bytes::{Buf as _, Bytes};
use ferrypost_proto::store::v1 as stored;
use prost::{
    Message,
    encoding::{WireType, decode_key, decode_varint},
};

/// A message that is a value of the store.
pub trait Value: Message + Default + Clone {
    /// The version of this value's meaning that is written here.
    const SCHEMA: u32 = 1;
    /// The highest field number known here.
    const HIGHEST_FIELD: u32;

    /// The version that the value was written with.
    fn schema(&self) -> u32;

    /// Sets the version.
    fn set_schema(&mut self, schema: u32);
}

macro_rules! values {
    ($($message:ident: $highest:literal,)*) => {
        $(impl Value for stored::$message {
            const HIGHEST_FIELD: u32 = $highest;

            fn schema(&self) -> u32 {
                self.schema
            }

            fn set_schema(&mut self, schema: u32) {
                self.schema = schema;
            }
        })*

        /// Every stored message with its highest field number.
        #[cfg(test)]
        const ALL: &[(&str, u32)] = &[$((stringify!($message), $highest)),*];
    };
}

values! {
    Installation: 5,
    RoutingHead: 2,
    Fleet: 1,
    Rewound: 6,
    StoredConfig: 2,
    AccountRecord: 10,
    NameEntry: 2,
    Registration: 13,
    RefusedClaim: 4,
    Expelled: 5,
    Departed: 2,
    Live: 11,
    MigrationRecord: 25,
    RequestEntry: 3,
    DrainedReport: 3,
    CookieKeys: 3,
    Leader: 2,
    StoredCommand: 3,
    StoredResult: 2,
}

/// A value together with the fields of a newer version that came with it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stored<T> {
    value: T,
    later: Box<[u8]>,
}

/// A value that cannot be read. What is in the store was not written by any Ferrypost, or is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a value of the store cannot be read")]
pub struct UnreadableValue;

impl<T: Value> Stored<T> {
    /// A new value, of this version.
    pub fn new(value: T) -> Self {
        Self {
            value,
            later: Box::default(),
        }
    }

    /// Puts a value together again from what [`Self::into_parts`] gave.
    pub fn from_parts(value: T, later: Box<[u8]>) -> Self {
        Self { value, later }
    }

    /// The value, and the encoded fields of a newer version.
    pub fn into_parts(self) -> (T, Box<[u8]>) {
        (self.value, self.later)
    }

    /// Reads a value as far as it is known here, whatever its schema.
    pub fn read(bytes: &[u8]) -> Result<Self, UnreadableValue> {
        let value = T::decode(bytes).map_err(|_| UnreadableValue)?;
        Ok(Self {
            value,
            later: fields_above(T::HIGHEST_FIELD, bytes).ok_or(UnreadableValue)?,
        })
    }

    /// The bytes to write. The schema is never lowered: what a newer version has written stays its own.
    pub fn bytes(&self) -> Bytes {
        let mut value = self.value.clone();
        value.set_schema(self.value.schema().max(T::SCHEMA));
        let mut bytes = value.encode_to_vec();
        bytes.extend_from_slice(&self.later);
        bytes.into()
    }

    /// True for a value of a later version: it may mean more than is known here.
    pub fn is_newer(&self) -> bool {
        self.value.schema() > T::SCHEMA
    }
}

impl<T> Deref for Stored<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Stored<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// The encoded top-level fields with numbers above `highest`; `None` when the framing is broken.
fn fields_above(highest: u32, bytes: &[u8]) -> Option<Box<[u8]>> {
    let mut later = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let field = rest;
        let (number, wire_type) = decode_key(&mut rest).ok()?;
        let length = match wire_type {
            WireType::Varint => {
                decode_varint(&mut rest).ok()?;
                0
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => usize::try_from(decode_varint(&mut rest).ok()?).ok()?,
            // proto3 has no groups.
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        if rest.len() < length {
            return None;
        }
        rest.advance(length);
        if number > highest {
            later.extend_from_slice(&field[..field.len() - rest.len()]);
        }
    }
    Some(later.into())
}

#[cfg(test)]
mod tests {
    use ferrypost_proto::DESCRIPTORS;
    use prost_types::{FieldDescriptorProto, FileDescriptorSet};

    use super::*;

    /// A field that is added to a message and forgotten here would be written twice.
    #[test]
    fn the_highest_fields_are_those_of_the_contract() {
        let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
        let file = set
            .file
            .iter()
            .find(|file| file.package() == "ferrypost.store.v1")
            .unwrap();
        let mut nested = 0;
        for message in &file.message_type {
            let highest = message
                .field
                .iter()
                .map(FieldDescriptorProto::number)
                .max()
                .unwrap();
            assert_eq!(
                usize::try_from(highest).unwrap(),
                message.field.len(),
                "{}: field numbers are contiguous",
                message.name()
            );
            if message.field[0].name() != "schema" {
                nested += 1;
                continue;
            }
            let known = ALL.iter().find(|(name, _)| *name == message.name());
            let known = known.unwrap_or_else(|| panic!("{} is missing", message.name()));
            assert_eq!(known.1, u32::try_from(highest).unwrap(), "{}", known.0);
        }
        assert_eq!(ALL.len() + nested, file.message_type.len());
    }

    #[test]
    fn fields_and_schema_of_a_newer_version_survive_a_rewrite() {
        let newer = [
            b"\x08\x07".as_slice(),                  // schema 7
            b"\x12\x03abc",                          // account_id
            b"\x18\x05",                             // 3: varint
            b"\x22\x02hi",                           // 4: bytes
            b"\x2d\x01\x02\x03\x04",                 // 5: fixed32
            b"\x31\x01\x02\x03\x04\x05\x06\x07\x08", // 6: fixed64
        ]
        .concat();
        let mut entry = Stored::<stored::NameEntry>::read(&newer).unwrap();
        assert!(entry.is_newer());
        assert_eq!(entry.account_id, "abc");
        assert_eq!(entry.bytes(), newer);
        entry.account_id = "abd".into();
        let rewritten = Stored::<stored::NameEntry>::read(&entry.bytes()).unwrap();
        assert_eq!(rewritten.account_id, "abd");
        assert_eq!(rewritten.schema(), 7);
        assert_eq!(rewritten.into_parts().1, entry.into_parts().1);
    }

    #[test]
    fn a_new_value_carries_our_schema() {
        let entry = Stored::new(stored::NameEntry::default());
        let read = Stored::<stored::NameEntry>::read(&entry.bytes()).unwrap();
        assert_eq!(read.schema(), stored::NameEntry::SCHEMA);
        assert!(!read.is_newer());
    }

    #[test]
    fn damage_is_an_error() {
        for bytes in [b"\x12\x09abc".as_slice(), b"\x1b", b"\x2d\x01", b"\xff"] {
            assert!(
                Stored::<stored::NameEntry>::read(bytes).is_err(),
                "{}",
                bytes.escape_ascii()
            );
        }
    }
}
