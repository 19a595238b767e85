//! Server-side apply: the sets of `fieldsV1`, and configurations applied on top of each other.
#![no_main]
use api::apply::{Author, FieldSet, apply, update};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = ferrokube_fuzz::kind(data) else { return };
    let (live, config) = ferrokube_fuzz::two(data);
    if let Ok(value) = api::json::decode_any(live)
        && let Ok(set) = FieldSet::from_json(&value)
    {
        assert_eq!(FieldSet::from_json(&set.to_json()), Ok(set));
    }
    let (Ok(live), Ok(config)) =
        (api::json::decode(live, &kind.schema), api::json::decode(config, &kind.schema))
    else {
        return;
    };
    let (mut live, mut config) = (live.value, config.value);
    let by = |manager| Author {
        manager,
        api_version: &kind.api_version,
        subresource: "",
        now: jiff::Timestamp::UNIX_EPOCH,
        reset: None,
        versions: None,
    };
    for value in [&mut live, &mut config] {
        let Some(object) = value.as_object_mut() else { return };
        object.insert("apiVersion".into(), kind.api_version.clone().into());
    }
    // Validation lets nothing in whose lists cannot be merged.
    if apply(None, &live, &kind.schema, &by("first"), false).is_err() {
        return;
    }
    update(None, &mut live, &kind.schema, &by("first"));
    let _ = apply(Some(&live), &config, &kind.schema, &by("second"), false);
    let Ok(applied) = apply(Some(&live), &config, &kind.schema, &by("second"), true) else { return };
    // Who applies the same again changes nothing, and meets no conflict.
    let again = apply(Some(&applied), &config, &kind.schema, &by("second"), false);
    assert_eq!(again.expect("it is all its own"), applied);
    update(Some(&applied), &mut config, &kind.schema, &by("third"));
});
