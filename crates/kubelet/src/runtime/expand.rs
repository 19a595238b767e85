//! `$(VAR)` in commands, arguments, variables and sub-paths.

/// Replaces each `$(NAME)` by what `value` has for it. A name that it does not know stays as written;
/// `$$` is a dollar sign.
pub fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = tail.strip_prefix('(').and_then(|t| t.split_once(')')) {
            match value(name) {
                Some(v) => out.push_str(&v),
                None => out.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            out.push('$');
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        let value = |n: &str| (n == "A").then(|| "1".to_owned());
        for (text, want) in [
            ("$(A)", "1"),
            ("x$(A)y$(B)", "x1y$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$A $( $", "$A $( $"),
            ("$(A", "$(A"),
        ] {
            assert_eq!(expand(text, value), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_without_dollars_is_kept(s in "[^$]*") { prop_assert_eq!(expand(&s, |_| None), s); }
    }
}
