//! A network in CIDR notation, and those that an address belongs to by custom.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;

/// Addresses that share a prefix. Nothing is kept of what is behind the prefix, so that one network has one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(IpNet);

/// The text is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("use CIDR notation, as 192.0.2.0/24 or 2001:db8::/32, or one address")]
pub struct InvalidNetwork;

impl Network {
    /// What one customer has: an IPv4 address, or the /64 of an IPv6 address.
    pub fn of_customer(address: IpAddr) -> Self {
        Self::around(address, 32, 64)
    }

    /// What one site has: the /24 of an IPv4 address, or the /48 of an IPv6 address (the most that RFC 6177 would
    /// give one).
    pub fn of_site(address: IpAddr) -> Self {
        Self::around(address, 24, 48)
    }

    fn around(address: IpAddr, prefix_v4: u8, prefix_v6: u8) -> Self {
        let address = address.to_canonical();
        let prefix = if address.is_ipv4() {
            prefix_v4
        } else {
            prefix_v6
        };
        Self(IpNet::new_assert(address, prefix).trunc())
    }

    /// How many leading bits its addresses share.
    pub fn prefix(&self) -> u32 {
        self.0.prefix_len().into()
    }

    /// Whether `address` is in it. An IPv4 address in IPv6 form counts as the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let network = match text.parse::<IpAddr>() {
            Ok(address) => address.into(),
            Err(_) => text.parse::<IpNet>().map_err(|_| InvalidNetwork)?,
        };
        Ok(Self(network.trunc()))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        network
            .parse::<Network>()
            .unwrap()
            .contains(address.parse().unwrap())
    }

    #[test]
    fn prefixes_decide() {
        assert!(contains("10.0.0.0/8", "10.255.0.1"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("0.0.0.0/0", "192.0.2.1"));
        assert!(!contains("0.0.0.0/0", "::1"));
        assert!(contains("2001:db8::/32", "2001:db8:1::1"));
        assert!(contains("192.0.2.7", "192.0.2.7"));
        assert!(!contains("192.0.2.7", "192.0.2.8"));
    }

    #[test]
    fn an_ipv4_peer_on_an_ipv6_socket_is_an_ipv4_peer() {
        assert!(contains("127.0.0.0/8", "::ffff:127.0.0.1"));
    }

    #[test]
    fn an_address_belongs_to_a_customer_and_to_a_site() {
        let networks = |address: &str| {
            let address = address.parse().unwrap();
            let networks = [Network::of_customer(address), Network::of_site(address)];
            networks.map(|network| network.to_string())
        };
        assert_eq!(networks("192.0.2.7"), ["192.0.2.7/32", "192.0.2.0/24"]);
        assert_eq!(networks("::ffff:192.0.2.7"), networks("192.0.2.7"));
        assert_eq!(
            networks("2001:db8:1:2:3:4:5:6"),
            ["2001:db8:1:2::/64", "2001:db8:1::/48"]
        );
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0/+8",
            "::/129",
            "host/8",
            "10.0.0.0/",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
