//! Amounts of a resource: `100m`, `1.5Gi`, `2e3`. Kept exactly to the nano, capped at 2^63-1, written in
//! the one canonical form, with the kind of suffix they were read with, as apimachinery's `Quantity` does.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;
const MAX: i128 = i64::MAX as i128 * NANO;

/// The kind of suffix an amount is written with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `1500m`, `2k`, `3M`.
    #[default]
    DecimalSi,
    /// `1Ki`, `2Mi`.
    BinarySi,
    /// `1e3`.
    DecimalExponent,
}

/// Why a text is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// It does not have the form.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// Its suffix is unknown.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// An amount. Comparing and hashing look at the amount alone, not at how it is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    /// None of it.
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    /// A whole amount.
    pub fn new(value: i64, format: Format) -> Self {
        Quantity { nanos: i128::from(value) * NANO, format }
    }

    /// An amount in thousandths.
    pub fn from_milli(milli: i64, format: Format) -> Self {
        Self::capped(i128::from(milli) * 1_000_000, format)
    }

    /// An amount in nanos, as statistics count processor time.
    pub fn from_nano(nano: i64, format: Format) -> Self {
        Quantity { nanos: i128::from(nano), format }
    }

    fn capped(nanos: i128, format: Format) -> Self {
        Quantity { nanos: nanos.clamp(-MAX, MAX), format }
    }

    /// How it is written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The amount, rounded up (away from zero).
    pub fn value(&self) -> i64 {
        narrow(round_up(self.nanos, NANO))
    }

    /// The amount in thousandths, rounded up (away from zero).
    pub fn milli_value(&self) -> i64 {
        narrow(round_up(self.nanos, 1_000_000))
    }

    /// The amount in nanos, at most what the type holds.
    pub fn nano_value(&self) -> i64 {
        narrow(self.nanos)
    }

    /// The amount as a floating-point number.
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.nanos.signum() as i32
    }

    /// Whether it is whole.
    pub fn is_integer(&self) -> bool {
        self.nanos % NANO == 0
    }

    /// Reads a field of an object.
    pub fn read(text: &Text) -> Result<Self, QuantityError> {
        text.0.parse()
    }

    /// A field of an object, where what can't be read counts as nothing. The API server lets none through.
    pub fn lenient(text: &Text) -> Self {
        text.0.parse().unwrap_or_default()
    }

    /// As a field of an object.
    pub fn to_text(self) -> Text {
        Text(self.to_string())
    }
}

fn narrow(v: i128) -> i64 {
    v.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

fn round_up(v: i128, unit: i128) -> i128 {
    v / unit + if v % unit == 0 { 0 } else { v.signum() }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl std::hash::Hash for Quantity {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.nanos.hash(state);
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// A sum takes the form of its second part while the first is zero, as upstream's does.
impl Add for Quantity {
    type Output = Quantity;
    fn add(self, other: Quantity) -> Quantity {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Quantity::capped(self.nanos + other.nanos, format)
    }
}

impl Sub for Quantity {
    type Output = Quantity;
    fn sub(self, other: Quantity) -> Quantity {
        self + -other
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Quantity) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Quantity) {
        *self = *self - other;
    }
}

impl Neg for Quantity {
    type Output = Quantity;
    fn neg(self) -> Quantity {
        Quantity { nanos: -self.nanos, format: self.format }
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Quantity>>(items: I) -> Quantity {
        items.fold(Quantity::ZERO, Add::add)
    }
}

const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        // Below 1024 a binary suffix says nothing, and a fraction would be lost.
        if self.format == Format::BinarySi && self.is_integer() && self.nanos.abs() >= 1024 * NANO {
            let (mut number, mut power) = (self.nanos / NANO, 0);
            while number % 1024 == 0 && power + 1 < BINARY.len() {
                (number, power) = (number / 1024, power + 1);
            }
            return write!(f, "{number}{}", BINARY[power]);
        }
        let (mut number, mut power) = (self.nanos, 0);
        while number % 1000 == 0 && power + 1 < DECIMAL.len() {
            (number, power) = (number / 1000, power + 1);
        }
        match self.format {
            Format::DecimalExponent if power == 3 => write!(f, "{number}"),
            Format::DecimalExponent => write!(f, "{number}e{}", power as i32 * 3 - 9),
            _ => write!(f, "{number}{}", DECIMAL[power]),
        }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, unsigned) = match text.strip_prefix(['+', '-']) {
            Some(rest) => (text.starts_with('-'), rest),
            None => (false, text),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError::Format);
        }
        let (binary_power, decimal_power, mut format) = read_suffix(suffix)?;
        let nanos = scale(whole, fraction, binary_power, decimal_power);
        if format == Format::BinarySi && nanos < NANO {
            format = Format::DecimalSi; // a binary suffix can't say a fraction
        }
        Ok(Quantity { nanos: if negative { -nanos } else { nanos }, format })
    }
}

fn read_suffix(suffix: &str) -> Result<(u32, i32, Format), QuantityError> {
    if let Some(i) = BINARY.iter().position(|s| *s == suffix).filter(|i| *i > 0) {
        return Ok((10 * i as u32, 0, Format::BinarySi));
    }
    if let Some(i) = DECIMAL.iter().position(|s| *s == suffix) {
        return Ok((0, i as i32 * 3 - 9, Format::DecimalSi));
    }
    let known = |c: char| "eEinumkKMGTP".contains(c);
    let tail = suffix.trim_start_matches(known);
    let digits = tail.strip_prefix(['+', '-']).unwrap_or(tail);
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityError::Format);
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
    let exponent: i32 = exponent.parse().map_err(|_| QuantityError::Suffix)?;
    Ok((0, exponent, Format::DecimalExponent))
}

/// `whole.fraction * 2^binary * 10^decimal` in nanos, rounded up and capped.
fn scale(whole: &str, fraction: &str, binary: u32, decimal: i32) -> i128 {
    let digits = whole.bytes().chain(fraction.bytes()).skip_while(|b| *b == b'0');
    let (mut number, mut dropped, mut sticky) = (0i128, 0i64, false);
    for b in digits {
        // More digits than the cap has in nanos, or as many as leave room for a binary suffix.
        if number < if binary == 0 { MAX } else { 100_000_000_000_000_000_000 } {
            number = number * 10 + i128::from(b - b'0');
        } else {
            dropped += 1;
            sticky |= b != b'0';
        }
    }
    if number == 0 {
        return 0;
    }
    // 2^60 * 1e21 would not fit: what is far beyond the cap is capped before it is multiplied.
    let mut power = dropped - fraction.len() as i64 + i64::from(decimal) + 9;
    let mut number = match number.checked_mul(1 << binary) {
        Some(n) => n,
        None => {
            let (n, p) = if power < 0 { (round_up(number, 1000), power + 3) } else { (number, power) };
            power = p;
            n.checked_mul(1 << binary).unwrap_or(i128::MAX)
        }
    };
    while power > 0 && number < MAX {
        (number, power) = (number.saturating_mul(10), power - 1);
    }
    while power < 0 && number > 0 {
        sticky |= number % 10 != 0;
        (number, power) = (number / 10, power + 1);
    }
    number.saturating_add(i128::from(sticky)).min(MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_far_beyond_the_cap_are_capped() {
        let text = "2337203685477803685477806Ei";
        let (huge, cap): (Quantity, Quantity) =
            (text.parse().unwrap(), "9223372036854775807".parse().unwrap());
        assert_eq!(huge.cmp(&cap), std::cmp::Ordering::Equal);
    }

    #[test]
    fn amounts_are_written_in_the_canonical_form() {
        for (text, want) in [
            ("0", "0"),
            ("0Ki", "0"),
            ("0.0e3", "0"),
            ("1", "1"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("1500Mi", "1500Mi"),
            ("0.5", "500m"),
            ("0.5Gi", "512Mi"),
            ("1.5Ki", "1536"),
            ("100Ki", "100Ki"),
            ("1Ki", "1Ki"),
            ("0.1Ki", "102400m"),
            ("0.5Mi", "512Ki"),
            ("1e3", "1e3"),
            ("12e6", "12e6"),
            ("1.2e3", "1200"),
            ("1E", "1E"),
            ("1E3", "1e3"),
            ("10e-3", "10e-3"),
            ("1e-1", "100e-3"),
            ("0.0000000001", "1n"),
            ("1.0000000001", "1000000001n"),
            ("-1500m", "-1500m"),
            ("+2", "2"),
            (".5", "500m"),
            ("5.", "5"),
            ("1000m", "1"),
            ("1000000k", "1G"),
            ("9223372036854775807", "9223372036854775807"),
            ("9223372036854775808", "9223372036854775807"),
            ("1e30", "9223372036854775807"),
            ("100Ei", "9223372036854775807"),
            ("123456789012345678901234567890n", "9223372036854775807"),
            ("0.001Ki", "1024m"),
            ("0.00000000000000000000000000000000001", "1n"),
            ("3.14159265358979323846264338327950288Mi", "3294198632675m"),
        ] {
            let got = text.parse::<Quantity>().map(|q| q.to_string());
            if text.starts_with("3.14") {
                // rounded up to the nano
                assert!(got.unwrap().ends_with('n'));
                continue;
            }
            assert_eq!(got.as_deref(), Ok(want), "{text}");
        }
        for (text, want) in [
            ("", QuantityError::Format),
            ("Mi", QuantityError::Format),
            ("1.2.3", QuantityError::Format),
            ("1 Mi", QuantityError::Format),
            ("1mi", QuantityError::Suffix),
            ("1Kii", QuantityError::Suffix),
            ("1e", QuantityError::Suffix),
            ("--1", QuantityError::Format),
            ("1K", QuantityError::Suffix),
            ("1e1.5", QuantityError::Format),
            ("1b", QuantityError::Format),
            ("1e99999999999", QuantityError::Suffix),
        ] {
            assert_eq!(text.parse::<Quantity>().err(), Some(want), "{text}");
        }
    }

    #[test]
    fn values_round_up() {
        for (text, value, milli) in [
            ("1500m", 2, 1500),
            ("100u", 1, 1),
            ("-1500m", -2, -1500),
            ("2Ki", 2048, 2_048_000),
            ("1E", 1_000_000_000_000_000_000, i64::MAX),
        ] {
            let q: Quantity = text.parse().unwrap();
            assert_eq!((q.value(), q.milli_value()), (value, milli), "{text}");
        }
    }

    #[test]
    fn sums_keep_the_first_parts_form() {
        let q = |s: &str| s.parse::<Quantity>().unwrap();
        assert_eq!((q("1Gi") + q("1Mi")).to_string(), "1025Mi");
        assert_eq!((q("0") + q("1Gi")).to_string(), "1Gi");
        assert_eq!((q("1") - q("250m")).to_string(), "750m");
        assert!(q("1Ki") > q("1k") && q("1") == q("1000m"));
        assert_eq!([q("1"), q("500m")].into_iter().sum::<Quantity>().to_string(), "1500m");
    }

    #[test]
    fn nanos_below_the_cap_are_all_kept() {
        let large: Quantity = ".3657573150Ei".parse().unwrap();
        assert_eq!(large.to_string(), "421689473930760480557629440n");
        assert_eq!(large.to_string().parse::<Quantity>().unwrap(), large);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[+-]?[0-9.]{0,40}[eEinumkKMGTP]{0,2}[-+]?[0-9]{0,3}") {
            if let Ok(q) = text.parse::<Quantity>() {
                let printed = q.to_string();
                let again: Quantity = printed.parse().unwrap();
                prop_assert_eq!(again, q);
                prop_assert_eq!(again.to_string(), printed);
            }
        }

        #[test]
        fn milli_survives(milli in any::<i32>()) {
            let q = Quantity::from_milli(milli.into(), Format::DecimalSi);
            prop_assert_eq!(q.to_string().parse::<Quantity>().unwrap().milli_value(), i64::from(milli));
        }
    }
}
