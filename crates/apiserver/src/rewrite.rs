//! Links in what a proxied pod or service answers: they lead back through the proxy, as with upstream's.

use crate::body::BodyError;
use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame};
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A tag longer than this is passed on as it is.
const MAX_TAG: usize = 64 << 10;

/// The attributes of HTML that hold links, by tag (HTML, "Attributes": those whose value is a URL).
const LINKS: [(&str, &[&str]); 26] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("track", &["src"]),
    ("video", &["poster", "src"]),
];

/// Where the proxied side stands.
#[derive(Clone, Debug)]
pub struct Rewrite {
    /// The proxy's own path, up to and with `proxy`, without a slash at its end.
    pub prefix: String,
    /// `host:port` of the other side.
    pub host: String,
}

impl Rewrite {
    /// A link as seen from outside; `None` if it stays as it is: relative ones, and those to other hosts.
    pub fn link(&self, link: &str) -> Option<String> {
        let path = match link.split_once("://") {
            Some(("http" | "https", rest)) => {
                let (host, _) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                rest.strip_prefix(host).filter(|_| host == self.host)?
            }
            _ if link.starts_with("//") => return None,
            _ => link,
        };
        (path.starts_with('/') && !path.starts_with(&self.prefix)).then(|| format!("{}{path}", self.prefix))
    }

    /// A tag, from `<` to `>`, with its links rewritten.
    fn tag(&self, tag: &str) -> Option<String> {
        let name: String = tag.chars().skip(1).take_while(char::is_ascii_alphanumeric).collect();
        let name = name.to_ascii_lowercase();
        let (_, wanted) = LINKS.iter().find(|(tag, _)| *tag == name)?;
        let (mut out, mut rest, mut changed) = (String::with_capacity(tag.len() + 64), tag, false);
        // name="value", name='value' or name=value
        while let Some(equals) = rest.find('=') {
            let (before, after) = rest.split_at(equals + 1);
            let attribute = before.trim_end_matches('=').trim_end();
            let attribute =
                attribute.rsplit(|c: char| c.is_ascii_whitespace() || c == '/').next().unwrap_or_default();
            out.push_str(before);
            let gap = after.len() - after.trim_start().len();
            let (blank, value) = after.split_at(gap);
            out.push_str(blank);
            let (open, value) = match value.chars().next() {
                Some(quote @ ('"' | '\'')) => (Some(quote), value.split_at(1).1),
                _ => (None, value),
            };
            let end = match open {
                Some(quote) => value.find(quote),
                None => value.find(|c: char| c.is_ascii_whitespace() || c == '>'),
            };
            let (value, tail) = value.split_at(end.unwrap_or(value.len()));
            out.extend(open);
            match wanted.iter().any(|w| attribute.eq_ignore_ascii_case(w)).then(|| self.link(value)).flatten()
            {
                Some(link) => {
                    changed = true;
                    out.push_str(&link);
                }
                None => out.push_str(value),
            }
            rest = match open {
                Some(quote) => {
                    out.extend(tail.chars().next());
                    tail.strip_prefix(quote).unwrap_or(tail)
                }
                None => tail,
            };
        }
        out.push_str(rest);
        changed.then_some(out)
    }

    /// Rewrites what is complete in `held`; what may be half a tag stays, unless this is the end.
    fn text(&self, held: &mut BytesMut, last: bool) -> Bytes {
        let mut out = BytesMut::with_capacity(held.len() + 128);
        while let Some(start) = held.iter().position(|b| *b == b'<') {
            out.extend_from_slice(&held.split_to(start));
            match held.iter().position(|b| *b == b'>') {
                Some(end) => {
                    let tag = held.split_to(end + 1);
                    match std::str::from_utf8(&tag).ok().and_then(|t| self.tag(t)) {
                        Some(new) => out.extend_from_slice(new.as_bytes()),
                        None => out.extend_from_slice(&tag),
                    }
                }
                None if last || held.len() > MAX_TAG => out.extend_from_slice(&held.split()),
                None => return out.freeze(),
            }
        }
        out.extend_from_slice(&held.split());
        out.freeze()
    }
}

/// An HTML body with its links rewritten as it passes.
pub struct Rewritten {
    inner: Incoming,
    rewrite: Rewrite,
    held: BytesMut,
    ended: bool,
}

impl Rewritten {
    /// Wraps a body.
    pub fn new(inner: Incoming, rewrite: Rewrite) -> Self {
        Rewritten { inner, rewrite, held: BytesMut::new(), ended: false }
    }
}

impl HttpBody for Rewritten {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        while !this.ended {
            match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    this.held.extend_from_slice(&data);
                }
                Some(Err(e)) => return Poll::Ready(Some(Err(Box::new(e)))),
                None => this.ended = true,
            }
            let out = this.rewrite.text(&mut this.held, this.ended);
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out))));
            }
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_back_through_the_proxy() {
        let r = Rewrite { prefix: "/api/v1/p/proxy".into(), host: "10.0.0.1:80".into() };
        let table = [
            ("/x", Some("/api/v1/p/proxy/x")),
            ("/", Some("/api/v1/p/proxy/")),
            ("x/y", None),
            ("http://10.0.0.1:80/x?q", Some("/api/v1/p/proxy/x?q")),
            ("http://elsewhere/x", None),
            ("//elsewhere/x", None),
            ("/api/v1/p/proxy/x", None),
            ("mailto:a@b", None),
        ];
        for (link, want) in table {
            assert_eq!(r.link(link).as_deref(), want, "{link}");
        }
        let html = r#"<p>1 < 2</p><a class=x href="/rewriteme">t</a><IMG src='/i'><a href=/b>b</a><form x="/y" action = "/z"/>"#;
        let want = r#"<p>1 < 2</p><a class=x href="/api/v1/p/proxy/rewriteme">t</a><IMG src='/api/v1/p/proxy/i'><a href=/api/v1/p/proxy/b>b</a><form x="/y" action = "/api/v1/p/proxy/z"/>"#;
        // In pieces of any size.
        for size in 1..html.len() {
            let (mut held, mut out) = (BytesMut::new(), Vec::new());
            for piece in html.as_bytes().chunks(size) {
                held.extend_from_slice(piece);
                out.extend_from_slice(&r.text(&mut held, false));
            }
            out.extend_from_slice(&r.text(&mut held, true));
            assert_eq!(String::from_utf8(out).unwrap(), want, "{size}");
        }
    }
}
