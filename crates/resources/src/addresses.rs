//! Checks of IP addresses and ranges in text, as strict as upstream's `StrictIPCIDRValidation`.

use api::field::{FieldErrors, FieldPath};
use std::net::{IpAddr, Ipv4Addr};

/// Reads an IPv4 address whose parts may have leading zeros, as older Go did.
fn sloppy_v4(text: &str) -> Option<Ipv4Addr> {
    let mut parts = text.split('.').map(|p| {
        let digits = !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| p.trim_start_matches('0')).map(|p| if p.is_empty() { Ok(0) } else { p.parse::<u8>() })
    });
    let mut next = || parts.next().flatten()?.ok();
    let address = Ipv4Addr::new(next()?, next()?, next()?, next()?);
    parts.next().is_none().then_some(address)
}

fn sloppy(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| sloppy_v4(text).map(IpAddr::V4))
}

/// Whether it is an address in any form that was ever read.
pub fn is_address(text: &str) -> bool {
    sloppy(text).is_some()
}

fn mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

fn address_fault(text: &str) -> Option<&'static str> {
    match (sloppy(text), text.parse::<IpAddr>()) {
        (None, _) => Some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
        (_, Err(_)) => Some("must not have leading 0s"),
        (_, Ok(address)) if mapped(address) => Some("must not be an IPv4-mapped IPv6 address"),
        _ => None,
    }
}

/// Checks an address; with `canonical` also that it is spelled in the one form there is.
pub fn address(text: &str, canonical: bool, at: FieldPath<'_>, errors: &mut FieldErrors) {
    for fault in address_faults(text, canonical) {
        errors.invalid(at, &text, fault);
    }
}

/// What is wrong with an address.
pub fn address_faults(text: &str, canonical: bool) -> Vec<String> {
    if let Some(fault) = address_fault(text) {
        return vec![fault.into()];
    }
    match text.parse::<IpAddr>() {
        Ok(parsed) if canonical && parsed.to_string() != text => {
            vec![format!("must be in canonical form ({:?})", parsed.to_string())]
        }
        _ => Vec::new(),
    }
}

/// A range of addresses: its first, and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The address before the slash.
    pub address: IpAddr,
    /// The number behind it.
    pub prefix: u8,
}

fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(a) => (u128::from(a.to_bits()), 32),
        IpAddr::V6(a) => (a.to_bits(), 128),
    }
}

impl Range {
    /// Reads a range in any form that was ever read.
    pub fn parse(text: &str) -> Option<Range> {
        let (address, prefix) = text.split_once('/')?;
        let address = sloppy(address)?;
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let prefix: u8 = prefix.parse().ok()?;
        (prefix <= bits(address).1).then_some(Range { address, prefix })
    }

    fn net(self, address: IpAddr) -> Option<u128> {
        let width = bits(self.address).1;
        let (bits, other_width) = bits(address);
        let host = u32::from(width - self.prefix);
        (width == other_width).then(|| bits.checked_shr(host).unwrap_or(0))
    }

    /// Whether an address lies in it.
    pub fn contains(self, address: IpAddr) -> bool {
        let net = self.net(address);
        net.is_some() && net == self.net(self.address)
    }

    /// The range's first address.
    pub fn first(self) -> IpAddr {
        let (own, width) = bits(self.address);
        let host = u32::from(width - self.prefix);
        let first = own.checked_shr(host).and_then(|n| n.checked_shl(host)).unwrap_or(0);
        match self.address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(first).unwrap_or(0))),
            IpAddr::V6(_) => IpAddr::V6(first.into()),
        }
    }

    /// Whether its addresses are those of IPv4.
    pub fn is_v4(self) -> bool {
        self.address.is_ipv4()
    }
}

/// Checks a range; with `canonical` also that it is spelled in the one form there is. Answers it if it is one.
pub fn range(text: &str, canonical: bool, at: FieldPath<'_>, errors: &mut FieldErrors) -> Option<Range> {
    let Some(range) = Range::parse(text) else {
        errors.invalid(at, &text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
        return None;
    };
    let (address, prefix) = text.split_once('/').unwrap_or_default();
    let zeros = prefix.len() > 1 && prefix.starts_with('0');
    if zeros || address.parse::<IpAddr>().is_err() {
        errors.invalid(at, &text, "must not have leading 0s in IP or prefix length");
    } else if mapped(range.address) {
        errors.invalid(at, &text, "must not have an IPv4-mapped IPv6 address");
    } else if range.first() != range.address {
        errors.invalid(at, &text, "must not have bits set beyond the prefix length");
    } else if canonical && format!("{}/{}", range.address, range.prefix) != text {
        let right = format!("{}/{}", range.address, range.prefix);
        errors.invalid(at, &text, format!("must be in canonical form ({right:?})"));
    }
    Some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_ranges() {
        for (text, fault) in [
            ("10.0.0.1", None),
            ("010.0.0.1", Some("must not have leading 0s")),
            ("10.0.0", Some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")),
            ("::ffff:1.2.3.4", Some("must not be an IPv4-mapped IPv6 address")),
            ("2001:DB8::1", Some("must be in canonical form (\"2001:db8::1\")")),
        ] {
            assert_eq!(address_faults(text, true).first().map(String::as_str), fault, "{text}");
        }
        for (text, fault) in [
            ("10.0.0.0/8", ""),
            ("0.0.0.0/0", ""),
            ("::/0", ""),
            ("10.0.0.1/8", "must not have bits set beyond the prefix length"),
            ("10.0.0.0/08", "must not have leading 0s in IP or prefix length"),
            ("10.0.0.0/33", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
            ("fd00:0::/64", "must be in canonical form (\"fd00::/64\")"),
        ] {
            let mut errors = FieldErrors::default();
            range(text, true, FieldPath::root("x"), &mut errors);
            let wanted =
                if fault.is_empty() { vec![] } else { vec![format!("x: Invalid value: {text:?}: {fault}")] };
            let got: Vec<String> = errors.as_slice().iter().map(ToString::to_string).collect();
            assert_eq!(got, wanted, "{text}");
        }
        let range = Range::parse("10.1.0.0/16").unwrap();
        assert!(range.contains("10.1.2.3".parse().unwrap()) && !range.contains("10.2.0.0".parse().unwrap()));
        assert!(!range.contains("::1".parse().unwrap()));
    }
}
