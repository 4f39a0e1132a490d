//! The part of a peer's address by which admission control recognizes a host.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// An IPv4 address, or the /64 network of an IPv6 address. One host can usually use all addresses of a /64 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::publish) struct AddressPrefix(IpAddr);

impl AddressPrefix {
    pub(in crate::publish) fn of(peer: IpAddr) -> Self {
        Self(match peer.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => {
                let network = address.to_bits() & !u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from_bits(network))
            }
        })
    }
}

impl fmt::Display for AddressPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(network) => write!(f, "{network}/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::AddressPrefix;

    fn prefix(peer: &str) -> String {
        AddressPrefix::of(peer.parse().unwrap()).to_string()
    }

    #[test]
    fn addresses_of_one_host_have_one_prefix() {
        assert_eq!(prefix("192.0.2.7"), "192.0.2.7");
        assert_eq!(prefix("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(prefix("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(prefix("2001:db8:1:2::"), "2001:db8:1:2::/64");
        assert_eq!(prefix("::1"), "::/64");
    }
}
