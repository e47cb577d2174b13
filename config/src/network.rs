//! Networks as operators write them: an address with the length of its prefix.

use std::fmt;
use std::net::IpAddr;

use toml::de::DeValue;

use crate::value::{Wrong, shown};

const ACCEPTED: &str = "a list of networks such as [\"10.0.0.0/8\", \"::1\"]";

/// One network; a plain address is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether `address` is in it. An IPv4 address in IPv6 clothes is that IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(one)) => {
                let shift = 32 - u32::from(self.prefix);
                let same = |bits: u32| bits.checked_shr(shift).unwrap_or_default();
                same(network.to_bits()) == same(one.to_bits())
            }
            (IpAddr::V6(network), IpAddr::V6(one)) => {
                let shift = 128 - u32::from(self.prefix);
                let same = |bits: u128| bits.checked_shr(shift).unwrap_or_default();
                same(network.to_bits()) == same(one.to_bits())
            }
            _ => false,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= longest)?,
            None => longest,
        };
        Some(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// A list of networks.
pub(crate) fn networks(value: &DeValue<'_>) -> Result<Vec<Network>, Wrong> {
    let wrong = |value: &DeValue<'_>, what: &str| {
        Wrong::value(format!("{} {what}", shown(value)), ACCEPTED)
    };
    let list = value
        .as_array()
        .ok_or_else(|| wrong(value, "is not a list"))?;
    let one = |value: &DeValue<'_>| {
        let network = value.as_str().and_then(Network::parse);
        network.ok_or_else(|| wrong(value, "is not a network"))
    };
    list.iter().map(|value| one(value.get_ref())).collect()
}

#[cfg(test)]
mod tests {
    use super::Network;

    fn check(network: &str, address: &str, expected: bool) {
        let network = Network::parse(network).expect("it is a network");
        let address = address.parse().expect("it is an address");
        assert_eq!(network.contains(address), expected, "{network} {address}");
    }

    #[test]
    fn a_network_holds_what_its_prefix_covers() {
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("0.0.0.0/0", "203.0.113.9", true);
        check("0.0.0.0/0", "::1", false);
        check("127.0.0.1", "127.0.0.1", true);
        check("127.0.0.1", "127.0.0.2", false);
        check("10.0.0.0/8", "::ffff:10.1.1.1", true);
        check("2001:db8::/32", "2001:db8:1::1", true);
        check("2001:db8::/32", "2001:db9::1", false);
        check("::/0", "fe80::1", true);
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/",
            "localhost",
            "1.1.1.1/-1",
        ] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }
}
