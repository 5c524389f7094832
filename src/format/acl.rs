//! Access control lists: the canned names, the lines of `user.s3.grants`, and what of them fits in request headers.
//!
//! It refuses lines and names that no store would understand, and says so when an ACL cannot ride on a write.
//! The XML form is in [`crate::format::xml`]. Sources: Amazon S3 API reference, "Access control list (ACL) overview"
//! (grantees, permissions, canned ACLs) and "PutObject" (the grammar of `x-amz-grant-*`).

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Every canned name that S3 knows.
pub const CANNED_NAMES: [&str; 8] = [
    PRIVATE,
    PUBLIC_READ,
    PUBLIC_READ_WRITE,
    AUTHENTICATED_READ,
    "bucket-owner-read",
    "bucket-owner-full-control",
    "aws-exec-read",
    "log-delivery-write",
];

const PRIVATE: &str = "private";
const PUBLIC_READ: &str = "public-read";
const PUBLIC_READ_WRITE: &str = "public-read-write";
const AUTHENTICATED_READ: &str = "authenticated-read";

/// The canned names that [`Acl::canned_name`] recognises: those that say the same for every bucket.
const RECOGNISED: [&str; 4] = [PRIVATE, PUBLIC_READ, PUBLIC_READ_WRITE, AUTHENTICATED_READ];

/// Amazon EC2's account, to which `aws-exec-read` gives READ.
const EC2_ID: &str = "6aa5a366c34c1cbe25dc49211496e913e0351eb0e8c37aa3477e40942ec6b97c";

/// Bytes of all headers of an ACL at most. Servers take 8 KiB of headers or more in all, and metadata needs 2 KiB.
const HEADERS_BYTES_MAX: usize = 4096;

/// What every group's URI begins with, `AuthenticatedUsers` and `AllUsers`.
const GLOBAL_GROUPS: &str = "http://acs.amazonaws.com/groups/global/";

/// The URI of the log writer's group.
const LOG_DELIVERY: &str = "http://acs.amazonaws.com/groups/s3/LogDelivery";

/// The ACL of a bucket or object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acl {
    /// Who owns it: the canonical id.
    pub owner_id: String,
    /// The owner's display name, where the store tells.
    pub owner_name: Option<String>,
    /// Who may do what, in the store's order.
    pub grants: Vec<Grant>,
}

/// One line of an ACL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Grant {
    /// Who.
    pub grantee: Grantee,
    /// May do what.
    pub permission: Permission,
}

/// Who a grant is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Grantee {
    /// An account by its canonical id.
    Id(String),
    /// An account by its email address.
    Email(String),
    /// Everyone, signed or not.
    AllUsers,
    /// Everyone with an account.
    AuthenticatedUsers,
    /// The store's log writer.
    LogDelivery,
}

/// What a grant allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Permission {
    /// Read the object, list the bucket.
    Read,
    /// Write into the bucket.
    Write,
    /// Read the ACL.
    ReadAcp,
    /// Change the ACL.
    WriteAcp,
    /// All of these.
    FullControl,
}

/// An ACL as request headers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AclHeaders {
    /// `x-amz-acl: NAME`.
    Canned(String),
    /// `x-amz-grant-PERMISSION: grantee[, grantee…]`, as (header name, value).
    Grants(Vec<(String, String)>),
}

/// A line of `user.s3.grants`, or a header, that is no grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadGrant {
    /// The line as it was given.
    pub line: String,
}

impl fmt::Display for BadGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no grant; a line is PERMISSION GRANTEE, where PERMISSION is READ, WRITE, READ_ACP, WRITE_ACP or \
             FULL_CONTROL, and GRANTEE is id=ACCOUNT, email=ADDRESS or group=AllUsers|AuthenticatedUsers|LogDelivery",
            self.line
        )
    }
}

impl std::error::Error for BadGrant {}

impl Permission {
    /// Every permission, in the order of their headers.
    pub const ALL: [Permission; 5] =
        [Permission::Read, Permission::Write, Permission::ReadAcp, Permission::WriteAcp, Permission::FullControl];

    /// Its name in XML and in grant lines.
    pub fn name(self) -> &'static str {
        match self {
            Permission::Read => "READ",
            Permission::Write => "WRITE",
            Permission::ReadAcp => "READ_ACP",
            Permission::WriteAcp => "WRITE_ACP",
            Permission::FullControl => "FULL_CONTROL",
        }
    }

    /// The permission of this name, as XML and grant lines spell it.
    pub fn from_name(name: &str) -> Option<Self> {
        Permission::ALL.into_iter().find(|permission| permission.name() == name)
    }

    /// The request header that grants it.
    pub fn header(self) -> &'static str {
        match self {
            Permission::Read => "x-amz-grant-read",
            Permission::Write => "x-amz-grant-write",
            Permission::ReadAcp => "x-amz-grant-read-acp",
            Permission::WriteAcp => "x-amz-grant-write-acp",
            Permission::FullControl => "x-amz-grant-full-control",
        }
    }
}

impl Grantee {
    /// The URI of a group; accounts have none.
    pub fn uri(&self) -> Option<String> {
        match self {
            Grantee::Id(_) | Grantee::Email(_) => None,
            Grantee::AllUsers => Some(format!("{GLOBAL_GROUPS}AllUsers")),
            Grantee::AuthenticatedUsers => Some(format!("{GLOBAL_GROUPS}AuthenticatedUsers")),
            Grantee::LogDelivery => Some(LOG_DELIVERY.to_owned()),
        }
    }

    /// The group of this URI.
    pub fn from_uri(uri: &str) -> Option<Self> {
        let groups = [Grantee::AllUsers, Grantee::AuthenticatedUsers, Grantee::LogDelivery];
        groups.into_iter().find(|group| group.uri().as_deref() == Some(uri))
    }

    /// `id=…`, `email=…` or `group=…`, as in grant lines.
    fn from_line(word: &str) -> Option<Self> {
        let (kind, value) = word.split_once('=')?;
        let value = value.trim();
        match (kind, value) {
            (_, "") => None,
            ("id", _) => Some(Grantee::Id(value.to_owned())),
            ("email", _) => Some(Grantee::Email(value.to_owned())),
            ("group", "AllUsers") => Some(Grantee::AllUsers),
            ("group", "AuthenticatedUsers") => Some(Grantee::AuthenticatedUsers),
            ("group", "LogDelivery") => Some(Grantee::LogDelivery),
            _ => None,
        }
    }

    /// `id="…"`, `emailAddress="…"` or `uri="…"`, as in request headers.
    fn header_value(&self) -> String {
        match self {
            Grantee::Id(id) => format!("id=\"{id}\""),
            Grantee::Email(email) => format!("emailAddress=\"{email}\""),
            group => format!("uri=\"{}\"", group.uri().unwrap_or_default()),
        }
    }

    fn from_header_value(word: &str) -> Option<Self> {
        let (kind, value) = word.trim().split_once('=')?;
        let value = value.trim().trim_matches('"');
        match kind.trim() {
            _ if value.is_empty() => None,
            "id" => Some(Grantee::Id(value.to_owned())),
            "emailAddress" => Some(Grantee::Email(value.to_owned())),
            "uri" => Grantee::from_uri(value),
            _ => None,
        }
    }

    /// Whether the header grammar has room for it: plain ASCII, and neither quote nor comma, at which stores split.
    fn fits_header(&self) -> bool {
        match self {
            Grantee::Id(name) | Grantee::Email(name) => {
                !name.is_empty() && name.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b',')
            }
            Grantee::AllUsers | Grantee::AuthenticatedUsers | Grantee::LogDelivery => true,
        }
    }
}

impl fmt::Display for Grantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grantee::Id(id) => write!(f, "id={id}"),
            Grantee::Email(email) => write!(f, "email={email}"),
            Grantee::AllUsers => f.write_str("group=AllUsers"),
            Grantee::AuthenticatedUsers => f.write_str("group=AuthenticatedUsers"),
            Grantee::LogDelivery => f.write_str("group=LogDelivery"),
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.permission.name(), self.grantee)
    }
}

/// The grants, one a line, without a closing newline: the value of `user.s3.grants`.
impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, grant) in self.grants.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{grant}")?;
        }
        Ok(())
    }
}

/// Reads grants, one a line; blank lines and blanks around words are ignored.
pub fn parse_lines(text: &str) -> Result<Vec<Grant>, BadGrant> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| parse_line(line).ok_or_else(|| BadGrant { line: line.to_owned() })).collect()
}

fn parse_line(line: &str) -> Option<Grant> {
    let (permission, grantee) = line.split_once(char::is_whitespace)?;
    Some(Grant { grantee: Grantee::from_line(grantee.trim_start())?, permission: Permission::from_name(permission)? })
}

/// What a canned name means for an object or bucket of this owner, or `None` for a name that S3 does not know.
///
/// The owner of the object and of its bucket are taken to be one account, so that the two `bucket-owner-*` names
/// give nothing beyond `private`, as S3 and Ceph RGW answer then.
pub fn expand_canned(name: &str, owner_id: &str, owner_name: Option<&str>) -> Option<Acl> {
    use Permission::{Read, ReadAcp, Write};
    let more = match name {
        PRIVATE | "bucket-owner-read" | "bucket-owner-full-control" => vec![],
        PUBLIC_READ => vec![(Grantee::AllUsers, Read)],
        PUBLIC_READ_WRITE => vec![(Grantee::AllUsers, Read), (Grantee::AllUsers, Write)],
        AUTHENTICATED_READ => vec![(Grantee::AuthenticatedUsers, Read)],
        "aws-exec-read" => vec![(Grantee::Id(EC2_ID.to_owned()), Read)],
        "log-delivery-write" => vec![(Grantee::LogDelivery, Write), (Grantee::LogDelivery, ReadAcp)],
        _ => return None,
    };
    let own = (Grantee::Id(owner_id.to_owned()), Permission::FullControl);
    let grants = std::iter::once(own).chain(more).map(|(grantee, permission)| Grant { grantee, permission });
    Some(Acl { owner_id: owner_id.to_owned(), owner_name: owner_name.map(str::to_owned), grants: grants.collect() })
}

impl Acl {
    /// The canned name that says the same, in whatever order the grants stand; `None` is a custom ACL.
    ///
    /// Recognised are `private`, `public-read`, `public-read-write` and `authenticated-read`.
    pub fn canned_name(&self) -> Option<&'static str> {
        RECOGNISED.into_iter().find(|name| {
            expand_canned(name, &self.owner_id, None).is_some_and(|canned| same_grants(&canned.grants, &self.grants))
        })
    }

    /// How this ACL rides on a request that makes a version: nothing for plain private, which is what a version gets
    /// by itself; a canned name where there is one; else a header per permission.
    ///
    /// Grant headers replace the default ACL, so the owner's own FULL_CONTROL goes with them wherever the ACL has it.
    /// Ask [`Acl::fits_headers`] first: an ACL that does not fit would lose the grants that are left out here.
    pub fn as_headers(&self) -> Option<AclHeaders> {
        match self.canned_name() {
            Some(PRIVATE) => return None,
            Some(name) => return Some(AclHeaders::Canned(name.to_owned())),
            None => {}
        }
        let headers = self.grant_headers();
        if headers.is_empty() || !is_short(&headers) { None } else { Some(AclHeaders::Grants(headers)) }
    }

    /// A header per permission that is granted.
    fn grant_headers(&self) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        for permission in Permission::ALL {
            let grants = self.grants.iter().filter(|grant| grant.permission == permission);
            let grantees = grants.map(|grant| &grant.grantee).filter(|grantee| grantee.fits_header());
            let value = grantees.map(Grantee::header_value).collect::<Vec<_>>().join(", ");
            if !value.is_empty() {
                headers.push((permission.header().to_owned(), value));
            }
        }
        headers
    }

    /// Whether [`Acl::as_headers`] says all of this ACL. Headers cannot say that nobody at all has a grant, and have
    /// no room for a grantee with a quote, a comma or other than plain ASCII, nor for very many: those need a request of
    /// their own.
    pub fn fits_headers(&self) -> bool {
        let has_room = self.canned_name().is_some() || is_short(&self.grant_headers());
        !self.grants.is_empty() && self.grants.iter().all(|grant| grant.grantee.fits_header()) && has_room
    }

    /// What request headers make of a version that this owner writes: the reverse of [`Acl::as_headers`].
    pub fn from_headers(headers: &AclHeaders, owner_id: &str, owner_name: Option<&str>) -> Result<Acl, BadGrant> {
        let grants = match headers {
            AclHeaders::Canned(name) => {
                return expand_canned(name, owner_id, owner_name).ok_or_else(|| BadGrant { line: name.clone() });
            }
            AclHeaders::Grants(grants) => grants,
        };
        let mut acl = Acl { owner_id: owner_id.to_owned(), owner_name: owner_name.map(str::to_owned), grants: vec![] };
        for (name, value) in grants {
            let bad = || BadGrant { line: format!("{name}: {value}") };
            let named = |permission: &Permission| permission.header().eq_ignore_ascii_case(name);
            let permission = Permission::ALL.into_iter().find(named).ok_or_else(bad)?;
            for word in value.split(',') {
                let grantee = Grantee::from_header_value(word).ok_or_else(bad)?;
                acl.grants.push(Grant { grantee, permission });
            }
        }
        Ok(acl)
    }
}

fn is_short(headers: &[(String, String)]) -> bool {
    headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= HEADERS_BYTES_MAX
}

/// Whether these say the same, in whatever order.
pub fn same_grants(one: &[Grant], other: &[Grant]) -> bool {
    one.iter().collect::<BTreeSet<_>>() == other.iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn acl(lines: &str) -> Acl {
        Acl { owner_id: "me".to_owned(), owner_name: None, grants: parse_lines(lines).unwrap() }
    }

    #[test]
    fn canned_names_are_recognised_in_any_order() {
        for name in RECOGNISED {
            let mut canned = expand_canned(name, "me", Some("Me")).unwrap();
            assert_eq!(canned.canned_name(), Some(name));
            canned.grants.reverse();
            assert_eq!(canned.canned_name(), Some(name));
        }
        assert_eq!(acl("READ group=AllUsers").canned_name(), None, "the owner has nothing");
        assert_eq!(acl("FULL_CONTROL id=you").canned_name(), None, "somebody else has all");
        assert_eq!(acl("FULL_CONTROL id=me\nWRITE group=AllUsers").canned_name(), None);
        assert_eq!(expand_canned("log-delivery-write", "me", None).unwrap().canned_name(), None);
    }

    #[test]
    fn every_known_name_expands_and_no_other() {
        for name in CANNED_NAMES {
            let canned = expand_canned(name, "me", None).unwrap();
            assert!(canned.to_string().starts_with("FULL_CONTROL id=me"), "{name}");
        }
        for name in ["", "Private", "public", "custom"] {
            assert_eq!(expand_canned(name, "me", None), None, "{name:?}");
        }
    }

    #[test]
    fn a_bad_line_is_named_with_what_is_allowed() {
        for line in ["READ", "read id=x", "READ id=", "READ group=Everyone", "READ uri=x", "OWN id=x", "READ x"] {
            let text = format!("FULL_CONTROL id=me\n\n  {line}\n");
            let error = parse_lines(&text).unwrap_err();
            assert_eq!(error.line, line);
            let said = error.to_string();
            assert!(said.contains("FULL_CONTROL") && said.contains("AuthenticatedUsers"), "{said}");
        }
        assert_eq!(parse_lines(" \n\r\n\t").unwrap(), vec![]);
    }

    #[test]
    fn headers_say_private_by_silence_canned_by_name_and_the_rest_by_grants() {
        assert_eq!(acl("FULL_CONTROL id=me").as_headers(), None);
        let public = acl("READ group=AllUsers\nFULL_CONTROL id=me").as_headers();
        assert_eq!(public, Some(AclHeaders::Canned("public-read".to_owned())));
        let custom = acl("FULL_CONTROL id=me\nREAD id=you\nREAD group=AllUsers\nREAD_ACP email=a@example.org");
        let full = ("x-amz-grant-full-control".to_owned(), "id=\"me\"".to_owned());
        let all = "http://acs.amazonaws.com/groups/global/AllUsers";
        let read = ("x-amz-grant-read".to_owned(), format!("id=\"you\", uri=\"{all}\""));
        let read_acp = ("x-amz-grant-read-acp".to_owned(), "emailAddress=\"a@example.org\"".to_owned());
        assert_eq!(custom.as_headers(), Some(AclHeaders::Grants(vec![read, read_acp, full])));
    }

    #[test]
    fn what_headers_cannot_say_is_told() {
        assert!(acl("FULL_CONTROL id=me").fits_headers());
        assert!(!acl("").fits_headers());
        assert!(!acl("READ id=a\"b").fits_headers());
        assert!(!acl("READ id=a,b").fits_headers());
        assert!(!acl("READ id=jürgen").fits_headers());
        let many: String = (0..100).map(|number| format!("READ id={number:064}\n")).collect();
        assert!(!acl(&many).fits_headers() && acl(&many).as_headers().is_none(), "more than a request has room for");
        let unknown = AclHeaders::Grants(vec![("x-amz-grant-all".to_owned(), "id=\"x\"".to_owned())]);
        assert!(Acl::from_headers(&unknown, "me", None).is_err());
        assert!(Acl::from_headers(&AclHeaders::Canned("open".to_owned()), "me", None).is_err());
    }

    fn grantees() -> impl Strategy<Value = Grantee> {
        prop_oneof![
            "[!-+.-~]([ -+.-~]{0,20}[!-+.-~])?".prop_map(|id| Grantee::Id(id.replace('"', "'"))),
            "[a-z.]{1,8}@[a-z.]{1,8}".prop_map(Grantee::Email),
            Just(Grantee::AllUsers),
            Just(Grantee::AuthenticatedUsers),
            Just(Grantee::LogDelivery),
        ]
    }

    fn acls() -> impl Strategy<Value = Acl> {
        let permissions = proptest::sample::select(&Permission::ALL[..]);
        let grants = (grantees(), permissions).prop_map(|(grantee, permission)| Grant { grantee, permission });
        proptest::collection::vec(grants, 1..8).prop_map(|grants| Acl {
            owner_id: "me".to_owned(),
            owner_name: None,
            grants,
        })
    }

    proptest! {
        #[test]
        fn lines_round_trip(acl in acls()) {
            prop_assert_eq!(parse_lines(&acl.to_string()), Ok(acl.grants));
        }

        #[test]
        fn headers_round_trip_but_for_the_order(acl in acls()) {
            prop_assert!(acl.fits_headers());
            let back = match acl.as_headers() {
                Some(headers) => Acl::from_headers(&headers, "me", None).unwrap(),
                None => expand_canned(PRIVATE, "me", None).unwrap(),
            };
            prop_assert!(same_grants(&back.grants, &acl.grants), "{:?}", back);
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = parse_lines(&text);
            let headers = AclHeaders::Grants(vec![("x-amz-grant-read".to_owned(), text)]);
            let _ = Acl::from_headers(&headers, "me", None);
        }
    }
}
