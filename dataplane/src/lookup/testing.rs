//! What the tests of this room ask.

use std::sync::Arc;

use ferrypost_proto::{DestinationId, Phase};
use ferrypost_routing::testing::{entry, moving, table};
use ferrypost_runtime::metrics::Metrics;

use super::next_hops::NextHops;
use crate::{admin::levels::instruments, tables::Tables};

/// The ways to `source` and `target`.
pub(super) fn next_hops(tables: &Tables) -> NextHops {
    let metrics = Metrics::new(&instruments());
    let hop = |destination: &str| {
        let id = DestinationId::parse(destination).unwrap();
        (id, format!("lmtp:[{destination}.example]:24"))
    };
    let next_hops = ["source", "target"].map(hop).into();
    NextHops::new(tables.clone(), next_hops, &metrics)
}

/// With alice at the source, and bob who is being moved.
pub(super) fn tables() -> Tables {
    let tables = Tables::new();
    let bob = entry(2, &["bob@a.example"], "source", 5);
    let entries = vec![
        entry(1, &["alice@a.example"], "source", 5),
        moving(bob, Phase::Fencing, None),
    ];
    tables.publish(Arc::new(table(5, entries)));
    tables
}
