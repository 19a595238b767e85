//! Joins the types of both crates and the table of extra facts, and prints the schema file.

use crate::openapi::Type;
use crate::proto::{Message, plain};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

/// One field's line, in parts.
#[derive(Default, Clone)]
struct Line {
    ty: String,
    tags: String,
    flags: Vec<String>,
    description: String,
}

/// One type's lines.
#[derive(Default)]
struct Block {
    flags: Vec<String>,
    description: String,
    kinds: Vec<String>,
    fields: BTreeMap<String, Line>,
}

/// Types whose JSON is not what their schema says, and the shape of each.
const SHAPES: &[(&str, &str)] = &[
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Time", "time"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime", "microtime"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", "fieldsv1"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Patch", "any"),
    ("io.k8s.apimachinery.pkg.runtime.RawExtension", "raw"),
    ("io.k8s.apimachinery.pkg.api.resource.Quantity", "quantity"),
    ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", "intstr"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON", "any"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray", "orarray"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool", "orbool"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray", "orstrings"),
];

/// The file's text, and what is missing in it.
pub fn write(
    types: &BTreeMap<String, Type>,
    messages: &BTreeMap<String, Message>,
    extra: &str,
) -> Result<(String, Vec<String>), Box<dyn Error>> {
    let mut blocks: BTreeMap<String, Block> = BTreeMap::new();
    let mut faults = Vec::new();
    for (name, t) in types {
        let block = block(name, t, messages)?;
        if let (Some(list_kind), Some([g, v, _])) = (&t.list_kind, &t.gvk) {
            let (package, short) = name.rsplit_once('.').unwrap_or_default();
            let list = list(name, list_kind, short, &block);
            blocks.insert(
                format!("{package}.{list_kind}"),
                Block { kinds: vec![kind(g, v, list_kind)], ..list },
            );
        }
        blocks.insert(name.clone(), block);
    }
    merge_extra(&mut blocks, extra)?;
    let mut out =
        String::from("# Written by hack/schemagen. Do not edit: change extra.txt or the generator.\n");
    for (name, block) in &blocks {
        out += &line(&["T", name], &block.flags, &block.description);
        for kind in &block.kinds {
            out += &format!("K {kind}\n");
        }
        let typed_meta = !block.kinds.is_empty() || block.flags.iter().any(|f| f == "typed");
        for (field, l) in &block.fields {
            let of_type_meta = typed_meta && matches!(field.as_str(), "apiVersion" | "kind");
            if l.tags == "-" && !of_type_meta && !block.flags.iter().any(|f| f == "jsononly") {
                faults.push(format!("{name}: no protobuf tag for {field}"));
            }
            out += &line(&["F", field, &l.ty, &l.tags], &l.flags, &l.description);
        }
    }
    Ok((out, faults))
}

fn kind(group: &str, version: &str, kind: &str) -> String {
    format!("{} {version} {kind}", if group.is_empty() { "-" } else { group })
}

fn line(words: &[&str], flags: &[String], description: &str) -> String {
    let mut words: Vec<&str> = words.to_vec();
    words.extend(flags.iter().map(String::as_str));
    let description = description.replace('\\', "\\\\").replace('\n', "\\n");
    format!("{} | {description}", words.join(" ")).trim_end().to_string() + "\n"
}

/// `<Kind>List`, which the crates only have as a generic type.
fn list(item: &str, list_kind: &str, short: &str, block: &Block) -> Block {
    let simple = |ty: &str, tags: &str, flags: &[&str], description: String| Line {
        ty: ty.into(),
        tags: tags.into(),
        flags: flags.iter().map(|f| f.to_string()).collect(),
        description,
    };
    let typed = |name: &str| block.fields.get(name).cloned().unwrap_or_default();
    let metadata = "#io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
    let about = "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/\
                 sig-architecture/api-conventions.md#types-kinds";
    let fields = [
        ("apiVersion", typed("apiVersion")),
        ("items", simple(&format!("[]#{item}"), "2", &["req"], format!("List of {short} objects."))),
        ("kind", typed("kind")),
        ("metadata", simple(metadata, "1", &[], about.into())),
    ];
    Block {
        description: format!("{list_kind} is a list of {short}."),
        fields: fields.map(|(n, l)| (n.to_string(), l)).into(),
        ..Block::default()
    }
}

fn block(name: &str, t: &Type, messages: &BTreeMap<String, Message>) -> Result<Block, Box<dyn Error>> {
    let text = |v: &Value| v["description"].as_str().unwrap_or_default().to_string();
    let mut block = Block { description: text(&t.schema), ..Block::default() };
    let message = messages.get(&name.to_lowercase());
    if let Some(message) = message
        && message.markers.iter().any(|m| m == "structType=atomic")
    {
        block.flags.push("atomic".into());
    }
    if let Some((_, shape)) = SHAPES.iter().find(|(n, _)| *n == name) {
        block.flags.push(format!("={shape}"));
        return Ok(block);
    }
    if let Some([g, v, k]) = &t.gvk {
        block.kinds.push(kind(g, v, k));
    }
    let required: BTreeSet<&str> =
        t.schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = t.schema["properties"].as_object();
    let names: BTreeSet<String> = properties.into_iter().flatten().map(|(n, _)| plain(n)).collect();
    for (field, schema) in properties.into_iter().flatten() {
        let mut l = Line { ty: type_of(schema)?, tags: "-".into(), description: text(schema), flags: vec![] };
        let is_required = required.contains(field.as_str()) && field != "metadata"; // the crate's own rule
        if is_required {
            l.flags.push("req".into());
        }
        let found = message.and_then(|m| find(m, &plain(field), &names, messages, 0));
        if let Some((tags, f)) = found {
            l.tags = tags;
            let wrapper = messages.get(&f.message).filter(|m| l.ty.contains("[]") && m.fields.len() == 1);
            if wrapper.is_some_and(|m| m.fields[0].name == "items") {
                l.ty = l.ty.replacen("[]", "@[]", 1);
            }
            l.flags.extend(markers(&f.markers, &l.ty)?);
        }
        let pointer =
            !is_required && !l.ty.starts_with(['[', '{', '@']) && !matches!(&*l.ty, "string" | "bytes");
        if pointer {
            l.flags.push("ptr".into());
        }
        block.fields.insert(field.clone(), l);
    }
    Ok(block)
}

/// The field `name` of a message or of one that is embedded in it: the path of its tags, and itself.
fn find<'a>(
    message: &'a Message,
    name: &str,
    names: &BTreeSet<String>,
    messages: &'a BTreeMap<String, Message>,
    depth: usize,
) -> Option<(String, &'a crate::proto::Field)> {
    if let Some(f) = message.fields.iter().find(|f| f.name == name) {
        return Some((f.tag.to_string(), f));
    }
    let embedded =
        message.fields.iter().filter(|f| f.kind == "message" && !names.contains(&f.name) && depth < 3);
    for f in embedded {
        let inner = messages.get(&f.message).and_then(|m| find(m, name, names, messages, depth + 1));
        if let Some((tags, inner)) = inner {
            return Some((format!("{}/{tags}", f.tag), inner));
        }
    }
    None
}

/// The flags for the markers of a field's comment.
fn markers(markers: &[String], ty: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let value = |name: &str| {
        markers.iter().find_map(|m| m.strip_prefix(name).and_then(|m| m.strip_prefix('='))).map(str::trim)
    };
    let mut flags = Vec::new();
    let list = ty.trim_start_matches('@').starts_with("[]");
    if let Some(kind) = value("listType").filter(|_| list) {
        let keys: Vec<&str> = markers.iter().filter_map(|m| m.strip_prefix("listMapKey=")).collect();
        flags.push(match kind {
            "map" => format!("list=map:{}", keys.join(",")),
            kind => format!("list={kind}"),
        });
    }
    if value("mapType") == Some("atomic") || value("structType") == Some("atomic") {
        flags.push("atomic".into());
    }
    if value("structType") == Some("granular") {
        flags.push("granular".into());
    }
    if let Some(key) = value("patchMergeKey") {
        flags.push(format!("merge={key}"));
    }
    if let Some(strategy) = value("patchStrategy") {
        flags.push(format!("strategy={strategy}"));
    }
    if let Some(default) = value("default").filter(|d| !d.starts_with("ref(")) {
        let default: Value = serde_json::from_str(default)?;
        flags.push(format!("default={default}"));
    }
    Ok(flags)
}

fn type_of(schema: &Value) -> Result<String, Box<dyn Error>> {
    if let Some(name) = schema["$ref"].as_str() {
        return Ok(match name {
            "bool" => "bool".into(),
            "f64" => "double".into(),
            "i32" => "int32".into(),
            "i64" => "int64".into(),
            "std::string::String" | "std.string.String" => "string".into(),
            n => match n.split_once("Vec<").or(n.split_once("BTreeMap<std::string::String,")) {
                Some((head, inner)) => {
                    let inner = inner.trim().trim_end_matches('>').replace("::", ".");
                    let inner = type_of(&serde_json::json!({"$ref": inner}))?;
                    if head.contains("BTreeMap") || n.contains("BTreeMap") {
                        format!("{{}}{inner}")
                    } else {
                        format!("[]{inner}")
                    }
                }
                None => format!(
                    "#{}",
                    n.replace("crate.", "io.k8s.")
                        .replace("io.k8s.apiextensions_apiserver", "io.k8s.apiextensions-apiserver")
                ),
            },
        });
    }
    Ok(match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("string"), Some("byte")) => "bytes".into(),
        (Some("string"), _) => "string".into(),
        (Some("integer"), Some("int32")) => "int32".into(),
        (Some("integer"), _) => "int64".into(),
        (Some("number"), _) => "double".into(),
        (Some("boolean"), _) => "bool".into(),
        (Some("array"), _) => format!("[]{}", type_of(&schema["items"])?),
        (Some("object"), _) if schema.get("additionalProperties").is_some() => {
            format!("{{}}{}", type_of(&schema["additionalProperties"])?)
        }
        (Some("object"), _) => "any".into(),
        _ => return Err(format!("a schema of unknown form: {schema}").into()),
    })
}

/// Adds the hand-written table: the same `T`, `K` and `F` lines, where a type `-` only adds a tag and
/// flags to a field (or takes away: `-req`), and `P`, `V` and `A`, which name fields that Go holds by pointer, by value, and by value that it
/// prints even when it is zero.
fn merge_extra(blocks: &mut BTreeMap<String, Block>, extra: &str) -> Result<(), Box<dyn Error>> {
    let mut current = String::new();
    for row in extra.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (head, description) = row.split_once(" | ").unwrap_or((row, ""));
        let mut words = head.split_whitespace();
        let (letter, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut rest = words.map(str::to_string);
        match letter {
            "T" => {
                current = name.to_string();
                let block = blocks.entry(current.clone()).or_default();
                block.flags.extend(rest);
                if !description.is_empty() {
                    block.description = description.replace("\\n", "\n");
                }
            }
            "K" => {
                let words: Vec<String> = rest.collect();
                blocks.entry(current.clone()).or_default().kinds.push(format!("{name} {}", words.join(" ")));
            }
            "F" => {
                let (ty, tags) = (rest.next().unwrap_or_default(), rest.next().unwrap_or_default());
                let field =
                    blocks.entry(current.clone()).or_default().fields.entry(name.to_string()).or_default();
                if ty != "-" {
                    *field = Line {
                        ty,
                        tags,
                        flags: rest.collect(),
                        description: description.replace("\\n", "\n"),
                    };
                } else if field.ty.is_empty() {
                    return Err(format!("extra.txt: {current} has no field {name}").into());
                } else {
                    for flag in rest {
                        match flag.strip_prefix('-') {
                            Some(gone) => field.flags.retain(|f| f != gone),
                            None => field.flags.push(flag),
                        }
                    }
                    if tags != "-" {
                        field.tags = tags;
                    }
                }
            }
            "P" | "V" | "A" => {
                let block = blocks.get_mut(name).ok_or_else(|| format!("extra.txt: no type {name}"))?;
                for field in rest {
                    let l = block
                        .fields
                        .get_mut(&field)
                        .ok_or_else(|| format!("extra.txt: no field {name}.{field}"))?;
                    match letter {
                        "P" => l.flags.push("ptr".into()),
                        "V" => l.flags.retain(|f| f != "ptr"),
                        _ => l.flags.push("always".into()),
                    }
                }
            }
            _ => return Err(format!("extra.txt: unknown line {row}").into()),
        }
    }
    Ok(())
}
