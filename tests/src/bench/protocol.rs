//! The protocols whose logins are measured.

/// A protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// IMAP, which bulk and idle sessions are measured by, too.
    Imap,
    /// POP3.
    Pop3,
    /// Submission.
    Submission,
}

impl Protocol {
    /// All of them, in the order in which their ports are listed.
    pub(super) const ALL: [Self; 3] = [Self::Imap, Self::Pop3, Self::Submission];

    /// As Ferrypost's configuration calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Imap => "imap",
            Self::Pop3 => "pop3",
            Self::Submission => "submission",
        }
    }

    /// As nginx calls it.
    pub(super) const fn nginx_name(self) -> &'static str {
        match self {
            Self::Imap | Self::Pop3 => self.name(),
            Self::Submission => "smtp",
        }
    }

    /// As a table calls it.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Imap => "IMAP",
            Self::Pop3 => "POP3",
            Self::Submission => "submission",
        }
    }
}
