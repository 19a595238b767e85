//! Patches of each kind, on an object. What they make is bounded by what they are made of.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = ferrokube_fuzz::kind(data) else { return };
    let (object, patch) = ferrokube_fuzz::two(data);
    let (Ok(object), Ok(patch)) = (api::json::decode(object, &kind.schema), api::json::decode_any(patch))
    else {
        return;
    };
    let mut target = object.value.clone();
    let _ = api::patch::json_patch(&mut target, &patch);
    let mut merged = object.value.clone();
    api::patch::merge(&mut merged, patch.clone());
    let _ = api::json::check(merged, &kind.schema);
    let mut merged = object.value;
    if api::patch::strategic(&mut merged, patch, &kind.schema).is_ok() {
        let _ = api::json::check(merged, &kind.schema);
    }
});
