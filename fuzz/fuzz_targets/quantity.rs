//! Quantities: what is written is canonical, and reads as the same amount.
#![no_main]
use api::quantity::Quantity;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(quantity) = text.parse::<Quantity>() else { return };
    let written = quantity.to_string();
    let again: Quantity = written.parse().expect("what was written is read");
    assert_eq!(quantity.cmp(&again), std::cmp::Ordering::Equal, "{text} {written}");
    assert_eq!(again.to_string(), written);
    let _ = (quantity.value(), quantity.milli_value(), quantity.nano_value(), quantity.as_f64());
    let _ = (quantity.is_zero(), quantity.sign(), quantity.is_integer());
});
