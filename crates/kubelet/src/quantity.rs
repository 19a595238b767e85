//! Resource quantities as the kubelet counts with them: sums that never fall below zero, and the notation that
//! the status of a node has for each resource.

use api::quantity::{Format, Quantity as Exact};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// An amount of some resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(Exact);

impl Default for Amount {
    fn default() -> Self {
        Amount(Exact::new(0, Format::DecimalSi))
    }
}

/// Reads `100m`, `1.5Gi`, `2e3`; `None` when it is no quantity.
pub fn parse(text: &str) -> Option<Amount> {
    text.trim().parse().ok().map(Amount)
}

impl Amount {
    /// From thousandths.
    pub fn from_milli(m: i64) -> Self {
        Amount(Exact::from_milli(m, Format::DecimalSi))
    }

    /// From whole units.
    pub fn from_units(n: u64) -> Self {
        Amount(Exact::new(i64::try_from(n).unwrap_or(i64::MAX), Format::DecimalSi))
    }

    /// In thousandths, rounded up.
    pub fn milli(self) -> i64 {
        self.0.milli_value()
    }

    /// In whole units, rounded up.
    pub fn bytes(self) -> i64 {
        self.0.value()
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// The difference, not below zero.
    pub fn minus(self, other: Amount) -> Amount {
        Amount(self.0 - other.0).max(Amount::default())
    }

    /// The sum.
    pub fn plus(self, other: Amount) -> Amount {
        Amount(self.0 + other.0)
    }

    /// As a processor count is written: `2`, `1500m`.
    pub fn cpu(self) -> Quantity {
        Exact::from_milli(self.milli(), Format::DecimalSi).to_text()
    }

    /// As a size is written: `2Ki`, `16Gi`.
    pub fn memory(self) -> Quantity {
        Exact::new(self.bytes(), Format::BinarySi).to_text()
    }

    /// As a plain count.
    pub fn count(self) -> Quantity {
        Quantity(self.bytes().to_string())
    }
}

/// A resource list, as requests and limits have it.
pub type Resources = BTreeMap<String, Quantity>;

/// The amount of one resource in a list; nothing when absent or unreadable.
pub fn of(list: Option<&Resources>, name: &str) -> Amount {
    list.and_then(|l| l.get(name)).and_then(|q| parse(&q.0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for (text, milli) in
            [("1", 1000), ("100m", 100), ("1.5", 1500), ("1Ki", 1_024_000), ("2e3", 2_000_000)]
        {
            assert_eq!(parse(text).map(Amount::milli), Some(milli), "{text}");
        }
        assert_eq!(parse("x"), None);
        assert_eq!(Amount::from_milli(1500).cpu().0, "1500m");
        assert_eq!(Amount::from_units(2048).memory().0, "2Ki");
        assert!(Amount::from_units(1).minus(Amount::from_units(2)).is_zero());
    }
}
