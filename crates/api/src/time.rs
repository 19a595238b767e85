//! Times as the API writes them: RFC 3339 in UTC, to the second or to the microsecond.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use std::time::Duration;

/// This instant, to the second, as `metadata.creationTimestamp` and its like hold it.
pub fn now() -> Time {
    Time(truncate(Timestamp::now()))
}

/// This instant, to the microsecond, as leases hold it.
pub fn now_micro() -> MicroTime {
    let t = Timestamp::now();
    MicroTime(Timestamp::from_microsecond(t.as_microsecond()).unwrap_or(t))
}

/// The instant without its fraction of a second.
pub fn truncate(t: Timestamp) -> Timestamp {
    Timestamp::from_second(t.as_second()).unwrap_or(t)
}

/// Writes `2006-01-02T15:04:05Z`.
pub fn format(t: Timestamp) -> String {
    truncate(t).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Writes `2006-01-02T15:04:05.000000Z`.
pub fn format_micro(t: Timestamp) -> String {
    t.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Reads RFC 3339, with any offset and any fraction of a second.
pub fn parse(text: &str) -> Result<Timestamp, String> {
    crate::json::scalar::parse_time(text)
}

/// How long it is from `from` to `to`; zero if it is the other way round.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// The instant `after` later; the end of time if there is none.
pub fn later(t: Timestamp, after: Duration) -> Timestamp {
    t.checked_add(after).unwrap_or(Timestamp::MAX)
}

/// How long it is until `deadline`; `None` when it has passed.
pub fn until(deadline: Timestamp, now: Timestamp) -> Option<Duration> {
    let left = between(now, deadline);
    (!left.is_zero()).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_upstream_writes_them() {
        let t = parse("2026-01-02T05:04:05.123456789+02:00").unwrap();
        assert_eq!(format(t), "2026-01-02T03:04:05Z");
        assert_eq!(format_micro(t), "2026-01-02T03:04:05.123456Z");
        assert_eq!(format_micro(truncate(t)), "2026-01-02T03:04:05.000000Z");
        assert_eq!(serde_json::to_string(&Time(t)).unwrap(), "\"2026-01-02T03:04:05Z\"");
        assert_eq!(now().0.subsec_nanosecond(), 0);
    }

    #[test]
    fn times_that_could_not_be_written_are_refused() {
        for (text, want) in [
            ("0000-01-01T00:00:00Z", true),
            ("9999-12-30T21:59:59Z", true),
            ("0000-01-01T00:00:00+23:00", false),
            ("-000001-01-01T00:00:00Z", false),
            ("2026-01-02 03:04Z", false),
            ("", false),
        ] {
            let read = parse(text).map(format);
            assert_eq!(read.as_deref() == Ok(text), want, "{text}: {read:?}");
        }
    }

    #[test]
    fn spans_never_go_below_zero() {
        let t = parse("2026-01-02T03:04:05Z").unwrap();
        let minute = Duration::from_secs(60);
        assert_eq!(between(t, later(t, minute)), minute);
        assert_eq!(between(later(t, minute), t), Duration::ZERO);
        assert_eq!(until(t, t), None);
        assert_eq!(later(t, Duration::MAX), Timestamp::MAX);
    }
}
