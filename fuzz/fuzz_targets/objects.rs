//! Objects of every kind, from JSON through defaults and validation to a row of a table.
#![no_main]
use api::field::FieldErrors;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [first, text @ ..] = data else { return };
    let kinds = resources::registry::kinds();
    let Some(kind) = kinds.get(usize::from(first.wrapping_sub(b'!')) % kinds.len()) else { return };
    let Some(schema) = api::schema::builtin().kind(&kind.names().gvk()) else { return };
    let Ok(read) = api::json::decode(text, schema) else { return };
    let Ok(mut object) = kind.read(&read.value) else { return };
    kind.default(&mut object);
    let mut errors = FieldErrors::default();
    kind.validate(&object, &mut errors);
    kind.validate_update(None, &object, &object, &mut errors);
    kind.warnings(&object, None);
    kind.cells(&object, jiff::Timestamp::UNIX_EPOCH);
    kind.scale(&object);
});
