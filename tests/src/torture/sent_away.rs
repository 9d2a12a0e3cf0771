//! Logins that were refused in a move that was over before a login is held for too long (G4): what the data plane's log
//! says of each, and whether anything was broken on its way.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use crate::history::{Action, History, Move, Operation};
use crate::world::World;

use super::{LIMITS, TAKE_OVER};

/// How logins ended, by data plane and the client's end of the connection.
pub(super) type Outcomes = BTreeMap<(usize, SocketAddr), String>;

/// Who was sent away: how often by which outcome.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct SentAway {
    /// While something on the login's way was broken, or shortly after.
    pub around_faults: BTreeMap<String, usize>,
    /// While nothing was.
    pub in_peace: BTreeMap<String, usize>,
}

impl SentAway {
    /// Counts them.
    pub(super) fn of(history: &History, outcomes: &Outcomes) -> Self {
        let mut sent_away = Self::default();
        for operation in &history.operations {
            let Action::LoginRefused { code, from } = &operation.action else {
                continue;
            };
            if !is_in_a_short_move(history, operation) {
                continue;
            }
            let logged = from.and_then(|from| outcomes.get(&(operation.data_plane, from)));
            let cause = logged.or(code.as_ref()).map_or("no code", String::as_str);
            let mut disturbances = history.disturbances.iter();
            let causes = if disturbances.any(|it| it.is_around(operation, TAKE_OVER)) {
                &mut sent_away.around_faults
            } else {
                &mut sent_away.in_peace
            };
            *causes.entry(cause.to_owned()).or_default() += 1;
        }
        sent_away
    }

    /// All of them.
    pub fn total(&self) -> usize {
        let causes = self.around_faults.values().chain(self.in_peace.values());
        causes.sum()
    }
}

impl fmt::Display for SentAway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (broken, peace) = (&self.around_faults, &self.in_peace);
        write!(
            f,
            "{} {broken:?} around a fault",
            broken.values().sum::<usize>()
        )?;
        write!(f, ", {} {peace:?} in peace", peace.values().sum::<usize>())
    }
}

/// What the logs say; of several logins from one end the last.
pub(super) fn outcomes(world: &World) -> Outcomes {
    let planes = world.data_planes().iter().enumerate();
    let logins = planes.flat_map(|(n, data_plane)| {
        let lines = data_plane.plane.log().lines_with(&["outcome=", "client="]);
        let said = lines.into_iter().filter_map(|line| {
            let from = word(&line, "client=")?.parse().ok()?;
            let outcome = word(&line, "outcome=")?.trim_matches('"').to_owned();
            Some(((n, from), outcome))
        });
        said.collect::<Vec<_>>()
    });
    logins.collect()
}

/// What a line of the log has behind a key.
fn word<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let (_, behind) = line.split_once(key)?;
    behind.split_whitespace().next()
}

fn is_in_a_short_move(history: &History, operation: &Operation) -> bool {
    let short = |movement: &Move| movement.answered.since(movement.asked) < LIMITS.hold;
    let within = |movement: &Move| {
        movement.account == operation.account
            && operation.begun <= movement.answered
            && movement.asked <= operation.ended
    };
    let mut moves = history.moves.iter();
    moves.any(|movement| short(movement) && within(movement))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_says_whose_login_ended_how() {
        let line = r#"INFO login reference=abc client=127.0.0.1:4711 listener="imaps" outcome="no_table" blame="us""#;
        assert_eq!(word(line, "client="), Some("127.0.0.1:4711"));
        assert_eq!(word(line, "outcome="), Some(r#""no_table""#));
        assert_eq!(word(line, "account="), None);
    }
}
