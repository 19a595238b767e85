//! `--token-auth-file`: lines of token, user, uid and optionally quoted groups, separated by commas.

use super::Rejected;
use crate::User;
use std::collections::HashMap;

/// Users by token.
#[derive(Default)]
pub struct TokenFile(HashMap<String, User>);

impl TokenFile {
    /// Reads the file's text. The error names the line, not the token.
    pub fn parse(text: &str) -> Result<Self, Rejected> {
        let mut users = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let columns = columns(line);
            let [token, name, uid, rest @ ..] = columns.as_slice() else {
                return Err(Rejected(format!(
                    "line {}: a token, a user and a uid are needed, separated by commas",
                    number + 1
                )));
            };
            if token.is_empty() {
                return Err(Rejected(format!("line {}: the token is empty", number + 1)));
            }
            let groups = rest
                .first()
                .map(|g| g.split(',').map(|g| g.trim().to_string()).filter(|g| !g.is_empty()).collect());
            let user = User {
                name: name.clone(),
                uid: uid.clone(),
                groups: groups.unwrap_or_default(),
                ..User::default()
            };
            users.insert(token.clone(), user);
        }
        Ok(TokenFile(users))
    }

    /// The user of a token.
    pub fn user(&self, token: &str) -> Option<&User> {
        self.0.get(token)
    }
}

fn columns(line: &str) -> Vec<String> {
    let mut columns = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => columns.push(String::new()),
            c => {
                if let Some(last) = columns.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    columns.into_iter().map(|c| c.trim().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let file =
            TokenFile::parse("# c\nabc,admin,1,\"system:masters,x\"\n\ndef,bob,2\nghi,eve,3,g\n").unwrap();
        assert_eq!(file.user("abc").unwrap().groups, ["system:masters", "x"]);
        assert_eq!(file.user("def").unwrap().name, "bob");
        assert_eq!(file.user("ghi").unwrap().groups, ["g"]);
        assert!(file.user("x").is_none());
        assert!(TokenFile::parse("a,b").err().unwrap().0.contains("line 1"));
    }
}
