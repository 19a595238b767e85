//! Columns that `kubectl get` prints, and how ages are written.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;
use std::collections::BTreeMap;

/// One column of a kind's table.
pub struct Column<T: 'static> {
    /// Its heading, such as `Ready`.
    pub name: &'static str,
    /// OpenAPI type of the cells: `string`, `integer`, ...
    pub kind: &'static str,
    /// OpenAPI format: `name` for the first column, otherwise usually empty.
    pub format: &'static str,
    /// What it shows.
    pub description: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
    /// The cell for an object.
    pub cell: fn(&T, Timestamp) -> Value,
}

impl<T> Column<T> {
    /// A column of text that is always shown.
    pub const fn text(
        name: &'static str,
        description: &'static str,
        cell: fn(&T, Timestamp) -> Value,
    ) -> Self {
        Column { name, kind: "string", format: "", description, priority: 0, cell }
    }

    /// A column of numbers that is always shown.
    pub const fn number(
        name: &'static str,
        description: &'static str,
        cell: fn(&T, Timestamp) -> Value,
    ) -> Self {
        Column { name, kind: "integer", format: "", description, priority: 0, cell }
    }

    /// Shown only with `-o wide`.
    pub const fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }
}

/// A heading without its cells.
#[derive(Clone, Debug, PartialEq)]
pub struct Heading {
    /// See [`Column::name`].
    pub name: String,
    /// See [`Column::kind`].
    pub kind: String,
    /// See [`Column::format`].
    pub format: String,
    /// See [`Column::description`].
    pub description: String,
    /// See [`Column::priority`].
    pub priority: i32,
}

/// Labels as `kubectl get` prints them; `<none>` if there are none.
pub fn labels(labels: Option<&BTreeMap<String, String>>) -> Value {
    let all: Vec<String> = labels.into_iter().flatten().map(|(k, v)| format!("{k}={v}")).collect();
    if all.is_empty() { "<none>".into() } else { all.join(",").into() }
}

/// A text; `or` if it is empty.
pub fn text_or(text: &Option<String>, or: &str) -> Value {
    text.as_deref().filter(|t| !t.is_empty()).unwrap_or(or).into()
}

/// Time since `then`, as `kubectl get` prints an age; `<unknown>` for a time that is not set.
pub fn age(then: Option<&Time>, now: Timestamp) -> Value {
    match then {
        Some(then) => human_duration(now.as_second() - then.0.as_second()).into(),
        None => "<unknown>".into(),
    }
}

/// Seconds in at most two units, the shorter the longer: apimachinery's `HumanDuration`.
pub fn human_duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| match seconds % big / small {
        0 => format!("{}{big_unit}", seconds / big),
        rest => format!("{}{big_unit}{rest}{small_unit}", seconds / big),
    };
    match seconds {
        s if s < -1 => "<invalid>".into(),
        s if s < 0 => "0s".into(),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(MINUTE, "m", 1, "s"),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(HOUR, "h", MINUTE, "m"),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(DAY, "d", HOUR, "h"),
        s if s < 2 * YEAR => format!("{}d", s / DAY),
        s if s < 8 * YEAR => two(YEAR, "y", DAY, "d"),
        s => format!("{}y", s / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::human_duration;

    #[test]
    fn durations_as_kubectl_prints_them() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10799, "179m"),
            (10800, "3h"),
            (11000, "3h3m"),
            (28800, "8h"),
            (172800, "2d"),
            (176400, "2d1h"),
            (691200, "8d"),
            (63072000, "2y"),
            (63158400, "2y1d"),
            (252288000, "8y"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
