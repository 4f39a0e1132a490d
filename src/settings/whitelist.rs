//! `WHITELISTED_CLIENTS`: the addresses that may connect.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// The addresses and CIDR blocks that may connect. An empty list allows every address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whitelist(Vec<IpNet>);

impl Whitelist {
    /// Reads a comma-separated list of addresses and CIDR blocks.
    ///
    /// # Errors
    /// Fails if an entry is not an address or a CIDR block. The error has the place of the entry in the list.
    pub fn parse(text: &str) -> Result<Self, String> {
        // The text `,` is an error. If it were an empty list, every address could connect.
        text.trim_end_matches([',', ' '])
            .split(',')
            .map(str::trim)
            .enumerate()
            .map(|(index, entry)| {
                parse_entry(entry).ok_or_else(|| {
                    format!(
                        "entry {} is neither an IP address nor a CIDR block; accepted: IPv4 and \
                         IPv6 addresses and CIDR blocks, separated by commas",
                        index + 1
                    )
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether every peer may connect.
    #[must_use]
    pub fn allows_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a peer may connect. An IPv4-mapped IPv6 address counts as its IPv4 address.
    #[must_use]
    pub fn allows(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.allows_all() || self.0.iter().any(|net| net.contains(&peer))
    }
}

fn parse_entry(entry: &str) -> Option<IpNet> {
    let net = match entry.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => entry.parse::<IpNet>().ok()?,
    };
    // `allows` compares IPv4 addresses, so `::ffff:192.0.2.0/120` must become `192.0.2.0/24`.
    match (net.addr().to_canonical(), net.prefix_len()) {
        (IpAddr::V4(address), length) if net.addr().is_ipv6() && length >= 96 => {
            IpNet::new(IpAddr::V4(address), length - 96).ok()
        }
        _ => Some(net),
    }
}

impl fmt::Display for Whitelist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.allows_all() {
            return f.write_str("all");
        }
        for (index, net) in self.0.iter().enumerate() {
            let separator = if index > 0 { "," } else { "" };
            write!(f, "{separator}{net}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::Whitelist;

    fn allows(list: &str, peer: &str) -> bool {
        Whitelist::parse(list)
            .unwrap()
            .allows(peer.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn addresses_blocks_and_mapped_addresses_match() {
        let all = Whitelist::default();
        assert!(all.allows("203.0.113.9".parse::<IpAddr>().unwrap()));
        assert!(allows("192.0.2.1", "192.0.2.1"));
        assert!(!allows("192.0.2.1", "192.0.2.2"));
        assert!(allows("192.0.2.1, 198.51.100.0/24", "198.51.100.77"));
        assert!(!allows("198.51.100.0/24", "198.51.101.1"));
        assert!(allows("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(allows("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(allows("::ffff:192.0.2.0/120", "192.0.2.200"));
        assert!(!allows("::ffff:192.0.2.0/120", "192.0.3.200"));
        assert!(allows("2001:db8::/32", "2001:db8:1::1"));
        assert!(!allows("2001:db8::/32", "192.0.2.1"));
        assert!(!allows("0.0.0.0/0", "2001:db8::1"));
        assert!(allows("10.1.2.3/8, ", "10.200.0.1"));
    }

    #[test]
    fn an_error_names_the_place_of_the_malformed_entry() {
        for list in [
            "192.0.2.1,nonsense",
            "192.0.2.1,10.0.0.0/33",
            "::1,localhost",
        ] {
            let error = Whitelist::parse(list).unwrap_err();
            assert!(error.starts_with("entry 2 "), "{error}");
        }
    }
}
