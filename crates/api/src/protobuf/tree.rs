//! JSON as the encoder reads it: the values of an object in one row, whose text stays where it stands. To make such a
//! row takes a fraction of the time that a tree of maps and strings takes, and one allocation.

use super::EncodeError;
use crate::json;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::{Number, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What a message can be made of: JSON text, or a value.
pub trait Source {
    /// Its values in a row.
    fn tree(&self) -> Result<Tree<'_>, EncodeError>;
}

impl Source for [u8] {
    fn tree(&self) -> Result<Tree<'_>, EncodeError> {
        // Checked once as a whole, not once for each text in it.
        let read = std::str::from_utf8(self).ok().and_then(|text| {
            // a first guess of how many there are; too small a one costs a copy, too large a one only addresses
            let nodes = Vec::with_capacity((text.len() / 8).clamp(16, 4096));
            let mut scanner = Scanner { text, at: 0, nodes };
            scanner.value(0)?;
            scanner.token().is_none().then_some(Tree { nodes: scanner.nodes })
        });
        read.ok_or_else(|| match serde_json::from_slice::<Value>(self).map_err(|e| json::syntax(self, e)) {
            Err(json::DecodeError::TooDeep) => EncodeError::TooDeep,
            Err(e) => EncodeError::Syntax(e.to_string()),
            Ok(_) => EncodeError::Syntax("invalid JSON".into()),
        })
    }
}

impl Source for Value {
    fn tree(&self) -> Result<Tree<'_>, EncodeError> {
        let mut nodes = Vec::with_capacity(64);
        add(&mut nodes, self, 0).map(|()| Tree { nodes }).ok_or(EncodeError::TooDeep)
    }
}

/// The values of an object, each before those it holds. A member's value follows its name.
pub struct Tree<'a> {
    nodes: Vec<Node<'a>>,
}

/// One value.
pub(super) enum Node<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// An integer too large for the others.
    Large(u64),
    Float(f64),
    Text(Cow<'a, str>),
    /// Items up to this place.
    List(usize),
    /// Members up to this place.
    Object(usize),
}

/// The deepest nesting that serde_json reads: values made elsewhere nest no deeper either.
const MAX_DEPTH: usize = 127;

impl Tree<'_> {
    /// How many values and names it has.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The whole.
    pub(super) fn root(&self) -> At<'_> {
        self.at(0)
    }

    /// What stands at this place.
    pub(super) fn at(&self, place: usize) -> At<'_> {
        At { nodes: &self.nodes, place }
    }
}

/// One of a tree's values.
#[derive(Clone, Copy)]
pub(super) struct At<'t> {
    nodes: &'t [Node<'t>],
    /// Where it stands.
    pub place: usize,
}

impl<'t> At<'t> {
    #[inline]
    pub(super) fn node(self) -> &'t Node<'t> {
        self.nodes.get(self.place).unwrap_or(&Node::Null)
    }

    /// What a list holds.
    pub(super) fn items(self) -> impl Iterator<Item = At<'t>> {
        let end = match self.node() {
            Node::List(end) => *end,
            _ => 0,
        };
        let mut place = self.place + 1;
        std::iter::from_fn(move || {
            let item = At { place, ..self };
            (place < end).then(|| place = item.after())?;
            Some(item)
        })
    }

    /// What an object holds, as it stands there.
    pub(super) fn members(self) -> impl Iterator<Item = (&'t str, At<'t>)> {
        let end = match self.node() {
            Node::Object(end) => *end,
            _ => 0,
        };
        let mut place = self.place + 1;
        std::iter::from_fn(move || {
            (place < end).then_some(())?;
            let (name, value) = (At { place, ..self }.text()?, At { place: place + 1, ..self });
            place = value.after();
            Some((name, value))
        })
    }

    /// What an object holds, by name; of members that are there twice the last counts.
    pub(super) fn each_by_name<E>(
        self,
        mut each: impl FnMut(&'t str, At<'t>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut last = None;
        if self.members().all(|(name, _)| last.replace(name).is_none_or(|last| last < name)) {
            return self.members().try_for_each(|(name, value)| each(name, value));
        }
        let members: BTreeMap<_, _> = self.members().collect();
        members.into_iter().try_for_each(|(name, value)| each(name, value))
    }

    /// It, if it is text.
    pub(super) fn text(self) -> Option<&'t str> {
        match self.node() {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Where the next one stands.
    fn after(self) -> usize {
        match self.node() {
            Node::List(end) | Node::Object(end) => *end,
            _ => self.place + 1,
        }
    }
}

/// As serde_json prints a value.
impl Serialize for At<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.node() {
            Node::Null => to.serialize_unit(),
            Node::Bool(b) => to.serialize_bool(*b),
            Node::Int(i) => to.serialize_i64(*i),
            Node::Large(u) => to.serialize_u64(*u),
            Node::Float(f) => to.serialize_f64(*f),
            Node::Text(text) => to.serialize_str(text),
            Node::List(_) => {
                let mut list = to.serialize_seq(None)?;
                self.items().try_for_each(|item| list.serialize_element(&item))?;
                list.end()
            }
            Node::Object(_) => {
                let mut map = to.serialize_map(None)?;
                self.each_by_name(|name, value| map.serialize_entry(name, &value))?;
                map.end()
            }
        }
    }
}

/// Appends a value and what it holds, unless it nests too deep.
fn add<'a>(nodes: &mut Vec<Node<'a>>, value: &'a Value, depth: usize) -> Option<()> {
    let start = nodes.len();
    match value {
        Value::Null => nodes.push(Node::Null),
        Value::Bool(b) => nodes.push(Node::Bool(*b)),
        Value::Number(n) => nodes.push(number(n)),
        Value::String(text) => nodes.push(Node::Text(text.into())),
        Value::Array(_) | Value::Object(_) if depth == MAX_DEPTH => return None,
        Value::Array(items) => {
            nodes.push(Node::Null);
            items.iter().try_for_each(|item| add(nodes, item, depth + 1))?;
            close(nodes, start, Node::List);
        }
        Value::Object(members) => {
            nodes.push(Node::Null);
            for (name, value) in members {
                nodes.push(Node::Text(name.into()));
                add(nodes, value, depth + 1)?;
            }
            close(nodes, start, Node::Object);
        }
    }
    Some(())
}

/// What was begun at `start` ends here.
fn close<'a>(nodes: &mut [Node<'a>], start: usize, what: fn(usize) -> Node<'a>) {
    let end = nodes.len();
    if let Some(holder) = nodes.get_mut(start) {
        *holder = what(end);
    }
}

fn number<'a>(n: &Number) -> Node<'a> {
    match (n.as_i64(), n.as_u64()) {
        (Some(i), _) => Node::Int(i),
        (None, Some(u)) => Node::Large(u),
        (None, None) => Node::Float(n.as_f64().unwrap_or_default()),
    }
}

/// Reads JSON. `None` is for what is not JSON: what is wrong with it is for serde_json to say, which also reads
/// numbers that are not small.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
    nodes: Vec<Node<'a>>,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is not white space.
    #[inline]
    fn token(&mut self) -> Option<u8> {
        loop {
            match self.peek()? {
                byte if byte > b' ' => return Some(byte),
                b' ' | b'\n' | b'\t' | b'\r' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        match self.token()? {
            b'"' => self.string(),
            b'{' => self.object(depth),
            b'[' => self.list(depth),
            b't' => self.word("true", Node::Bool(true)),
            b'f' => self.word("false", Node::Bool(false)),
            b'n' => self.word("null", Node::Null),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &str, node: Node<'a>) -> Option<()> {
        self.text.get(self.at..)?.starts_with(word).then_some(())?;
        self.at += word.len();
        self.nodes.push(node);
        Some(())
    }

    /// Begins a list or an object. `None` if it nests too deep; false if it ends at once.
    fn open(&mut self, depth: usize, end: u8) -> Option<bool> {
        (depth < MAX_DEPTH).then_some(())?;
        self.nodes.push(Node::Null);
        self.at += 1;
        let empty = self.token()? == end;
        self.at += usize::from(empty);
        Some(!empty)
    }

    /// Whether there is another after a comma.
    #[inline]
    fn more(&mut self, end: u8) -> Option<bool> {
        let byte = self.token()?;
        self.at += 1;
        match byte {
            b',' => Some(true),
            _ => (byte == end).then_some(false),
        }
    }

    fn list(&mut self, depth: usize) -> Option<()> {
        let start = self.nodes.len();
        let mut more = self.open(depth, b']')?;
        while more {
            self.value(depth + 1)?;
            more = self.more(b']')?;
        }
        close(&mut self.nodes, start, Node::List);
        Some(())
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        let start = self.nodes.len();
        let mut more = self.open(depth, b'}')?;
        while more {
            (self.token()? == b'"').then_some(())?;
            self.string()?;
            (self.token()? == b':').then_some(())?;
            self.at += 1;
            self.value(depth + 1)?;
            more = self.more(b'}')?;
        }
        close(&mut self.nodes, start, Node::Object);
        Some(())
    }

    /// Text, of which the opening quote is next.
    fn string(&mut self) -> Option<()> {
        let start = self.at + 1;
        self.at = start + plain(self.text.as_bytes().get(start..)?);
        if self.peek()? != b'"' {
            return self.unescape(start);
        }
        self.nodes.push(Node::Text(Cow::Borrowed(self.text.get(start..self.at)?)));
        self.at += 1;
        Some(())
    }

    /// Text from `start` on whose first escape is next.
    #[inline(never)]
    fn unescape(&mut self, mut start: usize) -> Option<()> {
        let mut out = String::with_capacity(self.at - start + 32);
        loop {
            out.push_str(self.text.get(start..self.at)?);
            let code = match self.peek()? {
                b'"' => break,
                b'\\' => *self.text.as_bytes().get(self.at + 1)?,
                _ => return None,
            };
            let (c, length) = match code {
                b'"' | b'\\' | b'/' => (char::from(code), 2),
                b'n' => ('\n', 2),
                b't' => ('\t', 2),
                b'r' => ('\r', 2),
                b'b' => ('\u{8}', 2),
                b'f' => ('\u{c}', 2),
                b'u' => code_point(self.text.get(self.at..)?)?,
                _ => return None,
            };
            out.push(c);
            start = self.at + length;
            self.at = start + plain(self.text.as_bytes().get(start..)?);
        }
        self.nodes.push(Node::Text(Cow::Owned(out)));
        self.at += 1;
        Some(())
    }

    #[inline(never)]
    fn number(&mut self) -> Option<()> {
        let is_part = |b: &u8| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E');
        let rest = self.text.get(self.at..)?;
        let length = rest.bytes().position(|b| !is_part(&b)).unwrap_or(rest.len());
        let text = rest.get(..length)?;
        self.at += length;
        // 18 digits are always an i64
        let node = match text.as_bytes() {
            [b'0'..=b'9'] | [b'1'..=b'9', ..] if length <= 18 && text.bytes().all(|b| b.is_ascii_digit()) => {
                Node::Int(text.bytes().fold(0, |n, digit| n * 10 + i64::from(digit - b'0')))
            }
            _ => number(&serde_json::from_str(text).ok()?),
        };
        self.nodes.push(node);
        Some(())
    }
}

/// The character that one `\u` stands for, or two, and how many bytes they take.
fn code_point(text: &str) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        // what parses numbers takes a sign
        digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
    };
    let first = unit(0)?;
    if let Some(c) = char::from_u32(first.into()) {
        return Some((c, 6));
    }
    let c = char::decode_utf16([first, unit(6)?]).next()?.ok()?;
    Some((c, 12))
}

/// How many bytes of text stand before a quote, a backslash or a control character: eight are looked at together.
#[inline]
fn plain(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    // Sets the high bit of each byte below `n`, if it was not set. A borrow may set more, but only after the first.
    let below = |word: u64, n: u8| word.wrapping_sub(ONES * u64::from(n));
    let is = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let mut length = 0;
    let mut rest = text;
    while let Some((word, next)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*word);
        let ends = (below(word, b' ') | is(word, b'"') | is(word, b'\\')) & !word & HIGH;
        if ends != 0 {
            return length + ends.trailing_zeros() as usize / 8;
        }
        length += 8;
        rest = next;
    }
    length + plain_end(rest)
}

/// The same for fewer than eight bytes, with which the JSON ends.
#[inline(never)]
fn plain_end(text: &[u8]) -> usize {
    text.iter().position(|b| *b < b' ' || matches!(b, b'"' | b'\\')).unwrap_or(text.len())
}
