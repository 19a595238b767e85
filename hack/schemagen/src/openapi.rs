//! Reads the JSON schemas that `k8s-openapi` carries for its types.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::{error::Error, fs, path::Path};

/// A type, under its definition's name such as `io.k8s.api.core.v1.Pod`.
pub struct Type {
    /// Its JSON schema; references are `{"$ref": name}`.
    pub schema: Value,
    /// Group, version and kind, if it is a kind.
    pub gvk: Option<[String; 3]>,
    /// The name of its list's kind.
    pub list_kind: Option<String>,
}

/// Every type below `dir`.
pub fn read(dir: &Path) -> Result<BTreeMap<String, Type>, Box<dyn Error>> {
    let mut types = BTreeMap::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Some((name, t)) = read_type(&fs::read_to_string(&path)?, &path)? {
                types.insert(name, t);
            }
        }
    }
    Ok(types)
}

fn read_type(text: &str, path: &Path) -> Result<Option<(String, Type)>, Box<dyn Error>> {
    let Some((_, after)) = text.split_once("fn schema_name()") else { return Ok(None) };
    let Some((_, block)) = after.split_once("json_schema!(") else { return Ok(None) };
    let name = after.split('"').nth(1).unwrap_or_default();
    if name.is_empty() || name.starts_with(char::is_uppercase) {
        return Ok(None); // the generic list
    }
    let mut parser = Parser { rest: block };
    let schema = parser.value().map_err(|e| format!("{}: {e}", path.display()))?;
    let constant = |name: &str| {
        let (_, v) = text.split_once(&format!("const {name}: &'static str = \""))?;
        v.split('"').next().map(str::to_string)
    };
    let gvk = match (constant("GROUP"), constant("VERSION"), constant("KIND")) {
        (Some(g), Some(v), Some(k)) => Some([g, v, k]),
        _ => None,
    };
    Ok(Some((name.to_string(), Type { schema, gvk, list_kind: constant("LIST_KIND") })))
}

/// Reads the argument of `json_schema!`: JSON with trailing commas and expressions that name other types.
struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn eat(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        let ok = self.eat(token);
        if ok { Ok(()) } else { Err(format!("expected {token} at {:.60}", self.rest)) }
    }

    fn value(&mut self) -> Result<Value, String> {
        if self.eat("{") {
            let mut map = Map::new();
            while !self.eat("}") {
                let key = self.string()?;
                self.expect(":")?;
                map.insert(key, self.value()?);
                self.eat(",");
            }
            Ok(Value::Object(map))
        } else if self.eat("[") {
            let mut list = Vec::new();
            while !self.eat("]") {
                list.push(self.value()?);
                self.eat(",");
            }
            Ok(Value::Array(list))
        } else if self.eat("({") {
            self.expect("let mut schema_obj =")?;
            let mut target = self.value()?;
            self.expect(";")?;
            self.expect("schema_obj.ensure_object().insert(\"description\".into(),")?;
            target["description"] = Value::String(self.string()?);
            self.expect(".into());")?;
            self.expect("schema_obj")?;
            self.expect("})")?;
            Ok(target)
        } else if self.eat("(") {
            let v = self.value()?;
            self.expect(")")?;
            Ok(v)
        } else if self.eat("__gen.subschema_for::<") {
            let (path, rest) = self.rest.split_once(">()").ok_or("a type without end")?;
            self.rest = rest;
            Ok(serde_json::json!({"$ref": definition_name(path)}))
        } else if self.eat("true") {
            Ok(Value::Bool(true))
        } else {
            self.string().map(Value::String)
        }
    }

    fn string(&mut self) -> Result<String, String> {
        self.expect("\"")?;
        let mut out = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[i + 1..];
                    return Ok(out);
                }
                '\\' => match chars.next().map(|(_, c)| c) {
                    Some('n') => out.push('\n'),
                    Some('t') => out.push('\t'),
                    Some('r') => out.push('\r'),
                    Some('u') => {
                        let code: String =
                            chars.by_ref().map(|(_, c)| c).skip(1).take_while(|c| *c != '}').collect();
                        let c = u32::from_str_radix(&code, 16).ok().and_then(char::from_u32);
                        out.push(c.ok_or_else(|| format!("bad escape {code}"))?);
                    }
                    Some(c @ ('"' | '\\' | '\'')) => out.push(c),
                    c => return Err(format!("unknown escape {c:?}")),
                },
                c => out.push(c),
            }
        }
        Err("a string without end".into())
    }
}

/// `crate::api::core::v1::Pod` or a bare Rust type, as a definition's name.
fn definition_name(path: &str) -> String {
    match path.trim().strip_prefix("crate::") {
        Some(p) => crate_to_definition(&p.replace("::", ".")),
        None => path.trim().to_string(),
    }
}

/// A dotted module path of either crate, as a definition's name.
pub fn crate_to_definition(path: &str) -> String {
    let path = path
        .replace("apiextensions_apiserver.", "apiextensions-apiserver.")
        .replace("kube_aggregator.", "kube-aggregator.");
    format!("io.k8s.{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_macros_argument() {
        let text = r#"({
            "description": "A \"b\"\n\tc",
            "properties": {
                "x": ({
                    let mut schema_obj = __gen.subschema_for::<crate::api::core::v1::Pod>();
                    schema_obj.ensure_object().insert("description".into(), "d".into());
                    schema_obj
                }),
                "y": {
                    "items": (__gen.subschema_for::<crate::kube_aggregator::pkg::T>()),
                },
            },
            "required": [
                "x",
            ],
        })"#;
        let v = Parser { rest: text.strip_prefix('(').unwrap_or(text) }.value().unwrap();
        let expect = serde_json::json!({"description": "A \"b\"\n\tc", "properties": {
            "x": {"$ref": "io.k8s.api.core.v1.Pod", "description": "d"},
            "y": {"items": {"$ref": "io.k8s.kube-aggregator.pkg.T"}}}, "required": ["x"]});
        assert_eq!(v, expect);
        assert!(Parser { rest: "{\"a\": ?" }.value().is_err());
    }
}
