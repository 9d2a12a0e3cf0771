//! Who may do what: bearer tokens, and the end of an address's guesses.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::places::customer;
use crate::token::{Token, TokenError};

/// Wrong tokens from one address before it is locked out: a person who mixes up two files tries
/// fewer times, and nobody guesses 128 bits in five attempts.
const ATTEMPTS: u32 = 5;

/// How long an address is locked out after its last wrong token.
const LOCK_OUT: Duration = Duration::from_mins(5);

/// Addresses that are remembered. Past it the one whose last wrong token is longest ago is forgotten.
const REMEMBERED: usize = 1024;

/// The tokens and the addresses that got them wrong.
#[derive(Debug)]
pub struct Access {
    read: PathBuf,
    /// `None`: nobody may.
    drain: Option<PathBuf>,
    failures: Mutex<HashMap<IpAddr, Failures>>,
}

#[derive(Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

/// What a token gives. Neither right has the other in it: who reads figures need not be able to stop a data plane, and what
/// stops one has no use for who is logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// To see `/stats` and `/metrics`.
    Read,
    /// To have everybody let go of.
    Drain,
}

/// Why a caller is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// There is no token, or a wrong one.
    Unauthorized,
    /// The token is one of ours, and not for this.
    Forbidden,
    /// The address has been wrong too often; the right token does not help either, or guessing could
    /// go on.
    LockedOut {
        /// For how much longer.
        remaining: Duration,
    },
    /// Our own token cannot be read, so nobody is let in.
    NoToken,
}

impl Access {
    /// Callers must know what the file holds at the time of their call. Nobody may drain.
    pub fn new(token_file: PathBuf) -> Self {
        Self {
            read: token_file,
            drain: None,
            failures: Mutex::default(),
        }
    }

    /// The same, where who knows what another file holds may drain, and nothing else.
    #[must_use]
    pub fn draining(mut self, token_file: Option<PathBuf>) -> Self {
        self.drain = token_file;
        self
    }

    /// Whether a caller with this `Authorization` header has a right.
    pub(super) async fn check(
        &self,
        peer: IpAddr,
        header: Option<&[u8]>,
        right: Right,
    ) -> Result<(), Denied> {
        let peer = customer(peer);
        if let Some(remaining) = self.locked_out(peer) {
            return Err(Denied::LockedOut { remaining });
        }
        let Some(offered) = header.and_then(Token::shown) else {
            return Err(Denied::Unauthorized);
        };
        let (wanted, other) = match right {
            Right::Read => (Some(&self.read), self.drain.as_ref()),
            Right::Drain => (self.drain.as_ref(), Some(&self.read)),
        };
        if is_in(wanted, &offered).await? {
            self.forget(peer);
            return Ok(());
        }
        // Whoever offers a wrong one is remembered, whether or not the other file can be read.
        match is_in(other, &offered).await {
            Ok(true) => Err(Denied::Forbidden),
            Ok(false) => {
                self.remember(peer);
                Err(Denied::Unauthorized)
            }
            Err(error) => {
                self.remember(peer);
                Err(error)
            }
        }
    }

    fn locked_out(&self, peer: IpAddr) -> Option<Duration> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let known = failures.get(&peer)?;
        let remaining = LOCK_OUT.saturating_sub(known.last.elapsed());
        if remaining.is_zero() {
            failures.remove(&peer);
            return None;
        }
        (known.count >= ATTEMPTS).then_some(remaining)
    }

    fn remember(&self, peer: IpAddr) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if !failures.contains_key(&peer) && failures.len() >= REMEMBERED {
            let oldest = failures.iter().min_by_key(|(_, known)| known.last);
            if let Some(oldest) = oldest.map(|(peer, _)| *peer) {
                failures.remove(&oldest);
            }
        }
        let known = failures.entry(peer).or_insert(Failures {
            count: 0,
            last: Instant::now(),
        });
        known.count += 1;
        known.last = Instant::now();
        if known.count == ATTEMPTS {
            tracing::warn!(%peer, "locked out of the admin endpoint after repeated wrong tokens");
        }
    }

    fn forget(&self, peer: IpAddr) {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&peer);
    }
}

/// Whether a file holds this token. Read at every call: a few octets, and a token that was changed or removed counts at
/// once.
async fn is_in(file: Option<&PathBuf>, offered: &Token) -> Result<bool, Denied> {
    let Some(file) = file else {
        return Ok(false);
    };
    let held = read(file).await.map_err(|error| {
        tracing::error!(file = %file.display(), %error, "cannot read a token of the admin endpoint");
        Denied::NoToken
    })?;
    Ok(held.is(offered))
}

async fn read(file: &Path) -> Result<Token, TokenError> {
    Token::check(&tokio::fs::read(file).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "0123456789abcdef0123456789abcdef";
    const OLD: &str = "old-old-old-old-old-old-old-old-old";
    const NEW: &str = "new-new-new-new-new-new-new-new-new";

    const DRAINS: &str = "drain-drain-drain-drain-drain-drain";

    async fn reads(access: &Access, peer: IpAddr, header: Option<&[u8]>) -> Result<(), Denied> {
        access.check(peer, header, Right::Read).await
    }

    fn bearer(token: &str) -> Vec<u8> {
        format!("Bearer {token}").into_bytes()
    }

    fn access(token: &str) -> (tempfile::TempDir, Access) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        std::fs::write(&file, token).unwrap();
        (directory, Access::new(file))
    }

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[tokio::test]
    async fn the_right_token_is_let_in_and_nothing_else() {
        let (_directory, access) = access(&format!("{OURS}\n"));
        assert_eq!(reads(&access, peer(1), Some(&bearer(OURS))).await, Ok(()));
        assert_eq!(
            reads(
                &access,
                peer(1),
                Some(b"bearer 0123456789abcdef0123456789abcdef")
            )
            .await,
            Ok(())
        );
        for bad in [
            None,
            Some("Bearer"),
            Some("Bearer "),
            Some("Bearer 0123456789abcdef0123456789abcde"),
            Some("Basic 0123456789abcdef0123456789abcdef"),
        ] {
            let checked = reads(&access, peer(1), bad.map(str::as_bytes)).await;
            assert_eq!(checked, Err(Denied::Unauthorized), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_changed_token_counts_at_once_and_a_missing_one_lets_nobody_in() {
        let (directory, access) = access(OLD);
        std::fs::write(directory.path().join("token"), NEW).unwrap();
        assert_eq!(
            reads(&access, peer(1), Some(&bearer(OLD))).await,
            Err(Denied::Unauthorized)
        );
        assert_eq!(reads(&access, peer(1), Some(&bearer(NEW))).await, Ok(()));
        std::fs::write(directory.path().join("token"), "\n").unwrap();
        assert_eq!(
            reads(&access, peer(1), Some(b"Bearer ")).await,
            Err(Denied::NoToken)
        );
        std::fs::remove_file(directory.path().join("token")).unwrap();
        assert_eq!(
            reads(&access, peer(1), Some(&bearer(NEW))).await,
            Err(Denied::NoToken)
        );
    }

    #[tokio::test]
    async fn neither_token_gives_the_right_of_the_other_and_without_one_nobody_may_drain() {
        let (directory, access) = access(OURS);
        let file = directory.path().join("drain");
        std::fs::write(&file, DRAINS).unwrap();
        let access = access.draining(Some(file));
        for (token, right, expected) in [
            (OURS, Right::Read, Ok(())),
            (OURS, Right::Drain, Err(Denied::Forbidden)),
            (DRAINS, Right::Read, Err(Denied::Forbidden)),
            (DRAINS, Right::Drain, Ok(())),
            (NEW, Right::Drain, Err(Denied::Unauthorized)),
        ] {
            let checked = access.check(peer(1), Some(&bearer(token)), right).await;
            assert_eq!(checked, expected, "{token} {right:?}");
        }
        let access = access.draining(None);
        for (token, expected) in [(OURS, Denied::Forbidden), (DRAINS, Denied::Unauthorized)] {
            let checked = access
                .check(peer(1), Some(&bearer(token)), Right::Drain)
                .await;
            assert_eq!(checked, Err(expected));
        }
    }

    #[tokio::test]
    async fn guesses_are_counted_where_the_other_token_cannot_be_read() {
        let (directory, access) = access(OURS);
        let access = access.draining(Some(directory.path().join("missing")));
        for _ in 0..ATTEMPTS {
            assert_eq!(guess(&access, peer(1)).await, Err(Denied::NoToken));
        }
        let right = reads(&access, peer(1), Some(&bearer(OURS))).await;
        assert!(matches!(right, Err(Denied::LockedOut { .. })), "{right:?}");
    }

    async fn guess(access: &Access, peer: IpAddr) -> Result<(), Denied> {
        reads(access, peer, Some(b"Bearer wrong")).await
    }

    #[tokio::test]
    async fn repeated_guesses_lock_one_address_out_for_a_while() {
        let (_directory, access) = access(OURS);
        tokio::time::pause();
        for _ in 0..ATTEMPTS {
            assert_eq!(guess(&access, peer(1)).await, Err(Denied::Unauthorized));
        }
        let right = reads(&access, peer(1), Some(&bearer(OURS))).await;
        assert!(matches!(right, Err(Denied::LockedOut { .. })), "{right:?}");
        assert_eq!(reads(&access, peer(2), Some(&bearer(OURS))).await, Ok(()));
        tokio::time::advance(LOCK_OUT).await;
        assert_eq!(reads(&access, peer(1), Some(&bearer(OURS))).await, Ok(()));
    }

    #[tokio::test]
    async fn success_and_missing_tokens_do_not_add_up_to_a_lock_out() {
        let (_directory, access) = access(OURS);
        for _ in 0..3 {
            for _ in 1..ATTEMPTS {
                assert_eq!(guess(&access, peer(1)).await, Err(Denied::Unauthorized));
                assert_eq!(
                    reads(&access, peer(1), None).await,
                    Err(Denied::Unauthorized)
                );
            }
            assert_eq!(reads(&access, peer(1), Some(&bearer(OURS))).await, Ok(()));
        }
    }

    #[tokio::test]
    async fn one_ipv6_customer_is_one_address_and_memory_is_bounded() {
        let (_directory, access) = access(OURS);
        for n in 0..u128::from(ATTEMPTS) {
            let address = IpAddr::V6((0x2001_0db8_u128 << 96 | n).into());
            assert_eq!(guess(&access, address).await, Err(Denied::Unauthorized));
        }
        let other = IpAddr::V6((0x2001_0db8_u128 << 96 | 0xffff).into());
        assert!(matches!(
            guess(&access, other).await,
            Err(Denied::LockedOut { .. })
        ));
        for n in 0..2 * REMEMBERED as u128 {
            _ = guess(&access, IpAddr::V6((n << 64).into())).await;
        }
        assert_eq!(access.failures.lock().unwrap().len(), REMEMBERED);
    }
}
