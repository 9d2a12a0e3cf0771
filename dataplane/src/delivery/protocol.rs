//! What is other in one protocol by which mail systems deliver than in the other: the first words, and for how many a
//! server's word on a message is.

use ferrypost_proto::v1;
use ferrypost_wire::{
    BackSettings,
    lmtp::{LmtpFront, LmtpOpening, LmtpSettings},
};

use crate::config::DeliveryProtocol;

/// For how many recipients a server's word on a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdicts {
    /// For one, in the order in which it has accepted them (RFC 2033 §4.2).
    PerRecipient,
    /// For all of them.
    PerMessage,
}

impl DeliveryProtocol {
    /// As the contract names it.
    pub const fn in_contract(self) -> v1::Protocol {
        match self {
            Self::Lmtp => v1::Protocol::Lmtp,
            Self::Smtp => v1::Protocol::Smtp,
        }
    }

    /// In a trace header (RFC 5321 §4.4), with or without TLS (RFC 3848).
    pub(super) const fn in_trace(self, is_secured: bool) -> &'static str {
        match (self, is_secured) {
            (Self::Lmtp, false) => "LMTP",
            (Self::Lmtp, true) => "LMTPS",
            (Self::Smtp, false) => "ESMTP",
            (Self::Smtp, true) => "ESMTPS",
        }
    }

    /// For how many a server's word is.
    pub(super) const fn verdicts(self) -> Verdicts {
        match self {
            Self::Lmtp => Verdicts::PerRecipient,
            Self::Smtp => Verdicts::PerMessage,
        }
    }

    /// The machine for a mail system that has just connected.
    pub(super) fn front(self, settings: LmtpSettings) -> LmtpFront {
        match self {
            Self::Lmtp => LmtpFront::new(settings),
            Self::Smtp => LmtpFront::smtp(settings),
        }
    }

    /// What makes the machine for a server that was just reached.
    pub(super) const fn opening(self) -> fn(BackSettings) -> LmtpOpening {
        match self {
            Self::Lmtp => LmtpOpening::new,
            Self::Smtp => LmtpOpening::smtp,
        }
    }
}
