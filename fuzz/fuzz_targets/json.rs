//! Bodies in JSON: what is read once is read the same when it is written down.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = api::json::type_meta(data);
    let Some((kind, text)) = ferrokube_fuzz::kind(data) else { return };
    let Ok(read) = api::json::decode(text, &kind.schema) else { return };
    let written = serde_json::to_vec(&read.value).expect("a value is written");
    let again = api::json::decode(&written, &kind.schema).expect("what was written is read");
    assert!(again.faults.is_empty(), "{:?}", again.faults);
    assert_eq!(read.value, again.value);
    let checked = api::json::check(read.value.clone(), &kind.schema).expect("what was read holds");
    assert_eq!(read.value, checked.value);
});
