//! What came of a run, in numbers and words.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::checker::Verdict;
use crate::history::{LongestWait, Protocol, Summary};

use super::sent_away::SentAway;
use super::{LIMITS, longest_hold};

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// The seed, to do it again.
    pub seed: u64,
    /// What the checker found.
    pub verdict: Verdict,
    /// What did not come to rest, or was refused without a reason, in words.
    pub complaints: Vec<String>,
    /// What the clients did.
    pub summary: Summary,
    /// Logins that were granted, by protocol.
    pub logins: BTreeMap<Protocol, usize>,
    /// Messages delivered, one for each recipient.
    pub deliveries: usize,
    /// Files that servers of HTTP stored, by their own account.
    pub executed: usize,
    /// The longest time in which no login of an account was admitted anywhere.
    pub longest_wait: Option<LongestWait>,
    /// Logins that were refused while their account was in a move that took less than a login is held (G4).
    pub sent_away: SentAway,
    /// Moves that ended on the other side, and that ended where they began.
    pub moves: (usize, usize),
    /// What was done to which process how often.
    pub faults: BTreeMap<String, usize>,
    /// Where the logs are, when something was found.
    pub kept: Option<PathBuf>,
}

impl Report {
    /// Whether nothing bad was found in a run in which enough happened.
    pub fn is_clean(&self) -> bool {
        self.verdict.is_clean() && self.complaints.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        let (flipped, stayed) = self.moves;
        let Summary {
            accepted,
            logins,
            writes,
            refused,
            unanswered,
            ..
        } = self.summary;
        writeln!(f, "torture with seed {}", self.seed)?;
        writeln!(
            f,
            "  operations: {accepted}, of them {writes} writes, {logins} logins; \
             {refused} logins refused, {unanswered} not answered"
        )?;
        let by_protocol = self.logins.iter();
        let by_protocol: Vec<_> = by_protocol.map(|(p, n)| format!("{n} by {p}")).collect();
        writeln!(f, "  logins: {}", by_protocol.join(", "))?;
        writeln!(
            f,
            "  deliveries: {}; files stored by HTTP: {}",
            self.deliveries, self.executed
        )?;
        if !self.logins.contains_key(&Protocol::Submission) {
            writeln!(f, "  nobody submitted: only root can start a Postfix")?;
        }
        writeln!(
            f,
            "  moves: {flipped} flipped, {stayed} stayed; faults: {:?}",
            self.faults
        )?;
        if let Some(LongestWait {
            account,
            since,
            time,
        }) = &self.longest_wait
        {
            writeln!(
                f,
                "  no login of {account} was admitted anywhere for {time:.1?} from {since} on, the longest time; \
                 a window and a take-over are {:.1?}",
                longest_hold()
            )?;
        }
        writeln!(
            f,
            "  sent away in moves shorter than {:?}: {}",
            LIMITS.hold, self.sent_away
        )?;
        writeln!(f, "  violations: {}", self.verdict.violations.len())?;
        for violation in self.verdict.violations.iter().take(SHOWN) {
            writeln!(f, "    {violation}")?;
        }
        for complaint in self.complaints.iter().chain(&self.verdict.shortfalls) {
            writeln!(f, "  complaint: {complaint}")?;
        }
        if let Some(folder) = &self.kept {
            writeln!(f, "  logs: {}", folder.display())?;
        }
        Ok(())
    }
}
