//! Evidence that a server is done with what it was asked.

/// The server's last reply about something was read: it has done it or has not, and nothing of it is left to be
/// executed. Made only by a machine that reads that reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered(());

impl Answered {
    /// For the machine that has just read the last reply.
    pub(crate) const fn by_reading() -> Self {
        Self(())
    }
}
