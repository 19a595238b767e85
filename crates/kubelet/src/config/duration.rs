//! Durations as Go writes them: `1m30s`, `300ms`, `0s`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A duration in Go's notation, as `metav1.Duration` has it on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(pub Duration);

impl GoDuration {
    /// Whole seconds.
    pub const fn secs(s: u64) -> Self {
        GoDuration(Duration::from_secs(s))
    }

    /// This, or `default` when it is zero, as upstream's defaulting does.
    pub fn or(self, default: Duration) -> Duration {
        if self.0.is_zero() { default } else { self.0 }
    }
}

impl FromStr for GoDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("time: invalid duration {text:?}");
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest == "0" {
            return Ok(GoDuration::default());
        }
        if rest.is_empty() {
            return Err(bad());
        }
        let mut total = 0f64;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
            let (number, tail) = rest.split_at(digits);
            let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_len);
            let scale = match unit {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(bad()),
            };
            total += number.parse::<f64>().map_err(|_| bad())? * scale;
            rest = tail;
        }
        Duration::try_from_secs_f64(total).map(GoDuration).map_err(|_| bad())
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0.as_secs();
        let (h, m, s) = (secs / 3600, secs / 60 % 60, secs % 60);
        let nanos = self.0.subsec_nanos();
        if secs == 0 && nanos != 0 {
            return write!(f, "{}ms", f64::from(nanos) / 1e6);
        }
        if h > 0 {
            write!(f, "{h}h")?;
        }
        if h > 0 || m > 0 {
            write!(f, "{m}m")?;
        }
        match nanos {
            0 => write!(f, "{s}s"),
            _ => write!(f, "{}s", s as f64 + f64::from(nanos) / 1e9),
        }
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notation() {
        for (text, ms, back) in [
            ("0s", 0, "0s"),
            ("0", 0, "0s"),
            ("300ms", 300, "300ms"),
            ("1m30s", 90_000, "1m30s"),
            ("2h", 7_200_000, "2h0m0s"),
            ("1.5s", 1500, "1.5s"),
        ] {
            let d: GoDuration = text.parse().unwrap_or_else(|e| panic!("{e}"));
            assert_eq!((d.0.as_millis(), d.to_string()), (ms, back.to_owned()), "{text}");
        }
        for text in ["", "5", "1x", "-1s", "s", "1..2s"] {
            assert!(text.parse::<GoDuration>().is_err(), "{text}");
        }
    }
}
