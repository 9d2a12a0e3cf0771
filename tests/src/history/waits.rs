//! How long nobody was let in.

use std::sync::Arc;
use std::time::Duration;

use super::{Action, History, Moment};

/// The longest time in which somebody wanted in and no login of his account was admitted anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LongestWait {
    /// Whose.
    pub account: Arc<str>,
    /// When the first login was asked for.
    pub since: Moment,
    /// How long it was until one was admitted, that one or another.
    pub time: Duration,
}

/// Looks at every login that got an answer, also a refusal.
pub fn longest_wait(history: &History) -> Option<LongestWait> {
    let tries = history.operations.iter().filter(|op| {
        matches!(
            op.action,
            Action::Login { .. } | Action::LoginRefused { .. }
        )
    });
    let waits = tries.filter_map(|asked| {
        let admitted = history.operations.iter().filter(|op| {
            op.account == asked.account
                && matches!(op.action, Action::Login { .. })
                && op.ended >= asked.begun
        });
        let first = admitted.map(|op| op.ended).min()?;
        Some(LongestWait {
            account: Arc::clone(&asked.account),
            since: asked.begun,
            time: first.since(asked.begun),
        })
    });
    waits.max_by_key(|wait| wait.time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Operation, Protocol, Side};

    fn login(account: &str, begun: u64, ended: u64, admitted: bool) -> Operation {
        let action = if admitted {
            Action::Login { lost: None }
        } else {
            Action::LoginRefused {
                code: Some("UNAVAILABLE".to_owned()),
                from: None,
            }
        };
        Operation {
            client: 1,
            protocol: Protocol::Imap,
            account: account.into(),
            data_plane: 0,
            server: Some(Side::Source),
            begun: Moment(Duration::from_secs(begun)),
            ended: Moment(Duration::from_secs(ended)),
            action,
        }
    }

    #[test]
    fn a_wait_ends_with_the_first_login_that_anybody_is_granted() {
        let history = History {
            operations: vec![
                login("alice", 10, 30, false),
                login("alice", 12, 15, false),
                login("alice", 31, 32, true),
                login("alice", 29, 33, true),
                login("bob", 10, 14, true),
                login("bob", 14, 50, false),
                login("bob", 15, 16, true),
            ],
            ..History::default()
        };
        let longest = longest_wait(&history).expect("there were logins");
        assert_eq!(&*longest.account, "alice");
        assert_eq!(longest.time, Duration::from_secs(22));
        assert_eq!(longest_wait(&History::default()), None);
    }
}
