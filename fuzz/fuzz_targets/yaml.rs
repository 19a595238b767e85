//! Bodies in YAML: what is read comes back the same from YAML and from JSON.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, text)) = ferrokube_fuzz::kind(data) else { return };
    let Ok(read) = api::yaml::decode(text, &kind.schema) else { return };
    let json = serde_json::to_vec(&read.value).expect("a value is written");
    let again = api::json::decode(&json, &kind.schema).expect("it is read as JSON");
    assert_eq!(read.value, again.value);
    let yaml = api::yaml::encode(&read.value).expect("a value is written");
    if let Ok(again) = api::yaml::decode(yaml.as_bytes(), &kind.schema) {
        assert_eq!(read.value, again.value);
    }
});
