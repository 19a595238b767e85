//! Reads the protobuf messages that `k8s-pb` declares, with the markers in their comments.

use crate::openapi::crate_to_definition;
use std::collections::BTreeMap;
use std::{error::Error, fs, path::Path};

/// A message, under its definition's name in lower case.
#[derive(Default)]
pub struct Message {
    /// The lines of its comment that begin with `+`, without the plus.
    pub markers: Vec<String>,
    /// The fields.
    pub fields: Vec<Field>,
}

/// A message's field.
pub struct Field {
    /// Letters and digits of its name, in lower case.
    pub name: String,
    /// The tag.
    pub tag: u32,
    /// `string`, `int32`, .., or `message`.
    pub kind: String,
    /// Of a message: the name in lower case of its definition; of a map: that of its values.
    pub message: String,
    /// See [`Message::markers`].
    pub markers: Vec<String>,
}

/// The letters and digits of a name in lower case: what its spellings in JSON and in Rust have in common.
pub fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// Every message below `dir`.
pub fn read(dir: &Path) -> Result<BTreeMap<String, Message>, Box<dyn Error>> {
    let mut messages = BTreeMap::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|n| n == "mod.rs") {
                let module: Vec<String> =
                    folder.strip_prefix(dir)?.iter().map(|s| s.to_string_lossy().into_owned()).collect();
                read_module(&fs::read_to_string(&path)?, &module, &mut messages);
            }
        }
    }
    Ok(messages)
}

fn read_module(text: &str, module: &[String], out: &mut BTreeMap<String, Message>) {
    let (mut markers, mut prost) = (Vec::new(), String::new());
    let (mut name, mut message) = (String::new(), Message::default());
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if let Some(comment) = line.strip_prefix("///") {
            markers.extend(comment.trim().strip_prefix('+').map(str::to_string));
        } else if line.starts_with("#[prost(") {
            prost = line.to_string();
        } else if let Some(n) = line.strip_prefix("pub struct ") {
            name = n.trim_end_matches(['{', '}', ' ']).to_string();
            message = Message { markers: std::mem::take(&mut markers), fields: vec![] };
            if n.ends_with('}') {
                out.insert(definition(module, &name), std::mem::take(&mut message));
            }
        } else if line == "}" && !name.is_empty() {
            out.insert(definition(module, &std::mem::take(&mut name)), std::mem::take(&mut message));
        } else if let Some(declaration) = line.strip_prefix("pub ").filter(|_| !prost.is_empty()) {
            let mut declaration = declaration.to_string();
            while !declaration.ends_with(',') {
                declaration += lines.next().unwrap_or(",");
            }
            let (field, rust_type) = declaration.split_once(':').unwrap_or_default();
            let map = prost.contains("btree_map");
            let kind = match map {
                true => prost.split([',', '"']).nth(2).unwrap_or_default().trim(),
                false => prost["#[prost(".len()..].split([',', ' ']).next().unwrap_or_default(),
            };
            let tag = prost.rsplit('"').nth(1).and_then(|t| t.parse().ok()).unwrap_or(0);
            let inner =
                rust_type.trim_end_matches(['>', ',']).rsplit(['<', ',']).next().unwrap_or_default().trim();
            message.fields.push(Field {
                name: plain(field.trim_start_matches("r#")),
                tag,
                kind: kind.to_string(),
                message: if kind == "message" { resolve(module, inner) } else { String::new() },
                markers: std::mem::take(&mut markers),
            });
            prost.clear();
        } else if !line.starts_with("#[") {
            markers.clear();
        }
    }
}

fn definition(module: &[String], name: &str) -> String {
    crate_to_definition(&format!("{}.{name}", module.join("."))).to_lowercase()
}

/// `super::super::v1::Pod`, seen from `module`.
fn resolve(module: &[String], path: &str) -> String {
    let ups = path.matches("super::").count();
    let rest = path.replace("super::", "").replace("::", ".");
    let base = &module[..module.len().saturating_sub(ups)];
    let dot = if base.is_empty() { "" } else { "." };
    crate_to_definition(&format!("{}{dot}{rest}", base.join("."))).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_messages() {
        let text = r#"
/// About it.
/// +structType=atomic
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Thing {
    /// The type.
    /// +listType=map
    /// +listMapKey=name
    #[prost(message, repeated, tag = "3")]
    pub r#type:
        ::prost::alloc::vec::Vec<super::super::core::v1::Pod>,
    #[prost(btree_map = "string, message", tag = "4")]
    pub host_ip: ::prost::alloc::collections::BTreeMap<::prost::alloc::string::String, Extra>,
}
"#;
        let mut out = BTreeMap::new();
        read_module(text, &["api", "apps", "v1"].map(String::from), &mut out);
        let m = &out["io.k8s.api.apps.v1.thing"];
        assert_eq!(m.markers, ["structType=atomic"]);
        let seen: Vec<_> = m.fields.iter().map(|f| (&*f.name, f.tag, &*f.kind, &*f.message)).collect();
        assert_eq!(
            seen,
            [
                ("type", 3, "message", "io.k8s.api.core.v1.pod"),
                ("hostip", 4, "message", "io.k8s.api.apps.v1.extra")
            ]
        );
        assert_eq!(m.fields[0].markers, ["listType=map", "listMapKey=name"]);
    }
}
