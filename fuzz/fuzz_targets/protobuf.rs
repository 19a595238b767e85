//! Bodies in protobuf, with and without their envelope: what is read is written, and read the same. What is written of
//! JSON is what is written of its value.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = api::protobuf::unwrap(data);
    let Some((kind, wire)) = ferrokube_fuzz::kind(data) else { return };
    let wrapped = api::protobuf::wrap(&kind.api_version, kind.schema.type_name(), wire);
    for wire in [wire, &wrapped] {
        let Ok(read) = api::protobuf::from_wire(wire, &kind.schema) else { continue };
        let Ok(written) = api::protobuf::to_wire(&read, &kind.schema) else { continue };
        let again = api::protobuf::from_wire(&written, &kind.schema).expect("what was written is read");
        let rewritten = api::protobuf::to_wire(&again, &kind.schema).expect("and written again");
        assert_eq!(written, rewritten);
        let text = serde_json::to_vec(&read).expect("a value is text");
        assert_eq!(written, api::protobuf::to_wire(&text[..], &kind.schema).expect("its text is written"));
    }
    let read = serde_json::from_slice::<serde_json::Value>(wire).ok();
    let by_value = read.as_ref().map(|value| api::protobuf::encode(value, &kind.schema));
    assert_eq!(by_value.and_then(Result::ok), api::protobuf::encode(wire, &kind.schema).ok());
    let by_value =
        read.as_ref().map(|value| api::protobuf::encode(value, &api::schema::any()).expect("any JSON"));
    assert_eq!(by_value, api::protobuf::encode(wire, &api::schema::any()).ok());
});
