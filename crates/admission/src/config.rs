//! `--admission-control-config-file`: what single plugins are told.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;

/// Why plugins can't be set up, in one line.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// What the file says of each plugin, and flags of plugins.
#[derive(Clone, Debug, Default)]
pub struct Config {
    plugins: BTreeMap<String, Value>,
    /// `--default-not-ready-toleration-seconds`, if it is set.
    pub not_ready_seconds: Option<i64>,
    /// `--default-unreachable-toleration-seconds`, if it is set.
    pub unreachable_seconds: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    name: String,
    #[serde(default)]
    path: String,
    configuration: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AdmissionConfiguration {
    api_version: String,
    kind: String,
    #[serde(default)]
    plugins: Vec<Named>,
}

impl Config {
    /// Reads an AdmissionConfiguration; `read` opens the files it names.
    pub fn parse(
        text: &str,
        read: &dyn Fn(&str) -> Result<String, ConfigError>,
    ) -> Result<Self, ConfigError> {
        let value = yaml("the admission configuration", text)?;
        let file: AdmissionConfiguration = serde_json::from_value(value)
            .map_err(|e| ConfigError(format!("the admission configuration can't be read: {e}")))?;
        let known =
            ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1alpha1", "apiserver.k8s.io/v1alpha1"];
        if file.kind != "AdmissionConfiguration" || !known.contains(&file.api_version.as_str()) {
            return Err(ConfigError(format!(
                "no kind {:?} is registered for version {:?} of the admission configuration",
                file.kind, file.api_version
            )));
        }
        let mut plugins = BTreeMap::new();
        for Named { name, path, configuration } in file.plugins {
            let value = match configuration {
                Some(value) => value,
                None if path.is_empty() => continue,
                None => yaml(&path, &read(&path)?)?,
            };
            if plugins.insert(name.clone(), value).is_some() {
                return Err(ConfigError(format!("admission plugin {name:?} is configured twice")));
            }
        }
        Ok(Config { plugins, ..Config::default() })
    }

    /// What is said of a plugin, if anything is.
    pub fn of<T: DeserializeOwned>(&self, plugin: &str) -> Result<Option<T>, ConfigError> {
        let read = |v: &Value| {
            T::deserialize(v)
                .map_err(|e| ConfigError(format!("the configuration of {plugin} can't be read: {e}")))
        };
        self.plugins.get(plugin).map(read).transpose()
    }
}

fn yaml(what: &str, text: &str) -> Result<Value, ConfigError> {
    api::yaml::decode_any(text.as_bytes()).map_err(|e| ConfigError(format!("{what} can't be read: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_told_in_place_or_by_a_file() {
        let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n\
                    - name: A\n  configuration: {x: 1}\n- name: B\n  path: b.yaml\n- name: C\n";
        let read = |path: &str| match path {
            "b.yaml" => Ok("x: 2".to_string()),
            _ => Err(ConfigError("no such file".into())),
        };
        let config = Config::parse(text, &read).unwrap();
        assert_eq!(config.of::<Value>("A").unwrap(), Some(serde_json::json!({"x": 1})));
        assert_eq!(config.of::<Value>("B").unwrap(), Some(serde_json::json!({"x": 2})));
        assert_eq!(config.of::<Value>("C").unwrap(), None);
        assert!(config.of::<Vec<String>>("A").is_err());
        assert!(Config::parse("kind: Other\napiVersion: v1", &read).is_err());
    }
}
