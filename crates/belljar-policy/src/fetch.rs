use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::fmt;
use std::str::FromStr;

use belljar_core::{FetchUrl, Invalid, bounds};

/// From where belljard may fetch what builds declare by digest. Nobody named is nobody allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchRules {
    hosts: Vec<HostPattern>,
    ports: Vec<u16>,
    private: Vec<Network>,
    denied: Vec<Network>,
}

/// Hosts that may be fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// Every host.
    Any,
    /// The host of this name, or at this address.
    Host(String),
    /// Every host whose name ends so, with a dot before it.
    Below(String),
}

/// A network of addresses, as `192.0.2.0/24` (CIDR, RFC 4632).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Fewest bits of a network that may be opened: fewer would be most of all addresses.
const SHORTEST: u8 = 8;

impl FetchRules {
    /// Rules by which hosts of these patterns may be fetched from at these ports, of those at private addresses only
    /// ones in the networks of `private`, and none in those that are denied.
    ///
    /// # Errors
    /// When nothing could be fetched, or a list is too long.
    pub fn new(
        hosts: Vec<HostPattern>,
        ports: Vec<u16>,
        private: Vec<Network>,
        denied: Vec<Network>,
    ) -> Result<Self, Invalid> {
        let lists = [
            ("allow", hosts.len()),
            ("ports", ports.len()),
            ("allow_private", private.len()),
            ("deny", denied.len()),
        ];
        for (field, length) in lists {
            if length > bounds::FETCH_RULES {
                let most = bounds::FETCH_RULES;
                let why = format!("{length} entries; {most} are allowed");
                return Err(Invalid::field(field, why));
            }
        }
        if hosts.is_empty() {
            let why = "nothing can be fetched from nowhere; name hosts, `*.example.org`, or `any`";
            return Err(Invalid::field("allow", why));
        }
        if ports.is_empty() || ports.contains(&0) {
            let why = "at least one port is due, each between 1 and 65535";
            return Err(Invalid::field("ports", why));
        }
        if let Some(index) = private.iter().position(|network| network.prefix < SHORTEST) {
            let network = private[index];
            let why = format!(
                "`{network}` has fewer than {SHORTEST} bits: it would open almost everything; name the networks that mirrors are in"
            );
            return Err(Invalid::field(format!("allow_private[{index}]"), why));
        }
        Ok(Self {
            hosts,
            ports,
            private,
            denied,
        })
    }

    /// The hosts that may be fetched from.
    pub fn hosts(&self) -> &[HostPattern] {
        &self.hosts
    }

    /// The ports that may be connected to.
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Whether this URL may be asked, as far as it says where it leads; asked of each that a redirect gives, too. A host
    /// that is an address is also asked about by [`FetchRules::admits`].
    ///
    /// # Errors
    /// Says what is not allowed, and by which setting it would be.
    pub fn allows(&self, url: &FetchUrl) -> Result<(), String> {
        let host = url.host();
        if !self.hosts.iter().any(|pattern| pattern.matches(host)) {
            return Err(format!(
                "the operator does not allow to fetch from `{host}`: it is not among `allow` of [fetch] in belljard.toml"
            ));
        }
        let port = url.port();
        if !self.ports.contains(&port) {
            return Err(format!(
                "the operator does not allow to fetch from port {port}: it is not among `ports` of [fetch] in belljard.toml"
            ));
        }
        Ok(())
    }

    /// Whether this address may be connected to: what everybody can reach, and what the operator names.
    ///
    /// # Errors
    /// Says what sort of address it is.
    pub fn admits(&self, address: IpAddr) -> Result<(), String> {
        let address = address.to_canonical();
        if self.denied.iter().any(|network| network.has(address)) {
            return Err(format!(
                "{address} is in one of the networks of `deny` of [fetch] in belljard.toml"
            ));
        }
        let Some(sort) = special(address) else {
            return Ok(());
        };
        if self.opens(address) && !is_no_host(address) {
            return Ok(());
        }
        Err(format!(
            "{address} is {sort}, which is in none of the networks of `allow_private` of [fetch] in belljard.toml"
        ))
    }

    /// Whether the operator has opened a network with this address by name.
    pub fn opens(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.private.iter().any(|network| network.has(address))
    }
}

/// What can be nobody's address, whatever an operator says.
fn is_no_host(address: IpAddr) -> bool {
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    address.is_unspecified() || address.is_multicast() || broadcast
}

/// What sort of address it is, if it is none that the whole Internet can reach (IANA, special-purpose address
/// registries of IPv4 and IPv6). It may lead to machines that trust their neighbours, such as the one that gives
/// credentials to virtual machines.
fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    const SPECIAL: [([u8; 4], u8, &str); 16] = [
        ([0, 0, 0, 0], 8, "an address of this network"),
        ([10, 0, 0, 0], 8, "a private address"),
        ([100, 64, 0, 0], 10, "a carrier's private address"),
        ([127, 0, 0, 0], 8, "a loopback address"),
        ([169, 254, 0, 0], 16, "a link-local address"),
        ([172, 16, 0, 0], 12, "a private address"),
        ([192, 0, 0, 0], 24, "an address for protocols"),
        ([192, 0, 2, 0], 24, "an address for documentation"),
        ([192, 31, 196, 0], 24, "an address for protocols"),
        ([192, 52, 193, 0], 24, "an address for protocols"),
        ([192, 88, 99, 0], 24, "an address of 6to4 relays"),
        ([192, 168, 0, 0], 16, "a private address"),
        ([198, 18, 0, 0], 15, "an address for benchmarks"),
        ([198, 51, 100, 0], 24, "an address for documentation"),
        ([203, 0, 113, 0], 24, "an address for documentation"),
        ([224, 0, 0, 0], 3, "a multicast or reserved address"),
    ];
    let found = SPECIAL.into_iter().find(|(network, prefix, _)| {
        let network = Network {
            address: IpAddr::V4((*network).into()),
            prefix: *prefix,
        };
        network.has(IpAddr::V4(address))
    });
    found.map(|(_, _, sort)| sort)
}

/// By what is allowed: only 2000::/3 is given to networks, and parts of it lead elsewhere.
fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    const SPECIAL: [([u16; 2], u8, &str); 4] = [
        ([0x2001, 0], 23, "an address for protocols, such as Teredo"),
        ([0x2001, 0xdb8], 32, "an address for documentation"),
        ([0x2002, 0], 16, "a 6to4 address, which holds another"),
        ([0x3fff, 0], 20, "an address for documentation"),
    ];
    if address.is_loopback() {
        return Some("a loopback address");
    }
    if address.segments()[0] >> 13 != 1 {
        return Some("no global unicast address (2000::/3)");
    }
    let found = SPECIAL.into_iter().find(|([first, second], prefix, _)| {
        let network = Network {
            address: IpAddr::V6(Ipv6Addr::new(*first, *second, 0, 0, 0, 0, 0, 0)),
            prefix: *prefix,
        };
        network.has(IpAddr::V6(address))
    });
    found.map(|(_, _, sort)| sort)
}

impl HostPattern {
    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Host(name) => name == host,
            Self::Below(end) => host
                .strip_suffix(end.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        }
    }
}

impl FromStr for HostPattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text == "any" {
            return Ok(Self::Any);
        }
        let (name, below) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let bracketed = match name.contains(':') {
            true => format!("https://[{name}]/"),
            false => format!("https://{name}/"),
        };
        let url = FetchUrl::new(&bracketed);
        let fits = url.as_ref().is_ok_and(|url| url.host() == name);
        let address = name.parse::<IpAddr>().is_ok();
        match fits && !(below && address) {
            true if below => Ok(Self::Below(name.to_owned())),
            true => Ok(Self::Host(name.to_owned())),
            false => Err(Invalid::new(format!(
                "`{}` is no host; write a name in lower case or an address, `*.` and a name for all below it, or `any`",
                text.escape_debug()
            ))),
        }
    }
}

impl Network {
    fn has(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32 - u32::from(self.prefix.min(32));
                let top = |address: Ipv4Addr| u64::from(u32::from(address)) >> shift;
                top(own) == top(other)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128 - u32::from(self.prefix.min(128));
                let top = |address: Ipv6Addr| u128::from(address).checked_shr(shift);
                top(own) == top(other)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let shape = || {
            Invalid::new(format!(
                "`{}` is no network; write address and bits, such as `10.1.0.0/16` or `fd00:1::/32`",
                text.escape_debug()
            ))
        };
        let (address, prefix) = text.split_once('/').ok_or_else(shape)?;
        let address: IpAddr = address.parse().map_err(|_| shape())?;
        let prefix: u8 = prefix.parse().map_err(|_| shape())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        // Addresses are judged by their own version: one that is mapped would match none.
        if prefix > most || address != address.to_canonical() {
            return Err(shape());
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(hosts: &[&str], private: &[&str]) -> FetchRules {
        let hosts = hosts.iter().map(|text| text.parse().unwrap()).collect();
        let private = private.iter().map(|text| text.parse().unwrap()).collect();
        FetchRules::new(hosts, vec![443, 80], private, Vec::new()).unwrap()
    }

    #[test]
    fn only_named_hosts_and_ports_are_asked() {
        let rules = rules(
            &["a.example", "*.b.example", "192.0.2.7", "2001:db8::1"],
            &[],
        );
        for (url, allowed) in [
            ("https://a.example/x", true),
            ("http://a.example/x", true),
            ("https://A.EXAMPLE/", true),
            ("https://c.a.example/", false),
            ("https://xa.example/", false),
            ("https://c.b.example/", true),
            ("https://d.c.b.example/", true),
            ("https://b.example/", false),
            ("https://xb.example/", false),
            ("https://a.example.evil.example/", false),
            ("https://a.example:8443/", false),
            ("https://192.0.2.7/", true),
            ("https://192.0.2.8/", false),
            ("https://[2001:db8::1]/", true),
        ] {
            let url = FetchUrl::new(url).unwrap();
            assert_eq!(rules.allows(&url).is_ok(), allowed, "{url}");
        }
    }

    #[test]
    fn addresses_that_lead_inside_are_refused_however_they_are_written() {
        let rules = rules(&["any"], &[]);
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:1::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert!(rules.admits(address).is_err(), "{address}");
        }
        for address in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.167.0.1",
            "223.255.255.255",
            "::ffff:1.1.1.1",
            "2606:4700::1111",
            "2a00::1",
            "2001:4860::1",
            "2003::1",
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(rules.admits(address), Ok(()), "{address}");
        }
    }

    #[test]
    fn an_operator_opens_networks_by_name_but_not_what_is_nobodys_address() {
        let rules = rules(
            &["any"],
            &[
                "10.1.0.0/16",
                "fd00:1::/32",
                "::1/128",
                "224.0.0.0/8",
                "255.255.255.255/32",
            ],
        );
        for (address, admitted) in [
            ("10.1.255.1", true),
            ("::ffff:10.1.0.1", true),
            ("10.2.0.1", false),
            ("fd00:1::9", true),
            ("fd00:2::9", false),
            ("::1", true),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(rules.admits(address).is_ok(), admitted, "{address}");
        }
    }

    #[test]
    fn what_is_denied_is_refused_whatever_else_allows_it() {
        let parse = |text: &str| text.parse::<Network>().unwrap();
        let denied = ["1.2.3.0/24", "10.1.1.0/24", "2a00:1::/96"].map(parse);
        let rules = FetchRules::new(
            vec![HostPattern::Any],
            vec![443],
            vec![parse("10.1.0.0/16")],
            denied.to_vec(),
        );
        let rules = rules.unwrap();
        for (address, admitted) in [
            ("1.2.3.4", false),
            ("::ffff:1.2.3.4", false),
            ("1.2.4.4", true),
            ("10.1.1.1", false),
            ("10.1.2.1", true),
            // As a NAT64 would lead to 10.0.0.1.
            ("2a00:1::a00:1", false),
            ("2a00:1::1:0:0", true),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(rules.admits(address).is_ok(), admitted, "{address}");
        }
        let everything = FetchRules::new(
            vec![HostPattern::Any],
            vec![443],
            vec![],
            vec![parse("::/0")],
        );
        let address = "2606:4700::1111".parse().unwrap();
        assert!(everything.unwrap().admits(address).is_err());
    }

    #[test]
    fn settings_that_mean_nothing_or_everything_are_refused() {
        for text in [
            "",
            "*",
            "*.",
            "A.example",
            "a.example:80",
            "https://a.example",
            "*.10.0.0.1",
            "[::1]",
            "a b",
            "127.1",
        ] {
            assert!(text.parse::<HostPattern>().is_err(), "{text}");
        }
        for text in [
            "10.0.0.0",
            "10.0.0.0/33",
            "10/8",
            "x/8",
            "10.0.0.0/+8x",
            // Addresses are judged in their own version.
            "::ffff:10.0.0.0/104",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        let new = |hosts, ports, private| FetchRules::new(hosts, ports, private, vec![]);
        assert!(new(vec![], vec![443], vec![]).is_err());
        assert!(new(vec![HostPattern::Any], vec![], vec![]).is_err());
        assert!(new(vec![HostPattern::Any], vec![0], vec![]).is_err());
        for all in ["0.0.0.0/0", "::/0", "::/7"] {
            let all: Network = all.parse().unwrap();
            let opened = new(vec![HostPattern::Any], vec![443], vec![all]).unwrap_err();
            assert_eq!(opened.field, "allow_private[0]");
        }
        let many = vec![HostPattern::Any; bounds::FETCH_RULES + 1];
        assert!(new(many, vec![443], vec![]).is_err());
    }

    proptest! {
        #[test]
        fn every_address_of_version_4_is_judged_alike_when_it_is_mapped(bits in any::<u32>()) {
            let address = Ipv4Addr::from(bits);
            let rules = rules(&["any"], &[]);
            let mapped = rules.admits(IpAddr::V6(address.to_ipv6_mapped()));
            prop_assert_eq!(rules.admits(IpAddr::V4(address)), mapped);
        }
    }
}
