//! The limits of a data plane, beside the window of a move: two planes, and clocks that must fit together.

use std::time::Duration;

use ferrypost_proto::{
    InstanceId,
    store::v1::Registration,
    v1::{self, Blocker, BlockerReason},
};

use super::migration::blocker;

/// How long a data plane lets the logins and sessions of a fenced account take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataPlaneLimits {
    /// A held login waits this long.
    pub hold: Duration,
    /// Open commands get this long to end.
    pub drain: Duration,
    /// The server's own close is waited for this long.
    pub close: Duration,
}

impl DataPlaneLimits {
    /// Those that a data plane has said when it registered. One that has not said all of them is of an earlier
    /// build, or of a replica's that did not write them down: nobody knows.
    pub fn of(registration: &Registration) -> Option<Self> {
        let said: &v1::DataPlaneLimits = registration.limits.as_ref()?;
        let time = |of: Option<prost_types::Duration>| Duration::try_from(of?).ok();
        Some(Self {
            hold: time(said.hold)?,
            drain: time(said.drain)?,
            close: time(said.close)?,
        })
    }

    /// Why a fence of this window could not end well on a data plane with these limits, in the worst case: whose
    /// limit it is, and what to set.
    pub fn against(
        limits: Option<Self>,
        instance: &InstanceId,
        window: Duration,
    ) -> Option<Blocker> {
        let message = match limits {
            None => format!(
                "{instance} has not said how long it holds logins and closes sessions: it is of an earlier \
                 version; upgrade it"
            ),
            Some(Self { hold, .. }) if hold <= window => format!(
                "{instance} holds logins for {hold:?}, and the move's window is {window:?}: what it holds would be \
                 sent away; set its limits.hold.timeout above migrations.window"
            ),
            Some(Self { drain, close, .. }) if drain + close >= window => format!(
                "{instance} gives sessions {drain:?} to end and their servers {close:?} to close, and the move's \
                 window is {window:?}: set its limits.relay.drain and limits.relay.close so that both together are \
                 below migrations.window"
            ),
            Some(_) => return None,
        };
        Some(blocker(BlockerReason::Limits, instance.as_str(), message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(hold: u64, drain: u64, close: u64) -> Registration {
        let seconds = |seconds| prost_types::Duration::try_from(Duration::from_secs(seconds)).ok();
        Registration {
            limits: Some(v1::DataPlaneLimits {
                hold: seconds(hold),
                drain: seconds(drain),
                close: seconds(close),
            }),
            ..Registration::default()
        }
    }

    #[test]
    fn a_limit_that_does_not_fit_the_window_is_named_with_its_setting() {
        let gateway = InstanceId::parse("gateway-1").expect("an instance id");
        let window = Duration::from_secs(20);
        let against = |registration: &Registration| {
            DataPlaneLimits::against(DataPlaneLimits::of(registration), &gateway, window)
        };
        assert_eq!(against(&said(25, 10, 5)), None, "the defaults");
        for (registration, setting) in [
            (said(20, 10, 5), "limits.hold.timeout"),
            (said(25, 15, 5), "limits.relay.drain"),
            (said(25, 5, 30), "limits.relay.close"),
        ] {
            let blocker = against(&registration).expect("it does not fit");
            assert_eq!(
                (blocker.reason(), blocker.who.as_str()),
                (BlockerReason::Limits, "gateway-1")
            );
            assert!(blocker.message.contains(setting), "{}", blocker.message);
        }
    }

    #[test]
    fn what_is_not_said_is_not_safe() {
        let gateway = InstanceId::parse("gateway-1").expect("an instance id");
        let mut partly = said(25, 10, 5);
        partly.limits.as_mut().expect("limits").close = None;
        for registration in [Registration::default(), partly] {
            let limits = DataPlaneLimits::of(&registration);
            assert_eq!(limits, None);
            let blocker = DataPlaneLimits::against(limits, &gateway, Duration::from_secs(1));
            assert!(blocker.expect("a reason").message.contains("upgrade"));
        }
    }
}
