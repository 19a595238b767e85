//! Which level a namespace's labels ask for, and of which version.

use api::field::{FieldErrors, FieldPath};
use std::collections::BTreeMap;
use std::fmt;

/// How much is forbidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    Privileged,
    /// What is known to break out.
    Baseline,
    /// All that is not good practice.
    Restricted,
}

/// Whose rules hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Those of v1.x.
    Minor(u32),
    /// The newest.
    Latest,
}

/// A level of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How much is forbidden.
    pub level: Level,
    /// Whose rules hold.
    pub version: Version,
}

/// What is enforced, audited and warned of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Pods that violate it are refused.
    pub enforce: Rules,
    /// Violations are written to the audit log.
    pub audit: Rules,
    /// Violations are told to the client.
    pub warn: Rules,
}

impl Level {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "privileged" => Ok(Level::Privileged),
            "baseline" => Ok(Level::Baseline),
            "restricted" => Ok(Level::Restricted),
            _ => Err("must be one of privileged, baseline, restricted"),
        }
    }
}

impl Version {
    /// Reads one: `latest` or `v1.x`.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "latest" {
            return Ok(Version::Latest);
        }
        let digits =
            text.strip_prefix("v1.").filter(|d| *d == "0" || !d.starts_with('0') && !d.starts_with('+'));
        let minor = digits.and_then(|d| d.parse().ok()).map(Version::Minor);
        minor.ok_or("must be \"latest\" or \"v1.x\"")
    }

    /// The minor version.
    pub fn minor(self) -> u32 {
        match self {
            Version::Minor(minor) => minor,
            Version::Latest => u32::MAX,
        }
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Version::Latest => write!(f, "{level}:latest"),
            Version::Minor(minor) => write!(f, "{level}:v1.{minor}"),
        }
    }
}

/// What namespaces' labels begin with.
pub const PREFIX: &str = "pod-security.kubernetes.io/";

impl Policy {
    /// Whether nothing is forbidden, in any mode.
    pub fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|r| r.level == Level::Privileged)
    }

    /// The modes with their names.
    pub fn modes(&self) -> [(&'static str, Rules); 3] {
        [("enforce", self.enforce), ("audit", self.audit), ("warn", self.warn)]
    }

    /// What a namespace's labels ask for; what they do not say is as in `self`. What can't be read is enforced
    /// at the highest level and neither audited nor warned of.
    pub fn with_labels(mut self, labels: &BTreeMap<String, String>, errors: &mut FieldErrors) -> Self {
        if !labels.keys().any(|key| key.starts_with(PREFIX)) {
            return self;
        }
        let metadata = FieldPath::root("metadata");
        let root = metadata.child("labels");
        let mut given = BTreeMap::new();
        for (mode, rules, otherwise) in [
            ("enforce", &mut self.enforce, Level::Restricted),
            ("audit", &mut self.audit, Level::Privileged),
            ("warn", &mut self.warn, Level::Privileged),
        ] {
            let (level, version) = (format!("{PREFIX}{mode}"), format!("{PREFIX}{mode}-version"));
            if let Some(text) = labels.get(&level) {
                let read = Level::parse(text);
                rules.level = read.unwrap_or(otherwise);
                given.insert(mode, read.is_ok());
                read.map(drop).unwrap_or_else(|why| errors.invalid(root.key(&level), text, why));
            }
            if let Some(text) = labels.get(&version) {
                let read = Version::parse(text);
                rules.version = read.unwrap_or(Version::Latest);
                read.map(drop).unwrap_or_else(|why| errors.invalid(root.key(&version), text, why));
            }
        }
        // Who enforces more is warned of it too.
        let enforced = given.get("enforce") == Some(&true);
        if enforced && !given.contains_key("warn") && self.enforce.level > self.warn.level {
            self.warn.level = self.enforce.level;
            if !labels.contains_key(&format!("{PREFIX}warn-version")) {
                self.warn.version = self.enforce.version;
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_say_the_level() {
        let none = Rules { level: Level::Privileged, version: Version::Latest };
        let default = Policy { enforce: none, audit: none, warn: none };
        for (labels, want, faults) in [
            ("", "privileged:latest privileged:latest privileged:latest", 0),
            ("enforce=baseline", "baseline:latest privileged:latest baseline:latest", 0),
            (
                "enforce=restricted enforce-version=v1.20",
                "restricted:v1.20 privileged:latest restricted:v1.20",
                0,
            ),
            ("enforce=restricted warn=baseline", "restricted:latest privileged:latest baseline:latest", 0),
            ("enforce=none audit=x", "restricted:latest privileged:latest privileged:latest", 2),
            (
                "audit=restricted audit-version=v2.1",
                "privileged:latest restricted:latest privileged:latest",
                1,
            ),
            ("warn-version=v1.01", "privileged:latest privileged:latest privileged:latest", 1),
        ] {
            let pairs = labels.split_whitespace().filter_map(|p| p.split_once('='));
            let map = pairs.map(|(k, v)| (format!("{PREFIX}{k}"), v.to_string())).collect();
            let mut errors = FieldErrors::default();
            let got = default.with_labels(&map, &mut errors);
            let shown = got.modes().map(|(_, r)| r.to_string()).join(" ");
            assert_eq!((shown.as_str(), errors.as_slice().len()), (want, faults), "{labels}");
        }
    }
}
