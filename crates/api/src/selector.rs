//! Label and field selectors, in their string form and as objects.

use crate::names;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use std::fmt;

/// Why a selector can't be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

/// A demand on one label.
#[derive(Clone, Debug, PartialEq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What is demanded of it.
    pub operator: Operator,
}

/// What is demanded of a label.
#[derive(Clone, Debug, PartialEq)]
pub enum Operator {
    /// It is there with one of these values.
    In(Vec<String>),
    /// It is not there, or has none of these values.
    NotIn(Vec<String>),
    /// It is there.
    Exists,
    /// It is not.
    DoesNotExist,
    /// It is there and a number greater than this.
    GreaterThan(i64),
    /// It is there and a number less than this.
    LessThan(i64),
}

/// Demands on labels, which all have to be met. Without any it matches everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelSelector {
    /// The demands.
    pub requirements: Vec<Requirement>,
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => value.is_some_and(|v| values.iter().any(|w| w == v)),
            Operator::NotIn(values) => value.is_none_or(|v| !values.iter().any(|w| w == v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan(n) => number().is_some_and(|v| v > *n),
            Operator::LessThan(n) => number().is_some_and(|v| v < *n),
        }
    }
}

impl LabelSelector {
    /// Whether labels, looked up by key, meet all demands.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| r.matches(label(&r.key)))
    }

    /// Whether a map of labels meets all demands.
    pub fn matches_labels(&self, labels: Option<&std::collections::BTreeMap<String, String>>) -> bool {
        self.matches(|key| labels.and_then(|l| l.get(key)).map(String::as_str))
    }

    /// Whether it has no demands.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Reads the string form: `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { rest: text.trim() };
        let mut requirements = Vec::new();
        if parser.rest.is_empty() {
            return Ok(LabelSelector::default());
        }
        loop {
            requirements.push(parser.requirement()?);
            match parser.next_char() {
                None => return Ok(LabelSelector { requirements }),
                Some(',') => {}
                Some(c) => {
                    return Err(SelectorError(format!("found '{c}', expected: ',' or 'end of string'")));
                }
            }
        }
    }

    /// Reads the object form. No selector selects nothing, which is `None`; an empty one everything.
    pub fn from_object(selector: &meta::LabelSelector) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement { key: key.clone(), operator: Operator::In(vec![value.clone()]) });
        }
        for e in selector.match_expressions.iter().flatten() {
            let values = e.values.clone().unwrap_or_default();
            let operator = match e.operator.as_str() {
                "In" => Operator::In(values),
                "NotIn" => Operator::NotIn(values),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!("{other:?} is not a valid label selector operator")));
                }
            };
            requirements.push(Requirement { key: e.key.clone(), operator });
        }
        for r in &requirements {
            r.check()?;
        }
        Ok(LabelSelector { requirements })
    }

    /// A selector for exactly these labels.
    pub fn from_map<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let requirement = |(k, v): (&String, &String)| Requirement {
            key: k.clone(),
            operator: Operator::In(vec![v.clone()]),
        };
        LabelSelector { requirements: labels.into_iter().map(requirement).collect() }
    }
}

impl Requirement {
    fn check(&self) -> Result<(), SelectorError> {
        if let Some(fault) = names::qualified_name(&self.key).first() {
            return Err(SelectorError(format!("key: Invalid value: {:?}: {fault}", self.key)));
        }
        if let Operator::In(values) | Operator::NotIn(values) = &self.operator {
            if values.is_empty() {
                return Err(SelectorError(
                    "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"
                        .into(),
                ));
            }
            for (i, v) in values.iter().enumerate() {
                if let Some(fault) = names::label_value(v).first() {
                    return Err(SelectorError(format!(
                        "values[{i}][{}]: Invalid value: {v:?}: {fault}",
                        self.key
                    )));
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match &r.operator {
                Operator::In(v) if v.len() == 1 => write!(f, "{}={}", r.key, v[0])?,
                Operator::NotIn(v) if v.len() == 1 => write!(f, "{}!={}", r.key, v[0])?,
                Operator::In(v) => write!(f, "{} in ({})", r.key, v.join(","))?,
                Operator::NotIn(v) => write!(f, "{} notin ({})", r.key, v.join(","))?,
                Operator::Exists => f.write_str(&r.key)?,
                Operator::DoesNotExist => write!(f, "!{}", r.key)?,
                Operator::GreaterThan(n) => write!(f, "{}>{n}", r.key)?,
                Operator::LessThan(n) => write!(f, "{}<{n}", r.key)?,
            }
        }
        Ok(())
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn next_char(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn word(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        let end =
            self.rest.find(|c: char| c.is_whitespace() || "=!,()<>".contains(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn take(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let absent = self.take("!");
        let key = self.word().to_string();
        if key.is_empty() {
            let found = self.next_char().map(String::from).unwrap_or_default();
            return Err(SelectorError(format!(
                "found '{found}', expected: !, identifier, or 'end of string'"
            )));
        }
        let operator = if absent {
            Operator::DoesNotExist
        } else if self.take("!=") {
            Operator::NotIn(vec![self.word().to_string()])
        } else if self.take("==") || self.take("=") {
            Operator::In(vec![self.word().to_string()])
        } else if self.take(">") {
            Operator::GreaterThan(self.number()?)
        } else if self.take("<") {
            Operator::LessThan(self.number()?)
        } else {
            let before = self.rest;
            match self.word() {
                "in" => Operator::In(self.values()?),
                "notin" => Operator::NotIn(self.values()?),
                "" => Operator::Exists,
                other => {
                    self.rest = before;
                    return Err(SelectorError(format!(
                        "found '{other}', expected: in, notin, =, ==, !=, gt, lt"
                    )));
                }
            }
        };
        let requirement = Requirement { key, operator };
        requirement.check()?;
        Ok(requirement)
    }

    fn number(&mut self) -> Result<i64, SelectorError> {
        let word = self.word();
        word.parse().map_err(|_| {
            SelectorError(format!("{word:?}: for 'Gt', 'Lt' operators, the value must be an integer"))
        })
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        if !self.take("(") {
            return Err(SelectorError(format!("found '{}', expected: '('", self.rest)));
        }
        let mut values = Vec::new();
        loop {
            values.push(self.word().to_string());
            match self.next_char() {
                Some(',') => {}
                Some(')') => return Ok(values),
                other => {
                    return Err(SelectorError(format!(
                        "found '{}', expected: ',', ')' or identifier",
                        other.map(String::from).unwrap_or_default()
                    )));
                }
            }
        }
    }
}

/// One demand of a field selector.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldRequirement {
    /// The field's path.
    pub field: String,
    /// The value.
    pub value: String,
    /// `=` and `==`, or `!=`.
    pub equal: bool,
}

/// Reads a field selector: `a.b=c,d!=e`, with `\` before a comma, an equals sign or a `\` in a value.
pub fn parse_fields(text: &str) -> Result<Vec<FieldRequirement>, SelectorError> {
    let mut terms = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        match (c, terms.last_mut()) {
            (',', _) if !escaped => terms.push(String::new()),
            (c, Some(last)) => last.push(c),
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    terms.iter().filter(|t| !t.trim().is_empty()).map(|t| field_term(t.trim())).collect()
}

fn field_term(term: &str) -> Result<FieldRequirement, SelectorError> {
    for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((field, value)) = term.split_once(operator) {
            let mut unescaped = String::new();
            let mut chars = value.chars();
            while let Some(c) = chars.next() {
                match c {
                    '\\' => match chars.next() {
                        Some(c @ ('\\' | ',' | '=')) => unescaped.push(c),
                        other => {
                            let other = other.map(String::from).unwrap_or_default();
                            return Err(SelectorError(format!(
                                "invalid field selector: invalid escape sequence: \\{other}"
                            )));
                        }
                    },
                    '=' | ',' => {
                        return Err(SelectorError(format!(
                            "invalid field selector: unescaped '{c}' in {value}"
                        )));
                    }
                    c => unescaped.push(c),
                }
            }
            return Ok(FieldRequirement { field: field.into(), value: unescaped, equal });
        }
    }
    Err(SelectorError(format!("invalid selector: '{term}'; can't understand '{term}'")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_selectors_are_read_and_written() {
        for (text, want) in [
            ("a=b", "a=b"),
            ("a==b , c != d", "a=b,c!=d"),
            ("e in (x, y),!f,g", "e in (x,y),!f,g"),
            ("a notin (b)", "a!=b"),
            ("a=", "a="),
            ("n>3,m<4", "n>3,m<4"),
            ("", ""),
            ("in in (in)", "in=in"),
        ] {
            let parsed = LabelSelector::parse(text).unwrap();
            assert_eq!(parsed.to_string(), want);
            assert_eq!(LabelSelector::parse(want).unwrap(), parsed);
        }
        for bad in ["a in", "a in (b", ",", "a,,b", "=b", "a b", "a in ()x", "-a=b", "a=b c"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_are_matched() {
        let labels = [("a", "b"), ("n", "5")];
        let get = |key: &str| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
        for (text, want) in [
            ("a=b", true),
            ("a!=b", false),
            ("x!=b", true),
            ("a in (b,c)", true),
            ("x notin (b)", true),
            ("a", true),
            ("!a", false),
            ("!x", true),
            ("n>4", true),
            ("n<5", false),
            ("x>1", false),
            ("", true),
            ("a=b,x", false),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(get), want, "{text}");
        }
    }

    #[test]
    fn field_selectors_are_read() {
        let one = |f: &str, v: &str, equal| FieldRequirement { field: f.into(), value: v.into(), equal };
        assert_eq!(
            parse_fields("a.b=c,d!=e,f==g\\,h").unwrap(),
            [one("a.b", "c", true), one("d", "e", false), one("f", "g,h", true)]
        );
        assert!(
            parse_fields("a").is_err() && parse_fields("a=b=c").is_err() && parse_fields("a=b\\x").is_err()
        );
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_reads_the_same(text in r"([a-c]|x/y|[!=<>(), ]|in|notin|[0-9]){0,12}") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                proptest::prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
            }
            let _ = parse_fields(&text);
        }
    }
}
