//! Schedules as cron has them: `*/5 8-18 * * mon-fri`, `@daily`, `@every 90m`.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::str::FromStr;

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CronError(String);

/// When something is to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule(Rule);

#[derive(Clone, Debug, PartialEq)]
enum Rule {
    /// Again after so many seconds.
    Every(i64),
    /// Whenever the clock on the wall shows this.
    Fields { minutes: u64, hours: u64, days: u64, months: u64, weekdays: u64, any_day: bool },
}

/// A field's least and greatest value, and the names of its values.
struct Bounds(u32, u32, &'static [&'static str]);

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// A schedule that never comes, such as the 30th of February, is given up after so many years.
const YEARS: i16 = 5;

impl FromStr for Schedule {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        if text.is_empty() {
            return Err(CronError("empty spec string".into()));
        }
        if let Some(name) = text.strip_prefix('@') {
            let fields = match name {
                "yearly" | "annually" => "0 0 1 1 *",
                "monthly" => "0 0 1 * *",
                "weekly" => "0 0 * * 0",
                "daily" | "midnight" => "0 0 * * *",
                "hourly" => "0 * * * *",
                _ => return every(text, name),
            };
            return fields.parse();
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return Err(CronError(format!(
                "expected exactly 5 fields, found {}: [{}]",
                fields.len(),
                fields.join(" ")
            )));
        };
        let (minutes, _) = field(minutes, &Bounds(0, 59, &[]))?;
        let (hours, _) = field(hours, &Bounds(0, 23, &[]))?;
        let (days, any_date) = field(days, &Bounds(1, 31, &[]))?;
        let (months, _) = field(months, &Bounds(1, 12, &MONTHS))?;
        let (weekdays, any_weekday) = field(weekdays, &Bounds(0, 6, &WEEKDAYS))?;
        let any_day = any_date || any_weekday;
        Ok(Schedule(Rule::Fields { minutes, hours, days, months, weekdays, any_day }))
    }
}

fn every(text: &str, name: &str) -> Result<Schedule, CronError> {
    let Some(span) = name.strip_prefix("every ") else {
        return Err(CronError(format!("unrecognized descriptor: {text}")));
    };
    let bad = || CronError(format!("failed to parse duration {text}: time: invalid duration {span:?}"));
    let (mut rest, mut seconds) = (span.trim(), 0.0);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(bad()),
        };
        seconds += number.parse::<f64>().map_err(|_| bad())? * unit;
        rest = tail;
    }
    if span.trim().is_empty() || !seconds.is_finite() || seconds > 9e9 {
        return Err(bad());
    }
    Ok(Schedule(Rule::Every((seconds as i64).max(1))))
}

/// The bits of a field, and whether it says nothing.
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), CronError> {
    let (mut bits, mut any) = (0, false);
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (more, star) = range(part, bounds)?;
        bits |= more;
        any |= star;
    }
    if bits == 0 {
        return Err(CronError(format!("failed to parse int from {text}: nothing is named")));
    }
    Ok((bits, any))
}

fn range(part: &str, Bounds(min, max, names): &Bounds) -> Result<(u64, bool), CronError> {
    let pieces: Vec<&str> = part.split('/').collect();
    let (span, step) = match pieces.as_slice() {
        [span] => (*span, None),
        [span, step] => (*span, Some(*step)),
        _ => return Err(CronError(format!("too many slashes: {part}"))),
    };
    let ends: Vec<&str> = span.split('-').collect();
    let star = matches!(span, "*" | "?");
    let (low, mut high) = match ends.as_slice() {
        _ if star => (*min, *max),
        [one] => (number(one, names)?, number(one, names)?),
        [low, high] => (number(low, names)?, number(high, names)?),
        _ => return Err(CronError(format!("too many hyphens: {part}"))),
    };
    let width = match step {
        None => 1,
        Some(step) => {
            if ends.len() == 1 && !star {
                high = *max;
            }
            number(step, &[])?
        }
    };
    if low < *min {
        return Err(CronError(format!("beginning of range ({low}) below minimum ({min}): {part}")));
    }
    if high > *max {
        return Err(CronError(format!("end of range ({high}) above maximum ({max}): {part}")));
    }
    if low > high {
        return Err(CronError(format!("beginning of range ({low}) beyond end of range ({high}): {part}")));
    }
    if width == 0 {
        return Err(CronError(format!("step of range should be a positive number: {part}")));
    }
    let bits = (low..=high).step_by(width as usize).fold(0, |bits, n| bits | 1 << n);
    Ok((bits, star && width == 1))
}

fn number(text: &str, names: &[&str]) -> Result<u32, CronError> {
    let lower = text.to_ascii_lowercase();
    if let Some(at) = names.iter().position(|n| *n == lower) {
        // Months begin with one, weekdays with none.
        return Ok(at as u32 + u32::from(names.len() == MONTHS.len()));
    }
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let read = text.parse().ok().filter(|_| plain);
    read.ok_or_else(|| CronError(format!("failed to parse int from {text}: invalid syntax")))
}

impl Schedule {
    /// The first time after `after`; none if there is none within years. A time that a clock leaps over does
    /// not come, one that it shows twice comes twice.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let start = Timestamp::from_second(after.as_second()).ok()?;
        let Rule::Fields { minutes, hours, days, months, weekdays, any_day } = self.0 else {
            let Rule::Every(seconds) = self.0 else { return None };
            return start.checked_add(SignedDuration::from_secs(seconds)).ok();
        };
        let has = |bits: u64, n: i8| u32::try_from(n).is_ok_and(|n| bits >> n & 1 == 1);
        let first = zone.to_datetime(start);
        let mut at = start.checked_add(SignedDuration::from_secs(60 - i64::from(first.second()))).ok()?;
        loop {
            let wall = zone.to_datetime(at);
            if wall.year() > first.year() + YEARS {
                return None;
            }
            if !has(months, wall.month()) {
                let next = wall.date().first_of_month().checked_add(jiff::Span::new().months(1)).ok()?;
                at = zone.to_timestamp(next.to_datetime(jiff::civil::Time::midnight())).ok()?;
                continue;
            }
            let date = has(days, wall.day());
            let weekday = has(weekdays, wall.weekday().to_sunday_zero_offset());
            let fits = if any_day { date && weekday } else { date || weekday };
            if !fits {
                let next = wall.date().tomorrow().ok()?;
                at = zone.to_timestamp(next.to_datetime(jiff::civil::Time::midnight())).ok()?;
                continue;
            }
            let step = if !has(hours, wall.hour()) {
                60 - i64::from(wall.minute())
            } else if !has(minutes, wall.minute()) {
                1
            } else {
                return Some(at);
            };
            at = at.checked_add(SignedDuration::from_mins(step)).ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_next_time() {
        for (schedule, after, want) in [
            ("*/15 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:15:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 30 2 *", "2026-01-01T00:00:00Z", "none"),
            ("30 8 * * mon-fri", "2026-01-02T09:00:00Z", "2026-01-05T08:30:00Z"),
            ("0 0 13 * 5", "2026-01-01T12:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 */2 * 5", "2026-01-02T12:00:00Z", "2026-01-03T00:00:00Z"),
            ("5/20 * * * *", "2026-01-01T00:06:00Z", "2026-01-01T00:25:00Z"),
            ("@hourly", "2026-01-01T00:59:59.5Z", "2026-01-01T01:00:00Z"),
            ("@every 90m", "2026-01-01T00:00:00.5Z", "2026-01-01T01:30:00Z"),
            ("0 0 1 JAN ?", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ] {
            let schedule: Schedule = schedule.parse().unwrap();
            let next = schedule.next(after.parse().unwrap(), &TimeZone::UTC);
            assert_eq!(next.map_or("none".into(), |t| t.to_string()), want, "{schedule:?} {after}");
        }
    }

    #[test]
    fn clocks_leap() {
        // Central Europe: an hour is left out on 2026-03-29, another comes twice on 2026-10-25.
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        for (schedule, after, want) in [
            ("30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z"),
            ("30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"),
            ("30 2 * * *", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"),
            ("0 12 * * *", "2026-07-01T00:00:00Z", "2026-07-01T10:00:00Z"),
        ] {
            let schedule: Schedule = schedule.parse().unwrap();
            let next = schedule.next(after.parse().unwrap(), &zone).unwrap();
            assert_eq!(next.to_string(), want, "{schedule:?} {after}");
        }
    }

    #[test]
    fn what_is_no_schedule() {
        for text in [
            "",
            "* * * *",
            "60 * * * *",
            "* * 0 * *",
            "5-1 * * * *",
            "*/0 * * * *",
            "* * * * 7",
            "a * * * *",
            "@never",
            "@every x",
            "1/2/3 * * * *",
        ] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[@*/,0-9a-z -]{0,20}", at in 0i64..4_000_000_000) {
            if let Ok(schedule) = text.parse::<Schedule>() {
                let at = Timestamp::from_second(at).unwrap();
                prop_assert!(schedule.next(at, &TimeZone::UTC).is_none_or(|next| next > at));
            }
        }
    }
}
