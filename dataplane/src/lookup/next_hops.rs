//! The way of a recipient, by the table in force.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ferrypost_proto::{DestinationId, NoRoute, Recipient};
use ferrypost_routing::{Resolution, RoutingTable};
use ferrypost_runtime::metrics::{Counter, Metrics};
use tokio::time::Instant;

use crate::{
    metrics::{LOOKUPS, words::LookupOutcome},
    tables::Tables,
};

/// How long a question waits for the first table of a process that has just started. A mail system asks while somebody
/// outside waits for its answer to RCPT, and an error there may cost that message half an hour.
const FIRST_TABLE: Duration = Duration::from_secs(5);

/// Says where a recipient's mail goes. Memory only.
#[derive(Debug)]
pub struct NextHops {
    tables: Tables,
    by_destination: BTreeMap<DestinationId, String>,
    /// Destinations that accounts were found on, and that are not among those.
    missed: Mutex<BTreeSet<DestinationId>>,
    counts: Counts,
}

#[derive(Debug)]
struct Counts {
    found: Counter,
    held: Counter,
    not_found: Counter,
    unavailable: Counter,
}

/// Where a recipient's mail goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way<'a> {
    /// To the server of a destination.
    To {
        /// The destination.
        destination: &'a DestinationId,
        /// What is configured for it.
        next_hop: &'a str,
    },
    /// Nowhere now: the account is being moved.
    Held,
    /// It is for certain none of ours.
    NotOurs,
    /// Nobody knows now; why.
    Unknown(&'static str),
}

impl NextHops {
    /// By these tables, with the next hop of each destination.
    pub fn new(
        tables: Tables,
        by_destination: BTreeMap<DestinationId, String>,
        metrics: &Metrics,
    ) -> Self {
        let count = |outcome: LookupOutcome| metrics.counter(&LOOKUPS, &[outcome.into_str()]);
        Self {
            tables,
            by_destination,
            missed: Mutex::default(),
            counts: Counts {
                found: count(LookupOutcome::Found),
                held: count(LookupOutcome::Held),
                not_found: count(LookupOutcome::NotFound),
                unavailable: count(LookupOutcome::Unavailable),
            },
        }
    }

    /// The way of whoever this address means. What is not known for certain is never [`Way::NotOurs`]: a mail system
    /// that is told so goes on with its own rules.
    pub async fn way(&self, address: &str) -> Way<'_> {
        if self.tables.current().is_none() {
            self.tables.first(Instant::now() + FIRST_TABLE).await;
        }
        let way = match self.tables.current() {
            Some(table) => self.by(&table, address),
            None => Way::Unknown("where anybody is is not known yet"),
        };
        let count = match way {
            Way::To { .. } => &self.counts.found,
            Way::Held => &self.counts.held,
            Way::NotOurs => &self.counts.not_found,
            Way::Unknown(_) => &self.counts.unavailable,
        };
        count.add(1);
        way
    }

    fn by(&self, table: &RoutingTable, address: &str) -> Way<'_> {
        // A domain or `*`, which mail systems ask maps for as well.
        if !address.contains('@') {
            return Way::NotOurs;
        }
        let Ok(recipient) = table.config().names().recipient(address) else {
            return if is_garbled(address) {
                Way::Unknown("this is no address")
            } else {
                Way::NotOurs
            };
        };
        let resolution = match &recipient {
            Recipient::Name(name) => table.resolve(name),
            Recipient::Domain(domain) => table.resolve_unlisted_in(domain),
        };
        match resolution {
            Resolution::Route(route) => self.to(&route.destination),
            Resolution::Fenced(_) => Way::Held,
            Resolution::Refused(NoRoute::UnknownDomain | NoRoute::Unlisted | NoRoute::BareName) => {
                Way::NotOurs
            }
            Resolution::Refused(NoRoute::UnknownDestination) => {
                Way::Unknown("the destination is not configured")
            }
        }
    }

    /// Says once of each destination that it has no next hop.
    fn miss(&self, destination: &DestinationId) {
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        if missed.insert(destination.clone()) {
            tracing::warn!(
                %destination,
                "no next hop is configured for a destination: whoever asks for the way of its accounts is to ask again"
            );
        }
    }

    fn to(&self, destination: &DestinationId) -> Way<'_> {
        if let Some((destination, next_hop)) = self.by_destination.get_key_value(destination) {
            return Way::To {
                destination,
                next_hop,
            };
        }
        self.miss(destination);
        Way::Unknown("no next hop is configured for the destination")
    }
}

/// Whether what stands in the place of a domain can be none of anybody's, so that something else was meant: a line with its
/// end, say.
fn is_garbled(address: &str) -> bool {
    let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
    domain.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ferrypost_proto::Phase;
    use ferrypost_routing::testing::{entry, moving, table};

    use super::{super::testing::next_hops, *};

    /// What a way is called here.
    fn word(way: Way<'_>) -> &str {
        match way {
            Way::To { next_hop, .. } => next_hop,
            Way::Held => "held",
            Way::NotOurs => "not ours",
            Way::Unknown(_) => "unknown",
        }
    }

    #[tokio::test]
    async fn mail_goes_where_the_account_lives_and_to_nowhere_while_it_is_moved() {
        let tables = Tables::new();
        let next_hops = next_hops(&tables);
        let settled = entry(1, &["alice@a.example"], "source", 5);
        let phases = [
            (settled.clone(), "lmtp:[source.example]:24"),
            (moving(settled.clone(), Phase::Fencing, None), "held"),
            (
                entry(1, &["alice@a.example"], "target", 9),
                "lmtp:[target.example]:24",
            ),
        ];
        for (alice, expected) in phases {
            tables.publish(Arc::new(table(9, vec![alice])));
            for form in ["alice@a.example", "Alice@A.EXAMPLE", "\"alice\"@a.example"] {
                assert_eq!(word(next_hops.way(form).await), expected, "{form}");
            }
        }
    }

    #[tokio::test]
    async fn whoever_has_no_record_goes_where_the_domain_goes() {
        let tables = Tables::new();
        tables.publish(Arc::new(table(5, vec![])));
        let next_hops = next_hops(&tables);
        for (address, expected) in [
            ("bob@a.example", "lmtp:[source.example]:24"),
            ("bob@t.example", "lmtp:[target.example]:24"),
            ("two words@t.example", "lmtp:[target.example]:24"),
            ("bob@closed.example", "not ours"),
            ("bob@elsewhere.example", "not ours"),
            ("bob@[192.0.2.1]", "not ours"),
            ("bob@under_score.example", "not ours"),
            ("bob@a.example\r\n", "unknown"),
            ("a.example", "not ours"),
            ("*", "not ours"),
            ("", "not ours"),
        ] {
            assert_eq!(word(next_hops.way(address).await), expected, "{address}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_known_is_never_called_not_ours() {
        let tables = Tables::new();
        let next_hops = next_hops(&tables);
        for address in ["alice@a.example", "bob@elsewhere.example", "*"] {
            assert_eq!(word(next_hops.way(address).await), "unknown", "{address}");
        }
        let elsewhere = entry(1, &["alice@a.example"], "third", 5);
        tables.publish(Arc::new(table(5, vec![elsewhere])));
        assert_eq!(word(next_hops.way("alice@a.example").await), "unknown");
        tables.withdraw();
        assert_eq!(
            word(next_hops.way("bob@elsewhere.example").await),
            "unknown"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_has_just_started_answers_when_it_knows() {
        let tables = Tables::new();
        let next_hops = next_hops(&tables);
        let asking = next_hops.way("alice@a.example");
        let publishing = async {
            tokio::time::sleep(FIRST_TABLE / 2).await;
            tables.publish(Arc::new(table(5, vec![])));
        };
        let (way, ()) = tokio::join!(asking, publishing);
        assert_eq!(word(way), "lmtp:[source.example]:24");
    }
}
