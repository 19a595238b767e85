//! Times, schedules, addresses and ranges of them.
#![no_main]
use api::cron::Schedule;
use apiserver::options::Cidr;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(time) = api::time::parse(text) {
        let written = api::time::format(time);
        assert_eq!(api::time::parse(&written).ok().map(api::time::format), Some(written));
        let _ = (api::time::format_micro(time), api::time::truncate(time));
        let _ = api::time::later(time, std::time::Duration::MAX);
    }
    if let Ok(schedule) = text.parse::<Schedule>() {
        let mut after = Timestamp::UNIX_EPOCH;
        for _ in 0..3 {
            let Some(next) = schedule.next(after, &TimeZone::UTC) else { break };
            assert!(next > after);
            after = next;
        }
        let _ = schedule.next(Timestamp::MAX, &TimeZone::UTC);
    }
    if let Ok(range) = text.parse::<Cidr>() {
        assert!(range.contains(range.nth(range.size() - 1)) || range.size() < 2, "{text}");
        let _ = (range.reserved(), range.to_string());
    }
});
