//! How two states of an object differ, for a person: a unified diff of their JSON with three lines around
//! each change, as messages of refused updates show it.

use serde::Serialize;

/// Lines around a change.
const CONTEXT: usize = 3;
/// Above this many pairs of lines, all of the middle counts as changed.
const MAX_PAIRS: usize = 4_000_000;

/// What differs between two values.
pub fn of(old: &impl Serialize, new: &impl Serialize) -> String {
    let (old, new) = (pretty(old), pretty(new));
    unified(&old.lines().collect::<Vec<_>>(), &new.lines().collect::<Vec<_>>())
}

fn pretty(value: &impl Serialize) -> String {
    let mut out = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut writer = serde_json::Serializer::with_formatter(&mut out, indent);
    match value.serialize(&mut writer) {
        Ok(()) => String::from_utf8(out).unwrap_or_default(),
        Err(_) => String::new(),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Step {
    Same,
    Gone,
    New,
}

fn unified(a: &[&str], b: &[&str]) -> String {
    let steps = steps(a, b);
    let mut out = String::new();
    let changed: Vec<usize> =
        steps.iter().enumerate().filter(|(_, s)| **s != Step::Same).map(|(i, _)| i).collect();
    let mut rest = changed.as_slice();
    while let Some((&first, mut tail)) = rest.split_first() {
        let mut last = first;
        while let Some((&next, more)) = tail.split_first()
            && next - last <= 2 * CONTEXT + 1
        {
            (last, tail) = (next, more);
        }
        rest = tail;
        let start = first.saturating_sub(CONTEXT);
        let end = (last + CONTEXT + 1).min(steps.len());
        hunk(a, b, &steps, start, end, &mut out);
    }
    out
}

fn hunk(a: &[&str], b: &[&str], steps: &[Step], start: usize, end: usize, out: &mut String) {
    let count = |range: &[Step], skip: Step| range.iter().filter(|s| **s != skip).count();
    let (before, within) = (&steps[..start], &steps[start..end]);
    let (mut i, mut j) = (count(before, Step::New), count(before, Step::Gone));
    let range = |from: usize, len: usize| match len {
        1 => format!("{}", from + 1),
        0 => format!("{from},0"),
        _ => format!("{},{len}", from + 1),
    };
    let (old, new) = (range(i, count(within, Step::New)), range(j, count(within, Step::Gone)));
    out.push_str(&format!("@@ -{old} +{new} @@\n"));
    for step in within {
        let (sign, line) = match step {
            Step::Same => (' ', a.get(i)),
            Step::Gone => ('-', a.get(i)),
            Step::New => ('+', b.get(j)),
        };
        out.push(sign);
        out.push_str(line.copied().unwrap_or_default());
        out.push('\n');
        i += usize::from(*step != Step::New);
        j += usize::from(*step != Step::Gone);
    }
}

/// How to come from one list of lines to the other: along the longest common subsequence.
fn steps(a: &[&str], b: &[&str]) -> Vec<Step> {
    let head = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[head..], &b[head..]);
    let tail = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[..a.len() - tail], &b[..b.len() - tail]);
    let mut steps = vec![Step::Same; head];
    if a.len() * b.len() > MAX_PAIRS {
        steps.extend(a.iter().map(|_| Step::Gone));
        steps.extend(b.iter().map(|_| Step::New));
    } else {
        let width = b.len() + 1;
        let mut common = vec![0u32; (a.len() + 1) * width];
        for i in (0..a.len()).rev() {
            for j in (0..b.len()).rev() {
                common[i * width + j] = match a[i] == b[j] {
                    true => common[(i + 1) * width + j + 1] + 1,
                    false => common[(i + 1) * width + j].max(common[i * width + j + 1]),
                };
            }
        }
        let (mut i, mut j) = (0, 0);
        while i < a.len() || j < b.len() {
            if i < a.len() && j < b.len() && a[i] == b[j] {
                steps.push(Step::Same);
                (i, j) = (i + 1, j + 1);
            } else if i < a.len()
                && (j == b.len() || common[(i + 1) * width + j] >= common[i * width + j + 1])
            {
                steps.push(Step::Gone);
                i += 1;
            } else {
                steps.push(Step::New);
                j += 1;
            }
        }
    }
    steps.extend(std::iter::repeat_n(Step::Same, tail));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shows_changes_with_lines_around_them() {
        let old = json!({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6, "g": 7, "h": 8, "i": 9, "j": 0});
        let mut new = old.clone();
        assert_eq!(of(&old, &new), "");
        new["e"] = json!([6]);
        let want = "@@ -3,7 +3,9 @@\n  \"b\": 2,\n  \"c\": 3,\n  \"d\": 4,\n- \"e\": 5,\n+ \"e\": [\n+  6\n+ ],\n  \"f\": 6,\n  \"g\": 7,\n  \"h\": 8,\n";
        assert_eq!(of(&old, &new), want);
    }

    #[test]
    fn distant_changes_are_apart() {
        let old: Vec<i32> = (0..40).collect();
        let mut new = old.clone();
        (new[2], new[30]) = (-1, -2);
        assert_eq!(of(&old, &new).matches("@@ -").count(), 2);
    }
}
