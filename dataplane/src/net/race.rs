//! One connection to whichever address answers first (Happy Eyeballs, RFC 8305).

use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::sleep;

use super::{ConnectError, TcpStream, plain, source::Sources};

/// How long one address is given before the next is tried beside it (RFC 8305 §8 recommends this).
pub(super) const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to the first of `addresses` that answers, from whichever address the system chooses.
///
/// # Errors
/// As [`race_from`].
pub(crate) async fn race(addresses: &[SocketAddr]) -> io::Result<(TcpStream, SocketAddr)> {
    Ok(race_from(addresses, Sources::default()).await?)
}

/// Connects to the first of `addresses` that answers: each in turn, the next one beside it when it has had its
/// head start or has failed. How long it may take is the caller's to limit.
///
/// # Errors
/// Every address has failed; this is what the last one said.
pub(super) async fn race_from(
    addresses: &[SocketAddr],
    sources: Sources,
) -> Result<(TcpStream, SocketAddr), ConnectError> {
    let mut waiting = interleaved(addresses);
    let mut running = FuturesUnordered::new();
    let mut last_error = ConnectError::from(io::Error::from(io::ErrorKind::NotFound));
    loop {
        if let Some(address) = waiting.pop_front() {
            running.push(async move { (sources.connect(address).await, address) });
        }
        let head_start = async {
            if waiting.is_empty() {
                std::future::pending::<()>().await;
            } else {
                sleep(HEAD_START).await;
            }
        };
        tokio::select! {
            Some((result, address)) = running.next() => match result {
                Ok(stream) => return Ok((stream, plain(address))),
                Err(error) => last_error = error,
            },
            () = head_start => {}
        }
        if running.is_empty() && waiting.is_empty() {
            return Err(last_error);
        }
    }
}

/// The families by turns, beginning with the resolver's first (RFC 8305 §4), so that a broken network
/// of one family costs one head start.
fn interleaved(addresses: &[SocketAddr]) -> VecDeque<SocketAddr> {
    let first_is_v4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .iter()
        .partition(|address| address.is_ipv4() == first_is_v4);
    let longest = first.len().max(second.len());
    (0..longest)
        .flat_map(|n| [first.get(n).copied(), second.get(n).copied()])
        .flatten()
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use socket2::{Domain, Socket, Type};
    use tokio::time::Instant;

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        let order = interleaved(&addresses(&[
            "[::1]:1",
            "[::2]:1",
            "[::3]:1",
            "192.0.2.1:1",
        ]));
        let expected = addresses(&["[::1]:1", "192.0.2.1:1", "[::2]:1", "[::3]:1"]);
        assert_eq!(order, expected);
    }

    #[tokio::test]
    async fn an_address_that_refuses_does_not_keep_the_next_one_waiting() {
        let refusing = crate::net::listen("127.0.0.1:0".parse().unwrap())
            .unwrap()
            .local_addr()
            .unwrap();
        let listener = crate::net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let listening = listener.local_addr().unwrap();
        let begun = Instant::now();
        let (_, address) = race(&[refusing, listening]).await.unwrap();
        assert!(begun.elapsed() < HEAD_START);
        assert_eq!(address, listening);
    }

    /// An address that answers nothing: a queue that is full and that nobody takes from.
    pub(crate) struct Silent {
        pub(crate) address: SocketAddr,
        _queue: (Socket, Vec<Socket>),
    }

    impl Silent {
        pub(crate) fn new() -> Self {
            Self::at("127.0.0.1:0".parse().unwrap())
        }

        #[expect(
            clippy::disallowed_methods,
            reason = "no listener of ours has a queue that is full"
        )]
        pub(crate) fn at(address: SocketAddr) -> Self {
            let socket = || {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                socket
            };
            let listener = socket();
            listener.bind(&address.into()).unwrap();
            listener.listen(0).unwrap();
            let address = listener.local_addr().unwrap();
            // More than fit, which depends on the kernel; those that do not fit stay half open.
            let queued = (0..8).map(|_| {
                let socket = socket();
                _ = socket.connect(&address);
                socket
            });
            Self {
                _queue: (listener, queued.collect()),
                address: address.as_socket().unwrap(),
            }
        }
    }
}
