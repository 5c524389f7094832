//! The accounts that the server knows. They come from the caller or from a file, and do not change while it runs.
//! Refuses: a file with a line that is not an account, or with an id or key given twice.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;

use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Result, s3_error};

/// Who owns what an unsigned request writes; Ceph's own name for it.
pub const ANONYMOUS_ID: &str = "anonymous";

/// An account.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The canonical id, as ACLs name it.
    pub id: String,
    /// The name for people.
    pub name: String,
    /// The email address by which a grant can name the account.
    pub email: Option<String>,
    /// The public half of the key pair.
    pub access_key: String,
    /// The secret half.
    pub secret_key: String,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret is left out, so that no log line can hold it.
        f.debug_struct("User").field("id", &self.id).field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

/// Why a file of accounts was not taken.
#[derive(Debug)]
pub enum UsersError {
    /// It could not be read.
    Io(io::Error),
    /// A line, counted from 1, is wrong, and why.
    Line(usize, &'static str),
}

impl fmt::Display for UsersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UsersError::Io(error) => write!(f, "cannot read the file of users: {error}"),
            UsersError::Line(number, reason) => write!(f, "line {number} of the file of users: {reason}"),
        }
    }
}

impl std::error::Error for UsersError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            UsersError::Io(error) => Some(error),
            UsersError::Line(..) => None,
        }
    }
}

/// Reads accounts from a text file, one a line: `ID ACCESS_KEY SECRET_KEY EMAIL NAME…`, parted by blanks.
///
/// `EMAIL` may be `-` for none, `NAME` may hold blanks or be missing (then it is the id). Empty lines and lines
/// that begin with `#` are skipped.
pub fn users_from_file(path: &Path) -> Result<Vec<User>, UsersError> {
    users_from_text(&std::fs::read_to_string(path).map_err(UsersError::Io)?)
}

fn users_from_text(text: &str) -> Result<Vec<User>, UsersError> {
    let mut users: Vec<User> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let user = user_from_line(line).map_err(|reason| UsersError::Line(index + 1, reason))?;
        if users.iter().any(|other| other.id == user.id || other.access_key == user.access_key) {
            return Err(UsersError::Line(index + 1, "the id or the access key is taken by a line above"));
        }
        users.push(user);
    }
    Ok(users)
}

fn user_from_line(line: &str) -> Result<User, &'static str> {
    let mut words = line.split_whitespace();
    let mut next = |reason| words.next().map(str::to_owned).ok_or(reason);
    let id = next("the id is missing")?;
    let access_key = next("the access key is missing")?;
    let secret_key = next("the secret key is missing")?;
    let email = next("the email address is missing (write - for none)")?;
    if id == ANONYMOUS_ID {
        return Err("the id is kept for unsigned requests");
    }
    let name = words.collect::<Vec<_>>().join(" ");
    Ok(User {
        name: if name.is_empty() { id.clone() } else { name },
        email: (email != "-").then_some(email),
        id,
        access_key,
        secret_key,
    })
}

/// The accounts, found by key, id or email address.
pub struct Users {
    users: Vec<User>,
    by_access_key: HashMap<String, usize>,
}

impl Users {
    /// Takes the accounts as they are.
    pub fn new(users: Vec<User>) -> Self {
        let by_access_key = users.iter().enumerate().map(|(index, user)| (user.access_key.clone(), index)).collect();
        Users { users, by_access_key }
    }

    /// The account of an access key.
    pub fn by_access_key(&self, access_key: &str) -> Option<&User> {
        self.by_access_key.get(access_key).map(|index| &self.users[*index])
    }

    /// The account of a canonical id.
    pub fn by_id(&self, id: &str) -> Option<&User> {
        self.users.iter().find(|user| user.id == id)
    }

    /// The account of an email address.
    pub fn by_email(&self, email: &str) -> Option<&User> {
        self.users.iter().find(|user| user.email.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(email)))
    }

    /// The name to show for an id; empty for an account that is gone.
    pub fn display_name(&self, id: &str) -> String {
        self.by_id(id).map(|user| user.name.clone()).unwrap_or_default()
    }
}

/// Hands the signature check the secret of an access key.
pub struct Secrets(pub std::sync::Arc<Users>);

#[async_trait::async_trait]
impl S3Auth for Secrets {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        match self.0.by_access_key(access_key) {
            Some(user) => Ok(SecretKey::from(user.secret_key.clone())),
            None => Err(s3_error!(InvalidAccessKeyId, "There is no account with this access key.")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_file_of_users() {
        let users = users_from_text("# who\n\nalice AK SK alice@example.com Alice A.\nbob BK BS -\n").unwrap();
        assert_eq!(users[0].name, "Alice A.");
        assert_eq!(users[0].email.as_deref(), Some("alice@example.com"));
        assert_eq!(users[1].name, "bob");
        assert_eq!(users[1].email, None);
        assert!(!format!("{:?}", users[0]).contains("SK"), "the secret is printed");
    }

    #[test]
    fn refuses_bad_lines_by_number() {
        for (text, line) in [("a b c", 1), ("a b c -\n\na x y -", 3), ("a b c -\nd b e -", 2), ("anonymous b c -", 1)] {
            match users_from_text(text) {
                Err(UsersError::Line(number, _)) => assert_eq!(number, line, "{text:?}"),
                other => panic!("{text:?} gave {other:?}"),
            }
        }
    }
}
