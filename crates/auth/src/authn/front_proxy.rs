//! A front proxy: who shows a certificate of the proxy's authority says in headers who the user is.

use super::with_authenticated;
use crate::User;
use http::HeaderMap;

/// Upstream's own names, which are never passed on, whatever the flags say.
const STANDARD: [&str; 3] = ["x-remote-user", "x-remote-uid", "x-remote-group"];
const STANDARD_EXTRA: &str = "x-remote-extra-";

/// Which proxies and headers count.
#[derive(Clone, Debug, Default)]
pub struct FrontProxy {
    /// Common names that its certificate may have; any if there are none.
    pub allowed_names: Vec<String>,
    /// Headers of the user's name: the first that is there counts.
    pub user: Vec<String>,
    /// Likewise of the user's uid.
    pub uid: Vec<String>,
    /// Headers of groups: all count.
    pub groups: Vec<String>,
    /// What headers of anything else begin with.
    pub extra: Vec<String>,
}

impl FrontProxy {
    /// Whether a certificate, DER, may be the proxy's.
    pub fn allows(&self, der: &[u8]) -> bool {
        let name = super::certificate::user(der).map(|u| u.name).unwrap_or_default();
        self.allowed_names.is_empty() || self.allowed_names.contains(&name)
    }

    /// Whom the headers name, if anyone.
    pub fn user(&self, headers: &HeaderMap) -> Option<User> {
        let texts = |name: &String| {
            let values = headers.get_all(name.as_str()).iter().filter_map(|v| v.to_str().ok());
            values.filter(|v| !v.is_empty()).map(String::from).collect::<Vec<_>>()
        };
        let first = |names: &[String]| names.iter().find_map(|n| texts(n).into_iter().next());
        let mut user = User {
            name: first(&self.user)?,
            uid: first(&self.uid).unwrap_or_default(),
            groups: self.groups.iter().flat_map(texts).collect(),
            ..User::default()
        };
        for prefix in &self.extra {
            for (name, value) in headers {
                let Some(key) = after(name.as_str(), prefix) else { continue };
                let decoded = percent_encoding::percent_decode_str(key).decode_utf8();
                let key = decoded.map_or_else(|_| key.to_string(), |k| k.into_owned());
                let values = user.extra.entry(key).or_default();
                values.extend(value.to_str().map(String::from));
            }
        }
        // Who is said to be nobody stays so.
        Some(if user.name == "system:anonymous" { user } else { with_authenticated(user) })
    }

    /// Removes the headers: nobody behind us is to take them from a client.
    pub fn clear(&self, headers: &mut HeaderMap) {
        let names = [&self.user, &self.uid, &self.groups].into_iter().flatten().map(String::as_str);
        let prefixes = || self.extra.iter().map(String::as_str).chain([STANDARD_EXTRA]);
        let extra = headers.keys().filter(|name| prefixes().any(|p| after(name.as_str(), p).is_some()));
        let extra: Vec<String> = extra.map(ToString::to_string).collect();
        for name in names.chain(STANDARD).chain(extra.iter().map(String::as_str)) {
            headers.remove(name);
        }
    }
}

/// The rest of a header's name after a prefix, in whatever case.
fn after<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = name.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn proxy() -> FrontProxy {
        let list = |l: &[&str]| l.iter().map(|s| s.to_string()).collect();
        FrontProxy {
            allowed_names: vec![],
            user: list(&["X-Remote-User", "X-User"]),
            uid: list(&["X-Remote-Uid"]),
            groups: list(&["X-Remote-Group", "X-Group"]),
            extra: list(&["X-Remote-Extra-", "X-More-"]),
        }
    }

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        list.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap())).collect()
    }

    #[test]
    fn headers_say_who() {
        let user = |list: &[(&str, &str)]| proxy().user(&headers(list));
        assert_eq!(user(&[("X-Remote-Group", "system:masters")]), None);
        assert_eq!(user(&[("X-Remote-User", ""), ("X-User", "b")]).unwrap().name, "b");
        let all = user(&[
            ("x-remote-user", "a"),
            ("x-user", "b"),
            ("x-remote-uid", "7"),
            ("x-group", "g2"),
            ("x-remote-group", "g"),
            ("x-remote-extra-acme.com%2fProject", "p"),
            ("x-remote-extra-scopes", "s"),
            ("x-more-scopes", "t"),
        ])
        .unwrap();
        assert_eq!((&*all.name, &*all.uid), ("a", "7"));
        assert_eq!(all.groups, ["g", "g2", crate::AUTHENTICATED]);
        assert_eq!(all.extra["scopes"], ["s", "t"]);
        assert_eq!(all.extra["acme.com/project"], ["p"]);
        assert!(user(&[("x-user", "system:anonymous")]).unwrap().groups.is_empty());
    }

    #[test]
    fn they_are_removed() {
        let mut all = headers(&[
            ("x-user", "b"),
            ("x-remote-uid", "7"),
            ("x-group", "g"),
            ("x-more-a", "p"),
            ("x-remote-extra-b", "q"),
            ("accept", "*/*"),
        ]);
        FrontProxy { extra: vec!["X-More-".into()], ..proxy() }.clear(&mut all);
        assert_eq!(all, headers(&[("accept", "*/*")]));
    }
}
