//! From the domain's refusals to the API's.

use ferrypost_proto::Problems;

use super::{Reason, Refusal};
use crate::domain::{resolution::WriteRefused, start::StartRefused};

impl From<WriteRefused> for Refusal {
    fn from(refused: WriteRefused) -> Self {
        let message = refused.to_string();
        match refused {
            WriteRefused::WouldChangeRoute { name, from, to } => {
                let place = |id: Option<ferrypost_proto::DestinationId>| {
                    id.map(String::from).unwrap_or_default()
                };
                Self::new(Reason::WouldChangeRoute, &message)
                    .with("from", place(from))
                    .with("to", place(to))
                    .violated(&name, message)
                    .with("name", name)
            }
            WriteRefused::NotSettled { phase } => Self::new(Reason::MoveUnderWay, message)
                .with("phase", format!("{phase:?}").to_ascii_uppercase()),
            WriteRefused::NameTaken { name, account } => Self::new(Reason::NameTaken, &message)
                .violated(&name, message)
                .with("name", name)
                .with("owner", account),
            WriteRefused::UnknownDestination(id) => Self::new(Reason::DestinationUnknown, &message)
                .violated("destination", message)
                .with("destination", id),
            WriteRefused::Unreadable(account) => {
                Self::new(Reason::RecordUnreadable, message).with("account", account)
            }
            WriteRefused::EpochMismatch { found } => {
                Self::new(Reason::EpochMismatch, message).with("found", found)
            }
            WriteRefused::NotServed { name } => Self::new(Reason::NameNotServed, &message)
                .violated(&name, message)
                .with("name", name),
            WriteRefused::NoNames => Self::required("names"),
        }
    }
}

impl From<StartRefused> for Refusal {
    fn from(refused: StartRefused) -> Self {
        let message = refused.to_string();
        match refused {
            StartRefused::BadName { login, error } => Self::new(Reason::NameInvalid, message)
                .violated("account", error)
                .with("login", login),
            StartRefused::UnknownAccount(account) => {
                Self::new(Reason::AccountNotFound, message).with("account", account)
            }
            StartRefused::UnknownDestination(destination) => {
                Self::new(Reason::DestinationUnknown, &message)
                    .violated("destination", message)
                    .with("destination", destination)
            }
            StartRefused::OtherNames => Self::new(Reason::NamesDiffer, message),
            StartRefused::NamesDiverge {
                first,
                home,
                name,
                to,
            } => Self::new(Reason::WouldChangeRoute, &message)
                .violated(&name, message)
                .with("name", name)
                .with("to", to)
                .with("first", first)
                .with("home", home),
            StartRefused::GoesNowhere { name } => {
                Self::new(Reason::NameNotServed, message).with("name", name)
            }
            StartRefused::OtherSource { home, expected } => {
                Self::new(Reason::SourceMismatch, message)
                    .with("home", home)
                    .with("expected", expected)
            }
            StartRefused::AlreadyThere(destination) => {
                Self::new(Reason::AlreadyThere, message).with("destination", destination)
            }
            StartRefused::MoveUnderWay { migration, target } => {
                Self::new(Reason::MoveUnderWay, message)
                    .with("migration", migration)
                    .with("target", target)
            }
            StartRefused::NoWayBack => Self::new(Reason::NothingToRollBack, message),
            StartRefused::NoRouting => Self::new(Reason::NoRoutingConfig, message),
            StartRefused::Record(refused) => refused.into(),
        }
    }
}

impl From<Problems> for Refusal {
    fn from(problems: Problems) -> Self {
        let count = problems.0.len();
        let mut refusal = Self::new(
            Reason::ConfigInvalid,
            format!("the routing configuration has {count} mistakes: {problems}"),
        )
        .with("mistakes", count);
        for problem in problems.0 {
            refusal = refusal.violated(format!("config.{}", problem.place), problem.message);
        }
        refusal
    }
}
