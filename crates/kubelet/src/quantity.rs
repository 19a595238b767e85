//! Resource quantities as the kubelet counts with them: processors in thousandths, the rest in units.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// An amount, in thousandths of the unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(i128);

/// Reads `100m`, `1.5Gi`, `2e3`; `None` when it is no quantity.
pub fn parse(text: &str) -> Option<Amount> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && part.is_empty() || part.contains('.') || part.len() > 18 || whole.len() > 20 {
        return None;
    }
    let places = u32::try_from(part.len()).ok()?;
    let mantissa: i128 = format!("0{whole}{part}").parse().ok()?;
    let (up, down): (i128, i128) = match suffix {
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "" => (1, 1),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let e: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let scale = 10i128.checked_pow(e.unsigned_abs())?;
            if e >= 0 { (scale, 1) } else { (1, scale) }
        }
    };
    let numerator = mantissa.checked_mul(up)?.checked_mul(1000)?;
    let denominator = down.checked_mul(10i128.checked_pow(places)?)?;
    // what is too small to count is counted as the smallest amount, as upstream rounds
    let milli = numerator.div_euclid(denominator) + i128::from(numerator.rem_euclid(denominator) != 0);
    Some(Amount(if negative { -milli } else { milli }))
}

impl Amount {
    /// From thousandths.
    pub fn from_milli(m: i64) -> Self {
        Amount(m.into())
    }

    /// From whole units.
    pub fn from_units(n: u64) -> Self {
        Amount(i128::from(n) * 1000)
    }

    /// In thousandths.
    pub fn milli(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// In whole units, rounded up.
    pub fn bytes(self) -> i64 {
        let units = self.0.div_euclid(1000) + i128::from(self.0.rem_euclid(1000) != 0);
        i64::try_from(units).unwrap_or(i64::MAX)
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The difference, not below zero.
    pub fn minus(self, other: Amount) -> Amount {
        Amount((self.0 - other.0).max(0))
    }

    /// The sum.
    pub fn plus(self, other: Amount) -> Amount {
        Amount(self.0.saturating_add(other.0))
    }

    /// As a processor count is written: `2`, `1500m`.
    pub fn cpu(self) -> Quantity {
        Quantity(if self.0 % 1000 == 0 { (self.0 / 1000).to_string() } else { format!("{}m", self.0) })
    }

    /// As a size is written when it is a whole number of Ki, else in bytes.
    pub fn memory(self) -> Quantity {
        let n = self.bytes();
        Quantity(if n != 0 && n % 1024 == 0 { format!("{}Ki", n / 1024) } else { n.to_string() })
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
    use proptest::prelude::*;

    #[test]
    fn forms() {
        for (text, milli) in [
            ("1", 1000),
            ("100m", 100),
            ("1.5", 1500),
            ("1Ki", 1_024_000),
            ("0.5Gi", 536_870_912_000),
            ("2e3", 2_000_000),
            ("1E", i64::MAX),
            ("1u", 1),
            ("-1", -1000),
            (".5", 500),
            ("1.", 1000),
        ] {
            assert_eq!(parse(text).map(Amount::milli), Some(milli), "{text}");
        }
        for text in ["", "x", "1Xi", ".", "1.2.3", "1e", "1e99", "99999999999999999999999"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(Amount::from_milli(1500).cpu().0, "1500m");
        assert_eq!(Amount::from_units(2048).memory().0, "2Ki");
    }

    proptest! {
        #[test]
        fn never_panics(s in ".{0,24}") { let _ = parse(&s); }

        #[test]
        fn milli_round_trips(n in 0i64..1 << 40) { prop_assert_eq!(parse(&format!("{n}m")).map(Amount::milli), Some(n)); }
    }
}
