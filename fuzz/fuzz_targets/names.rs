//! Rules for names, labels and keys. What is a label is a subdomain too, and so on.
#![no_main]
use api::names::*;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let fits = |rule: fn(&str) -> Vec<String>| rule(text).is_empty();
    if fits(dns1035_label) {
        assert!(fits(dns1123_label));
    }
    if fits(dns1123_label) {
        assert!(fits(dns1123_subdomain) && fits(label_value));
    }
    if fits(dns1123_subdomain) {
        assert!(fits(dns1123_subdomain_with_underscore));
    }
    for rule in [
        wildcard_dns1123_subdomain,
        qualified_name,
        caseless_qualified_name,
        domain_prefixed_key,
        http_header_name,
        config_map_key,
        c_identifier,
        env_var_name,
        port_name,
    ] {
        fits(rule);
    }
    let _ = api::GroupVersion::parse(text);
});
