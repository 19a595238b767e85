//! Bodies in protobuf, with and without their envelope: what is read is written, and read the same.
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
    }
});
