//! Checks that many kinds share: each adds what is wrong with one field. A value that is fine costs no
//! allocation.

use crate::kind::path_segment_name;
use api::field::{FieldErrors, FieldFault, FieldPath};
use api::names;
use api::quantity::Quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;
use serde_json::Value;
use std::net::IpAddr;

/// Said of a field that may not change.
pub const IMMUTABLE: &str = "field is immutable";
/// Said of a number below zero.
pub const NEGATIVE: &str = "must be greater than or equal to 0";
/// Said of a number that is not above zero.
pub const NOT_POSITIVE: &str = "must be greater than zero";

/// The text of a field that need not be there.
pub fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

/// A list that need not be there.
pub fn list<T>(value: &Option<Vec<T>>) -> &[T] {
    value.as_deref().unwrap_or_default()
}

/// Whether a text is there and not empty.
pub fn is_set(value: &Option<String>) -> bool {
    !text(value).is_empty()
}

/// A text must not be empty. Answers whether it is.
pub fn required(value: &str, at: FieldPath<'_>, errors: &mut FieldErrors) -> bool {
    if value.is_empty() {
        errors.required(at, "");
    }
    value.is_empty()
}

/// A value must be there, and without the faults that `rule` finds.
pub fn required_text(
    value: &str,
    at: FieldPath<'_>,
    why: &str,
    rule: impl Fn(&str) -> Vec<String>,
    errors: &mut FieldErrors,
) {
    match value {
        "" => errors.required(at, why),
        value => errors.all_invalid(at, value, rule(value)),
    }
}

/// Faults of a name that stands in a path.
pub fn segment(value: &str) -> Vec<String> {
    path_segment_name(value, false)
}

/// No faults whatever the value.
pub fn anything(_: &str) -> Vec<String> {
    Vec::new()
}

/// A DNS label.
pub fn label(value: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    errors.all_invalid(at, value, names::dns1123_label(value));
}

/// A DNS subdomain.
pub fn subdomain(value: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    errors.all_invalid(at, value, names::dns1123_subdomain(value));
}

/// A key of labels, resources, conditions.
pub fn qualified(value: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    errors.all_invalid(at, value, names::qualified_name(value));
}

/// A label that must be there.
pub fn required_label(value: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if !required(value, at, errors) {
        label(value, at, errors);
    }
}

/// A number that is not negative.
pub fn not_negative(value: Option<impl Into<i64>>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if let Some(value) = value.map(Into::into).filter(|v| *v < 0) {
        errors.invalid(at, &value, NEGATIVE);
    }
}

/// A number above zero.
pub fn positive(value: impl Into<i64>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let value = value.into();
    if value <= 0 {
        errors.invalid(at, &value, NOT_POSITIVE);
    }
}

/// A number between two others.
pub fn in_range(value: impl Into<i64>, low: i64, high: i64, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let value = value.into();
    if let Some(fault) = names::in_range(value, low, high) {
        errors.invalid(at, &value, fault);
    }
}

/// A user's or group's number.
pub fn unix_id(value: Option<i64>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if let Some(value) = value {
        in_range(value, 0, i32::MAX.into(), at, errors);
    }
}

/// A port's number.
pub fn port_number(value: i32, at: FieldPath<'_>, errors: &mut FieldErrors) {
    in_range(value, 1, 65535, at, errors);
}

/// A port's number or name.
pub fn port(value: &IntOrString, at: FieldPath<'_>, errors: &mut FieldErrors) {
    match value {
        IntOrString::Int(n) => port_number(*n, at, errors),
        IntOrString::String(name) => errors.all_invalid(at, name, names::port_name(name)),
    }
}

/// A file's mode.
pub fn file_mode(value: Option<i32>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if let Some(mode) = value.filter(|m| !(0..=0o777).contains(m)) {
        errors.invalid(at, &mode, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

/// One of the supported values.
pub fn one_of(value: &str, supported: &[&str], at: FieldPath<'_>, errors: &mut FieldErrors) {
    if !supported.contains(&value) {
        errors.not_supported(at, value, supported);
    }
}

/// One of the supported values, if there is one.
pub fn maybe_one_of(value: &Option<String>, supported: &[&str], at: FieldPath<'_>, errors: &mut FieldErrors) {
    if let Some(value) = value {
        one_of(value, supported, at, errors);
    }
}

/// One of the supported values, which must be there.
pub fn required_one_of(value: &str, supported: &[&str], at: FieldPath<'_>, errors: &mut FieldErrors) {
    if !required(value, at, errors) {
        one_of(value, supported, at, errors);
    }
}

/// A field that may not change.
pub fn immutable<T: PartialEq + Serialize>(new: &T, old: &T, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if new != old {
        errors.invalid(at, new, IMMUTABLE);
    }
}

/// A protocol of the fourth layer.
pub fn protocol(value: &Option<String>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    required_one_of(text(value), &["SCTP", "TCP", "UDP"], at, errors);
}

/// An IP address, without leading zeros and not IPv4 within IPv6. Answers whether it is one.
pub fn ip(value: &str, at: FieldPath<'_>, errors: &mut FieldErrors) -> bool {
    match value.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
            errors.invalid(at, &value, "must not be an IPv4-mapped IPv6 address");
        }
        Ok(_) => return true,
        Err(_) if without_zeros(value).is_some_and(|v| v.parse::<IpAddr>().is_ok()) => {
            errors.invalid(at, &value, "must not have leading 0s");
        }
        Err(_) => {
            let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.invalid(at, &value, why);
        }
    }
    false
}

/// An address whose IPv4 parts have lost their leading zeros; `None` if they had none.
fn without_zeros(value: &str) -> Option<String> {
    let bare = |part: &str| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0".to_string(),
        rest => rest.to_string(),
    };
    let stripped = value.split('.').map(bare).collect::<Vec<_>>().join(".");
    (value.contains('.') && stripped != value).then_some(stripped)
}

/// A network, such as `10.9.8.0/24`. Answers whether it is one.
pub fn cidr(value: &str, at: FieldPath<'_>, errors: &mut FieldErrors) -> bool {
    let read = |ip: &str, bits: &str| {
        let ip = ip.parse::<IpAddr>().ok()?;
        let width = if ip.is_ipv4() { 32 } else { 128 };
        bits.bytes().all(|b| b.is_ascii_digit()).then_some(())?;
        Some((ip, bits.parse::<u32>().ok().filter(|b| *b <= width)?))
    };
    let parts = value.split_once('/');
    let strict = parts.filter(|(_, bits)| *bits == "0" || !bits.starts_with('0'));
    let why = match strict.and_then(|(ip, bits)| read(ip, bits)) {
        Some((IpAddr::V6(v6), _)) if v6.to_ipv4_mapped().is_some() => {
            "must not have an IPv4-mapped IPv6 address"
        }
        Some((ip, bits)) if has_host_bits(ip, bits) => "must not have bits set beyond the prefix length",
        Some(_) => return true,
        None => {
            let sloppy = parts.and_then(|(ip, bits)| {
                let ip = without_zeros(ip).unwrap_or_else(|| ip.to_string());
                let bits = bits.trim_start_matches('0');
                read(&ip, if bits.is_empty() { "0" } else { bits })
            });
            match sloppy {
                Some(_) => "must not have leading 0s in IP or prefix length",
                None => "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            }
        }
    };
    errors.invalid(at, &value, why);
    false
}

fn has_host_bits(ip: IpAddr, bits: u32) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().checked_shl(bits).unwrap_or(0) != 0,
        IpAddr::V6(ip) => ip.to_bits().checked_shl(bits).unwrap_or(0) != 0,
    }
}

/// Whether there is an address of each family, and no more.
pub fn is_dual_stack<'a>(ips: impl Iterator<Item = &'a str>) -> bool {
    let (mut v4, mut v6) = (0, 0);
    for ip in ips {
        *if ip.contains(':') { &mut v6 } else { &mut v4 } += 1;
    }
    v4 == 1 && v6 == 1
}

/// A path without `..`.
pub fn no_backsteps(path: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if path.split('/').any(|p| p == "..") {
        errors.invalid(at, &path, "must not contain '..'");
    }
}

/// A relative path without `..`.
pub fn descending_path(path: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if path.starts_with('/') {
        errors.invalid(at, &path, "must be a relative path");
    }
    no_backsteps(path, at, errors);
}

/// A relative path that does not start with two dots.
pub fn local_path(path: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    descending_path(path, at, errors);
    if path.starts_with("..") && !path.starts_with("../") {
        errors.invalid(at, &path, "must not start with '..'");
    }
}

/// Fields of which one alone may be set: volume sources, handlers.
pub struct OneOf<'a> {
    at: FieldPath<'a>,
    why: &'static str,
    set: bool,
}

impl<'a> OneOf<'a> {
    /// Nothing seen so far; `why` is said of every further one.
    pub fn new(at: FieldPath<'a>, why: &'static str) -> Self {
        OneOf { at, why, set: false }
    }

    /// Whether a field that is set is the first; if not, this says so.
    pub fn first(&mut self, name: &str, errors: &mut FieldErrors) -> bool {
        if self.set {
            errors.forbidden(self.at.child(name), self.why);
            return false;
        }
        self.set = true;
        true
    }

    /// One must be set.
    pub fn required(self, why: &str, errors: &mut FieldErrors) {
        if !self.set {
            errors.required(self.at, why);
        }
    }
}

/// Checks a list of conditions.
pub fn conditions(list: Option<&Vec<Condition>>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let list = list.map(Vec::as_slice).unwrap_or_default();
    for (i, condition) in list.iter().enumerate() {
        let at = at.index(i);
        if list.iter().take(i).any(|c| c.type_ == condition.type_) {
            errors.duplicate(at.child("type"), &condition.type_);
        }
        let named = |value: &str, name: &str, errors: &mut FieldErrors| {
            required_text(value, at.child(name), "must be set", anything, errors);
        };
        named(&condition.type_, "type", errors);
        if !condition.type_.is_empty() {
            qualified(&condition.type_, at.child("type"), errors);
        }
        if !matches!(condition.status.as_str(), "True" | "False" | "Unknown") {
            errors.not_supported(at.child("status"), &condition.status, &["False", "True", "Unknown"]);
        }
        if let Some(generation) = condition.observed_generation.filter(|g| *g < 0) {
            errors.invalid(
                at.child("observedGeneration"),
                &generation,
                "must be greater than or equal to zero",
            );
        }
        named(&condition.reason, "reason", errors);
        if condition.reason.len() > 1024 {
            errors.too_long(at.child("reason"), 1024);
        }
        if !condition.reason.is_empty() && !is_reason(&condition.reason) {
            errors.invalid(
                at.child("reason"),
                &condition.reason,
                "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')",
            );
        }
        if condition.message.len() > 32768 {
            errors.too_long(at.child("message"), 32768);
        }
    }
}

fn is_reason(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || b"_,:".contains(b);
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_')
        && bytes.iter().all(inner)
}

/// A label selector. `lenient` lets values through that are no labels'.
pub fn label_selector(
    selector: Option<&LabelSelector>,
    lenient: bool,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
) {
    let Some(selector) = selector else { return };
    crate::meta::labels(selector.match_labels.as_ref(), at.child("matchLabels"), errors);
    let expressions = at.child("matchExpressions");
    for (i, e) in list(&selector.match_expressions).iter().enumerate() {
        let at = expressions.index(i);
        let values = list(&e.values);
        match e.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(at.child("values"), "must be specified when `operator` is 'In' or 'NotIn'")
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.forbidden(
                at.child("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(at.child("operator"), &other, "not a valid selector operator"),
        }
        qualified(&e.key, at.child("key"), errors);
        if !lenient {
            let at = at.child("values");
            for (i, value) in values.iter().enumerate() {
                errors.all_invalid(at.index(i), value, names::label_value(value));
            }
        }
    }
}

/// Checks each item of a list, unless there are more than `most`.
pub fn each<T>(
    list: Option<&Vec<T>>,
    most: usize,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
    check: impl Fn(&T, FieldPath<'_>, &mut FieldErrors),
) {
    let list = list.map(Vec::as_slice).unwrap_or_default();
    if list.len() > most {
        return errors.push(at, FieldFault::TooMany(list.len(), most));
    }
    for (i, item) in list.iter().enumerate() {
        check(item, at.index(i), errors);
    }
}

/// Reports items whose key stands in the list before.
pub fn unique<T, K: PartialEq + Serialize>(
    list: Option<&Vec<T>>,
    at: FieldPath<'_>,
    errors: &mut FieldErrors,
    key: impl Fn(&T) -> K,
) {
    let mut seen: Vec<K> = Vec::new();
    for (i, item) in list.into_iter().flatten().enumerate() {
        let key = key(item);
        if seen.contains(&key) {
            errors.duplicate(at.index(i), &key);
        }
        seen.push(key);
    }
}

/// Checks a driver's name: a subdomain of at most 63 characters, in whatever case.
pub fn driver_name(name: &str, at: FieldPath<'_>, errors: &mut FieldErrors) {
    const MOST: usize = 63;
    if name.is_empty() {
        errors.required(at, "");
    }
    if name.len() > MOST {
        errors.too_long(at, MOST);
    }
    errors.all_invalid(at, name, names::dns1123_subdomain(&name.to_lowercase()));
}

/// An amount of a field. Schemas let no other text through.
pub fn amount(value: &Text) -> Quantity {
    Quantity::lenient(value)
}

/// An amount that is not negative.
pub fn not_negative_amount(value: &Text, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let value = amount(value);
    if value.sign() < 0 {
        errors.invalid(at, &value.to_string(), NEGATIVE);
    }
}

/// An amount above nothing. Answers whether it is.
pub fn positive_amount(value: &Text, at: FieldPath<'_>, errors: &mut FieldErrors) -> bool {
    let value = amount(value);
    if value.sign() <= 0 {
        errors.invalid(at, &value.to_string(), NOT_POSITIVE);
    }
    value.sign() > 0
}

/// An amount that its type can hold.
pub fn basic_amount(value: &Text, at: FieldPath<'_>, errors: &mut FieldErrors) {
    let value = amount(value).value();
    if value < 0 {
        errors.invalid(at, &value, "must be a valid resource quantity");
    }
}

/// A number that is not negative, or a percentage.
pub fn count_or_percent(value: Option<&IntOrString>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    match value {
        Some(IntOrString::Int(n)) => not_negative(Some(*n), at, errors),
        Some(IntOrString::String(s)) if !is_percent(s) => {
            errors.invalid(at, s, "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')");
        }
        _ => {}
    }
}

fn is_percent(s: &str) -> bool {
    s.strip_suffix('%').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// A percentage above 100 is too much.
pub fn not_above_hundred_percent(value: Option<&IntOrString>, at: FieldPath<'_>, errors: &mut FieldErrors) {
    if let Some(value @ IntOrString::String(s)) = value
        && is_percent(s)
        && s.trim_end_matches('%').parse::<i64>().map_or(true, |n| n > 100)
    {
        errors.invalid(at, value, "must not be greater than 100%");
    }
}

/// What a count or a percentage amounts to, as far as upstream looks: the bare number.
pub fn bare_number(value: Option<&IntOrString>) -> i64 {
    match value {
        Some(IntOrString::Int(n)) => i64::from(*n),
        Some(IntOrString::String(s)) if is_percent(s) => s.trim_end_matches('%').parse().unwrap_or(i64::MAX),
        _ => 0,
    }
}

/// The cell of a class's name, which says whether an annotation makes it the default.
pub fn marked_default(meta: &ObjectMeta, annotation: &str) -> Value {
    let name = meta.name.as_deref().unwrap_or_default();
    let is = meta.annotations.as_ref().and_then(|a| a.get(annotation)).is_some_and(|v| v == "true");
    if is { format!("{name} (default)").into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks() {
        for (value, fault) in [
            ("10.9.8.7", ""),
            ("2001:db8::1", ""),
            ("010.9.8.7", "must not have leading 0s"),
            ("::ffff:1.2.3.4", "must not be an IPv4-mapped IPv6 address"),
            ("1.2.3", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
            ("10.0.0.0/8", ""),
            ("0.0.0.0/0", ""),
            ("2001:db8::/64", ""),
            ("10.0.0.1/8", "must not have bits set beyond the prefix length"),
            ("10.00.0.0/8", "must not have leading 0s in IP or prefix length"),
            ("10.0.0.0/08", "must not have leading 0s in IP or prefix length"),
            ("::ffff:1.2.3.0/120", "must not have an IPv4-mapped IPv6 address"),
            ("10.0.0.0/33", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
        ] {
            let mut errors = FieldErrors::default();
            let at = FieldPath::root("x");
            let valid =
                if value.contains('/') { cidr(value, at, &mut errors) } else { ip(value, at, &mut errors) };
            assert_eq!(valid, fault.is_empty(), "{value}");
            let said: Vec<String> = errors.as_slice().iter().map(|e| e.to_string()).collect();
            let want = format!("x: Invalid value: {value:?}: {fault}");
            assert_eq!(said, if valid { vec![] } else { vec![want] });
        }
    }
}
