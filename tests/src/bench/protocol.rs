//! The protocols that are measured.

/// A protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// IMAP, which bulk and idle sessions are measured by, too.
    Imap,
    /// POP3.
    Pop3,
    /// Submission.
    Submission,
    /// HTTP, in any version.
    Http,
}

impl Protocol {
    /// All of them, in the order in which their ports are listed.
    pub(super) const ALL: [Self; 4] = [Self::Imap, Self::Pop3, Self::Submission, Self::Http];

    /// Those of mail, whose logins are measured.
    pub(super) const MAIL: [Self; 3] = [Self::Imap, Self::Pop3, Self::Submission];

    /// As Ferrypost's configuration calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Imap => "imap",
            Self::Pop3 => "pop3",
            Self::Submission => "submission",
            Self::Http => "http",
        }
    }

    /// As nginx's mail proxy calls it.
    pub(super) const fn nginx_name(self) -> &'static str {
        match self {
            Self::Imap | Self::Pop3 | Self::Http => self.name(),
            Self::Submission => "smtp",
        }
    }

    /// As a table calls it.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Imap => "IMAP",
            Self::Pop3 => "POP3",
            Self::Submission => "submission",
            Self::Http => "HTTP",
        }
    }
}
