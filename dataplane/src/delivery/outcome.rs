//! What becomes of a message for one recipient: the word for it, whose doing it was, and what the mail system hears.
//!
//! Nothing that time may mend is ever called final, and nothing of a server's is made worse than it was said.

use ferrypost_proto::NoRoute;
use ferrypost_wire::{
    Rejection,
    lmtp::{Answer, Reason},
};

use crate::{
    metrics::words::{Blame, DeliveryOutcome},
    registry::{Admission, CloseReason},
};

/// What became of a message for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fate {
    /// What the mail system hears.
    pub(super) answer: Answer,
    /// What happened.
    pub(super) outcome: DeliveryOutcome,
}

impl Fate {
    /// A server's word on the message, or its no to the recipient.
    pub(super) fn by_server(answer: Answer) -> Self {
        let outcome = match answer.code() {
            200..=299 => DeliveryOutcome::Delivered,
            400..=499 => DeliveryOutcome::ServerDeferred,
            _ => DeliveryOutcome::Rejected,
        };
        Self { answer, outcome }
    }

    /// Whether no time mends it.
    pub(super) fn is_final(&self) -> bool {
        self.answer.code() >= 500
    }

    /// A server's word on who delivers, before there was a recipient. It is passed on as it was said but for its being
    /// final: what a server holds against a mail system that it was told of may be one line of its configuration, and
    /// would return the mail of every account that has moved there.
    pub(super) fn turned_away(rejection: &Rejection) -> Self {
        Self {
            answer: Answer::turned_away(rejection),
            outcome: DeliveryOutcome::ServerDeferred,
        }
    }
}

/// In our own words.
impl From<DeliveryOutcome> for Fate {
    fn from(outcome: DeliveryOutcome) -> Self {
        Self {
            answer: reason(outcome).into(),
            outcome,
        }
    }
}

impl DeliveryOutcome {
    /// What the mail system hears of it.
    pub(super) fn into_answer(self) -> Answer {
        Fate::from(self).answer
    }
}

/// What is said where no server has spoken.
fn reason(outcome: DeliveryOutcome) -> Reason {
    use DeliveryOutcome as Outcome;
    match outcome {
        Outcome::Held => Reason::Held,
        Outcome::NotServed => Reason::NotServed,
        Outcome::Unlisted => Reason::Unlisted,
        Outcome::Lost | Outcome::Withdrawn => Reason::Lost,
        Outcome::Unanswered => Reason::Unanswered,
        Outcome::Unsupported => Reason::Unsupported,
        Outcome::Elsewhere => Reason::Elsewhere,
        Outcome::Loop => Reason::Loop,
        Outcome::BareLineEnd => Reason::BareLineEnd,
        Outcome::Stopping | Outcome::Expelled => Reason::ShuttingDown,
        Outcome::NoTable
        | Outcome::NoEndpoint
        | Outcome::GoneRound
        | Outcome::BackendUnavailable
        | Outcome::Kicked
        // Those of a server have its words.
        | Outcome::Delivered
        | Outcome::Rejected
        | Outcome::ServerDeferred => Reason::Unavailable,
    }
}

/// Whose doing it was.
pub(super) const fn blame(outcome: DeliveryOutcome) -> Blame {
    use DeliveryOutcome as Outcome;
    match outcome {
        Outcome::Delivered | Outcome::Withdrawn | Outcome::Elsewhere => Blame::Nobody,
        Outcome::NotServed
        | Outcome::Unlisted
        | Outcome::Rejected
        | Outcome::Loop
        | Outcome::BareLineEnd => Blame::Client,
        Outcome::NoTable | Outcome::NoEndpoint | Outcome::GoneRound => Blame::ControlPlane,
        Outcome::BackendUnavailable
        | Outcome::Unsupported
        | Outcome::ServerDeferred
        | Outcome::Lost
        | Outcome::Unanswered => Blame::Backend,
        Outcome::Held | Outcome::Kicked | Outcome::Stopping | Outcome::Expelled => Blame::Us,
    }
}

impl From<CloseReason> for DeliveryOutcome {
    fn from(reason: CloseReason) -> Self {
        match reason {
            // Where it is now is known, and the next attempt goes there; until then it is as if held.
            CloseReason::Moved => Self::Held,
            CloseReason::Kicked => Self::Kicked,
            CloseReason::Stopping => Self::Stopping,
            CloseReason::Expelled => Self::Expelled,
        }
    }
}

impl From<NoRoute> for DeliveryOutcome {
    fn from(refusal: NoRoute) -> Self {
        match refusal {
            NoRoute::UnknownDomain | NoRoute::BareName => Self::NotServed,
            NoRoute::Unlisted => Self::Unlisted,
            NoRoute::UnknownDestination => Self::NoEndpoint,
        }
    }
}

/// Why a recipient was not admitted.
pub(super) fn not_admitted(admission: &Admission) -> DeliveryOutcome {
    match admission {
        Admission::Refused(refusal) => (*refusal).into(),
        Admission::NoTable => DeliveryOutcome::NoTable,
        Admission::Closed(reason) => (*reason).into(),
        Admission::Deferred
        | Admission::Held(_)
        | Admission::TooManyHeld(_)
        | Admission::Routed(_) => DeliveryOutcome::Held,
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator as _;

    use super::*;

    #[test]
    fn only_what_no_time_mends_is_final() {
        for outcome in DeliveryOutcome::iter() {
            let is_final = Fate::from(outcome).is_final();
            let mends = !matches!(
                outcome,
                DeliveryOutcome::NotServed
                    | DeliveryOutcome::Unlisted
                    | DeliveryOutcome::Loop
                    | DeliveryOutcome::BareLineEnd
            );
            assert_eq!(is_final, !mends, "{outcome:?}");
            assert!(!Fate::from(outcome).answer.is_yes());
        }
    }
}
