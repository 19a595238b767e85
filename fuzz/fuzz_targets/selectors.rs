//! Selectors of labels and of fields, as text, and names and tokens that stand in queries.
#![no_main]
use api::selector::{LabelSelector, parse_fields};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(selector) = LabelSelector::parse(text) {
        let _ = selector.matches(|key| (key.len() % 2 == 0).then_some("1"));
        let _ = selector.is_empty();
        assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
    }
    let _ = parse_fields(text);
    let _ = apiserver::verbs::list::Continue::parse(text);
});
