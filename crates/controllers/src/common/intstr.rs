//! Numbers that may be given as a percentage.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The number, or that share of `total`, rounded up or down. What is neither is 0; validation lets none through.
pub fn scaled(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(n)) => *n,
        Some(IntOrString::String(s)) => {
            let percent: i64 = s.strip_suffix('%').and_then(|p| p.parse().ok()).unwrap_or_default();
            let share = percent.saturating_mul(total.into());
            let rounded = if up { share.saturating_add(99).div_euclid(100) } else { share.div_euclid(100) };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded() {
        let p = |s: &str| IntOrString::String(s.into());
        for (value, total, up, down) in [
            (p("25%"), 10, 3, 2),
            (p("0%"), 10, 0, 0),
            (p("100%"), 3, 3, 3),
            (IntOrString::Int(4), 2, 4, 4),
            (p("x"), 2, 0, 0),
        ] {
            assert_eq!(
                (scaled(Some(&value), total, true), scaled(Some(&value), total, false)),
                (up, down),
                "{value:?}"
            );
        }
        assert_eq!(scaled(None, 5, true), 0);
    }
}
