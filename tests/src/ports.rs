//! Loopback ports for servers that cannot choose one themselves.
//!
//! A port is taken from below the kernel's ephemeral range, so that no outgoing connection can grab
//! it between the reservation and the server's bind, and is held by a lock file for as long as the
//! [`Port`] lives, so that no other test process picks it either. Servers of ours bind port 0 and
//! say which they got; they need none of this.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

/// A loopback port that is ours until this value is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Holds the lock; released by closing.
    _lock: File,
}

impl Port {
    /// Reserves a port on which nothing listens on 127.0.0.1.
    ///
    /// # Errors
    /// When the lock directory cannot be made, or no port of the range is free.
    pub fn reserve() -> io::Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let directory = lock_directory()?;
        let range = candidates();
        for _ in range.clone() {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = nth(&range, step);
            if let Some(lock) = try_lock(&directory, number)?
                && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok()
            {
                return Ok(Self {
                    number,
                    _lock: lock,
                });
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "every port of the range is taken",
        ))
    }

    /// The port number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The port on 127.0.0.1.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}

/// Ports outside the ephemeral range: up to ten thousand below it, or above when it starts low.
fn candidates() -> Range<u16> {
    const LOWEST: u16 = 10_000;
    let setting = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut bounds = setting
        .split_whitespace()
        .filter_map(|bound| bound.parse::<u16>().ok());
    match (bounds.next(), bounds.next()) {
        (Some(low), _) if low > LOWEST + 1000 => LOWEST.max(low.saturating_sub(10_000))..low,
        (Some(_), Some(high)) if high < u16::MAX - 1000 => high + 1..u16::MAX,
        _ => LOWEST..32_000,
    }
}

/// Processes start at different places, so that they seldom try the same port.
fn nth(range: &Range<u16>, step: u16) -> u16 {
    let width = u32::from(range.end - range.start);
    let place = std::process::id()
        .wrapping_mul(257)
        .wrapping_add(u32::from(step))
        % width;
    range.start + u16::try_from(place).expect("a place in a range of u16 is a u16")
}

fn lock_directory() -> io::Result<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let directory = std::env::temp_dir().join(format!("ferrypost-ports-{user}"));
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

fn try_lock(directory: &std::path::Path, number: u16) -> io::Result<Option<File>> {
    let lock = File::create(directory.join(number.to_string()))?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn reserved_ports_differ_and_can_be_bound() {
        let ports: Vec<Port> = (0..50).map(|_| Port::reserve().unwrap()).collect();
        let distinct: HashSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(distinct.len(), ports.len());
        for port in &ports {
            TcpListener::bind(port.addr()).unwrap();
        }
    }

    #[test]
    fn a_locked_port_is_not_taken_twice() {
        let port = Port::reserve().unwrap();
        let directory = lock_directory().unwrap();
        assert!(try_lock(&directory, port.number()).unwrap().is_none());
        let number = port.number();
        drop(port);
        assert!(try_lock(&directory, number).unwrap().is_some());
    }
}
