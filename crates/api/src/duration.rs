//! Durations as Go writes and reads them: `1h30m`, `1.5h`, `500ms`.

use std::time::Duration;

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0:?} is not a duration such as 1h30m or 500ms")]
pub struct DurationError(pub String);

/// Units and their nanoseconds; of two that begin alike the longer first.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration: decimal numbers, each with a unit. `0` needs none. There are none below zero here, and none longer
/// than Go's, which end at 292 years.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let bad = || DurationError(text.into());
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, after) = rest.split_at(end);
        let (unit, nanoseconds) = UNITS.iter().find(|(u, _)| after.starts_with(u)).ok_or_else(bad)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(bad());
        }
        let digits = |d: &str| if d.is_empty() { Ok(0) } else { d.parse::<u128>().map_err(|_| bad()) };
        let part = digits(whole)?.checked_mul(*nanoseconds).ok_or_else(bad)?;
        // More digits than a nanosecond of an hour has say nothing.
        let fraction: String = fraction.chars().take(18).collect();
        let scale = 10u128.pow(fraction.len() as u32);
        let part = part.checked_add(digits(&fraction)? * nanoseconds / scale).ok_or_else(bad)?;
        total = total.checked_add(part).ok_or_else(bad)?;
        rest = &after[unit.len()..];
    }
    u64::try_from(total).ok().filter(|n| *n <= i64::MAX as u64).map(Duration::from_nanos).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_reads_them() {
        for (text, milliseconds) in [
            ("0", 0),
            ("0s", 0),
            ("+5s", 5_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("500ms", 500),
            ("1m0.5s", 60_500),
            (".5s", 500),
            ("1.s", 1_000),
            ("2000us", 2),
            ("3000µs", 3),
            ("1h0m5s", 3_605_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        assert_eq!(parse("1.000000001s"), Ok(Duration::from_nanos(1_000_000_001)));
        for bad in
            ["", "+", "5", "-1s", "1d", "s", ".s", "1..5s", "1h5", "1 s", "99999999999h", "1e3s", "1s "]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
