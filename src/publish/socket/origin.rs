//! Where a connection comes from, as far as it counts.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// An IPv4 address, or the /64 of an IPv6 one: whoever has one address of that has them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::publish) struct Origin(IpAddr);

impl Origin {
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

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(network) => write!(f, "{network}/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Origin;

    fn origin(peer: &str) -> String {
        Origin::of(peer.parse().unwrap()).to_string()
    }

    #[test]
    fn what_one_host_may_have_counts_as_one() {
        assert_eq!(origin("192.0.2.7"), "192.0.2.7");
        assert_eq!(origin("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(origin("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(origin("2001:db8:1:2::"), "2001:db8:1:2::/64");
        assert_eq!(origin("::1"), "::/64");
    }
}
