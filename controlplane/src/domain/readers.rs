//! Which registered data planes read a routing configuration.

use std::fmt;

use ferrypost_proto::{InstanceId, Versions};

use super::state::State;

/// A registered data plane that does not read a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Which.
    pub instance: InstanceId,
    /// What it reads.
    pub reads: Versions,
    /// What the document needs.
    pub needs: u32,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            instance,
            reads,
            needs,
        } = self;
        write!(
            f,
            "the document needs schema {needs}, and data plane {instance} reads {reads}: upgrade it \
             first"
        )
    }
}

/// The registered data planes that do not read a document which needs `needs`, the oldest first. Whatever
/// cannot be read of a registration counts as the first version.
pub fn not_read_by(state: &State, needs: u32) -> Vec<Unread> {
    let mut unread: Vec<_> = state
        .registrations()
        .iter()
        .map(|(instance, registration)| Unread {
            instance: instance.clone(),
            reads: Versions::stated(registration.value.schemas).unwrap_or(Versions::FIRST),
            needs,
        })
        .filter(|reader| !reader.reads.contains(needs))
        .collect();
    unread.sort_by_key(|reader| reader.reads.newest());
    unread
}

#[cfg(test)]
mod tests {
    use ferrypost_proto::{store::v1::Registration, v1::VersionRange};

    use super::*;
    use crate::kv::{Event, KeyValue, keys, value::Stored};

    fn registered(planes: &[(&str, Option<(u32, u32)>)]) -> State {
        let mut state = State::default();
        for (revision, (instance, reads)) in (1..).zip(planes) {
            let range = |(oldest, newest)| VersionRange { oldest, newest };
            let registration = Registration {
                schemas: reads.map(range),
                ..Registration::default()
            };
            let instance = InstanceId::parse(instance).expect("an instance id");
            let entry = KeyValue {
                key: keys::registration(&instance),
                value: Stored::new(registration).bytes(),
                create_revision: revision,
                mod_revision: revision,
            };
            state.take(&Event::Put(entry), revision);
        }
        state
    }

    #[test]
    fn the_oldest_reader_decides_and_is_named_first() {
        let state = registered(&[
            ("dp-1", Some((1, 2))),
            ("dp-2", Some((1, 3))),
            ("dp-3", None),
        ]);
        let unread = |needs| {
            let unread = not_read_by(&state, needs);
            let instances = unread.iter().map(|reader| reader.instance.to_string());
            instances.collect::<Vec<_>>()
        };
        assert_eq!(unread(1), [""; 0]);
        assert_eq!(unread(2), ["dp-3"]);
        assert_eq!(unread(3), ["dp-3", "dp-1"]);
        assert_eq!(unread(4), ["dp-3", "dp-1", "dp-2"]);
    }

    #[test]
    fn what_a_registration_does_not_say_or_says_wrong_is_the_first_version() {
        let state = registered(&[
            ("dp-1", None),
            ("dp-2", Some((0, 9))),
            ("dp-3", Some((3, 2))),
        ]);
        assert!(not_read_by(&state, 1).is_empty());
        assert_eq!(not_read_by(&state, 2).len(), 3);
    }
}
