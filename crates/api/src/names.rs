//! Which names are valid, in the words of apimachinery's `util/validation`. Each rule answers what is
//! wrong; nothing, if the name is valid.

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const C_IDENTIFIER: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
const ENV_NAME: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";

fn max_len(max: usize) -> String {
    format!("must be no more than {max} characters")
}

fn lower_or_digit(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_label(s: &str) -> bool {
    let b = s.as_bytes();
    b.first().is_some_and(|c| lower_or_digit(*c))
        && b.last().is_some_and(|c| lower_or_digit(*c))
        && b.iter().all(|c| lower_or_digit(*c) || *c == b'-')
}

fn is_qualified(s: &str) -> bool {
    let b = s.as_bytes();
    b.first().is_some_and(u8::is_ascii_alphanumeric)
        && b.last().is_some_and(u8::is_ascii_alphanumeric)
        && b.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

fn check(value: &str, max: usize, fits: bool, rule: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > max {
        faults.push(max_len(max));
    }
    if !fits {
        faults.push(rule.into());
    }
    faults
}

/// A DNS label (RFC 1123): 63 characters.
pub fn dns1123_label(value: &str) -> Vec<String> {
    let dotted = !is_label(value) && value.split('.').all(is_label);
    check(value, 63, is_label(value), if dotted { "must not contain dots" } else { LABEL })
}

/// A DNS subdomain (RFC 1123): labels joined by dots, 253 characters.
pub fn dns1123_subdomain(value: &str) -> Vec<String> {
    check(value, 253, value.split('.').all(is_label), SUBDOMAIN)
}

/// A DNS subdomain whose labels may have underscores, as search domains and SRV names do.
pub fn dns1123_subdomain_with_underscore(value: &str) -> Vec<String> {
    let rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')";
    let fits = |label: &str| {
        let b = label.strip_prefix('_').unwrap_or(label).as_bytes();
        b.first().is_some_and(|c| lower_or_digit(*c))
            && b.last().is_some_and(|c| lower_or_digit(*c))
            && b.iter().all(|c| lower_or_digit(*c) || matches!(c, b'-' | b'_'))
    };
    check(value, 253, value.split('.').all(fits), rule)
}

/// A DNS label by the older rule (RFC 1035), which starts with a letter.
pub fn dns1035_label(value: &str) -> Vec<String> {
    check(
        value,
        63,
        is_label(value) && value.as_bytes().first().is_some_and(u8::is_ascii_lowercase),
        LABEL_1035,
    )
}

/// A subdomain, perhaps with `*.` before it.
pub fn wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let rest = value.strip_prefix("*.");
    let rule = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    check(value, 253, rest.is_some_and(|r| r.split('.').all(is_label)), rule)
}

/// A key of labels, annotations, resources: a name, perhaps with a subdomain and `/` before it.
pub fn qualified_name(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let name = match value.split_once('/') {
        None => value,
        Some((_, rest)) if rest.contains('/') => {
            return vec![
                "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')".into(),
            ];
        }
        Some(("", name)) => {
            faults.push("prefix part must be non-empty".into());
            name
        }
        Some((prefix, name)) => {
            faults.extend(dns1123_subdomain(prefix).into_iter().map(|f| format!("prefix part {f}")));
            name
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".into());
    } else if name.len() > 63 {
        faults.push(format!("name part {}", max_len(63)));
    }
    if !is_qualified(name) {
        faults.push(QUALIFIED.into());
    }
    faults
}

/// [`qualified_name`] whatever the letters' case, as annotations' keys are.
pub fn caseless_qualified_name(value: &str) -> Vec<String> {
    if value.bytes().any(|c| c.is_ascii_uppercase()) {
        qualified_name(&value.to_lowercase())
    } else {
        qualified_name(value)
    }
}

/// A key with a domain before it, such as `acme.io/foo`.
pub fn domain_prefixed_key(value: &str) -> Vec<String> {
    let faults = qualified_name(value);
    if faults.is_empty() && !value.contains('/') {
        return vec!["must be a domain-prefixed key (such as \"acme.io/foo\")".into()];
    }
    faults
}

/// The name of an HTTP header.
pub fn http_header_name(value: &str) -> Vec<String> {
    let rule = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
    let fits = !value.is_empty() && value.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    check(value, usize::MAX, fits, rule)
}

/// A label's value.
pub fn label_value(value: &str) -> Vec<String> {
    check(value, 63, value.is_empty() || is_qualified(value), VALUE)
}

/// A key of a ConfigMap or Secret: a file's name.
pub fn config_map_key(key: &str) -> Vec<String> {
    let fits =
        !key.is_empty() && key.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'));
    let mut faults = check(key, 253, fits, CONFIG_KEY);
    match key {
        "." => faults.push("must not be '.'".into()),
        ".." => faults.push("must not be '..'".into()),
        k if k.starts_with("..") => faults.push("must not start with '..'".into()),
        _ => {}
    }
    faults
}

/// A C identifier.
pub fn c_identifier(value: &str) -> Vec<String> {
    let start = value.bytes().next().is_some_and(|c| c.is_ascii_alphabetic() || c == b'_');
    check(
        value,
        usize::MAX,
        start && value.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_'),
        C_IDENTIFIER,
    )
}

/// An environment variable's name: printable ASCII without `=`, as upstream has it since v1.32.
pub fn env_var_name(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec!["environment variable name must be non-empty".into()];
    }
    check(value, usize::MAX, value.bytes().all(|c| (b' '..=b'~').contains(&c) && c != b'='), ENV_NAME)
}

/// A port's name (RFC 6335): 15 characters, a letter among them.
pub fn port_name(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > 15 {
        faults.push(max_len(15));
    }
    if value.is_empty() || !value.bytes().all(|c| lower_or_digit(c) || c == b'-') {
        faults.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !value.bytes().any(|c| c.is_ascii_lowercase()) {
        faults.push("must contain at least one letter (a-z)".into());
    }
    if value.contains("--") {
        faults.push("must not contain consecutive hyphens".into());
    }
    if value.starts_with('-') || value.ends_with('-') {
        faults.push("must not begin or end with a hyphen".into());
    }
    faults
}

/// A port's number.
pub fn port_number(value: i32) -> Vec<String> {
    if (1..=65535).contains(&value) {
        Vec::new()
    } else {
        vec!["must be between 1 and 65535, inclusive".into()]
    }
}

/// Whether a number lies between two others; if not, what to say.
pub fn in_range(value: i64, low: i64, high: i64) -> Option<String> {
    (!(low..=high).contains(&value)).then(|| format!("must be between {low} and {high}, inclusive"))
}

/// Characters of generated names: those that can't spell a word, as upstream's.
const SUFFIX: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The end of a generated name.
pub fn random_suffix(random: &mut impl rand::Rng, len: usize) -> String {
    (0..len).map(|_| SUFFIX[random.random_range(0..SUFFIX.len())] as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let rules: [(&str, fn(&str) -> Vec<String>); 6] = [
            ("label", dns1123_label),
            ("subdomain", dns1123_subdomain),
            ("1035", dns1035_label),
            ("qualified", qualified_name),
            ("value", label_value),
            ("port", port_name),
        ];
        for (name, valid) in [
            ("abc", "label subdomain 1035 qualified value port"),
            ("1a", "label subdomain qualified value port"),
            ("a.b", "subdomain qualified value"),
            ("A_b", "qualified value"),
            ("x.y/z", "qualified"),
            ("", "value"),
            ("-a", ""),
            ("a/b/c", ""),
            ("12", "label subdomain qualified value"),
        ] {
            let got: Vec<&str> =
                rules.iter().filter(|(_, rule)| rule(name).is_empty()).map(|(n, _)| *n).collect();
            assert_eq!(got.join(" "), valid, "{name:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn narrower_rules_are_within_wider_ones(text in "[a-c0A*_./-]{0,70}") {
            let fits = |rule: fn(&str) -> Vec<String>| rule(&text).is_empty();
            proptest::prop_assert!(!fits(dns1035_label) || fits(dns1123_label));
            proptest::prop_assert!(!fits(dns1123_label) || fits(dns1123_subdomain) && fits(label_value));
            proptest::prop_assert!(!fits(dns1123_subdomain) || fits(dns1123_subdomain_with_underscore));
            proptest::prop_assert!(!fits(dns1123_label) || fits(qualified_name));
        }
    }
}
