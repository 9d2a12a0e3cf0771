//! A connection that is passed through as a whole.

use crate::{ClientVerdict, Farewell, Follower, Safety, Then};

/// Follows a connection in which nothing is read, whose TLS may be between its two ends alone.
///
/// All of it goes on as it comes, its ends included. There is no point in it of which we could know that it is a safe
/// one, and no place for words of ours: when it is to end, it is waited for until the limit, and then cut.
#[derive(Debug, Clone, Copy, Default)]
pub struct PassedThrough;

impl Follower for PassedThrough {
    fn client(&mut self, chunk: &[u8], _draining: bool) -> ClientVerdict {
        ClientVerdict {
            forward: chunk.len(),
            then: Then::Continue,
        }
    }

    fn release(&mut self) {}

    fn server(&mut self, _chunk: &[u8]) {}

    fn safety(&self) -> Safety {
        Safety::Busy
    }

    /// The server is to see the client's end when it comes, as it would without us.
    fn awaits_the_client(&self) -> bool {
        true
    }

    fn goodbye(&self, _why: Farewell) -> Option<&'static [u8]> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_goes_on_as_it_comes_and_nothing_is_put_into_it() {
        let mut follower = PassedThrough;
        for chunk in [
            &b""[..],
            b"XCLIENT ADDR=192.0.2.1\r\n",
            b"\x16\x03\x01",
            b"\n.\n",
        ] {
            for draining in [false, true] {
                let verdict = follower.client(chunk, draining);
                assert_eq!(
                    (verdict.forward, verdict.then),
                    (chunk.len(), Then::Continue)
                );
            }
            follower.server(chunk);
            follower.release();
            assert!(follower.safety().is_open() && follower.awaits_the_client());
            assert_eq!(follower.goodbye(Farewell::ShuttingDown), None);
        }
    }
}
