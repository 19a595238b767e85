//! Lists of a Job's indexes, such as `0,3-5,7`.

/// How many indexes a list has; or why it is none below `completions`.
pub(super) fn count(text: &str, completions: i32) -> Result<i64, String> {
    let (mut last, mut total): (Option<i64>, i64) = (None, 0);
    for interval in text.split(',').filter(|_| !text.is_empty()) {
        let (from, to) = self::interval(interval, completions)?;
        if let Some(last) = last.filter(|last| *last >= from) {
            return Err(format!("non-increasing order, previous: {last}, current: {from}"));
        }
        total += to - from + 1;
        last = Some(to);
    }
    Ok(total)
}

/// The first index that two lists share.
pub(super) fn overlap(a: &str, b: &str, completions: i32) -> Option<i64> {
    let read = |text: &str| -> Vec<(i64, i64)> {
        text.split(',').filter_map(|i| interval(i, completions).ok()).collect()
    };
    let (a, b) = (read(a), read(b));
    let (mut i, mut j) = (0, 0);
    while let (Some((a0, a1)), Some((b0, b1))) = (a.get(i), b.get(j)) {
        if a0 <= b1 && b0 <= a1 {
            return Some(*a0.max(b0));
        }
        if a0 <= b0 { i += 1 } else { j += 1 }
    }
    None
}

fn interval(text: &str, completions: i32) -> Result<(i64, i64), String> {
    let index = |text: &str| {
        let n = text
            .parse::<i64>()
            .map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        if n >= i64::from(completions) { Err(format!("too large index: {text:?}")) } else { Ok(n) }
    };
    match text.split('-').collect::<Vec<_>>().as_slice() {
        [one] => index(one).map(|n| (n, n)),
        [from, to] => {
            let (from, to) = (index(from)?, index(to)?);
            match from < to {
                true => Ok((from, to)),
                false => Err(format!("non-increasing order, previous: {from}, current: {to}")),
            }
        }
        _ => Err(format!(
            "the fragment {text:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(count("", 3), Ok(0));
        assert_eq!(count("0,3-5,7", 8), Ok(5));
        for (text, why) in [
            ("8", "too large index: \"8\""),
            ("3,2", "non-increasing order, previous: 3, current: 2"),
            ("a", "cannot convert string to integer for index: \"a\""),
        ] {
            assert_eq!(count(text, 8), Err(why.into()));
        }
        assert_eq!(overlap("0,3-5", "1-2,5-6", 8), Some(5));
        assert_eq!(overlap("0,3-5", "1-2,6", 8), None);
    }
}
