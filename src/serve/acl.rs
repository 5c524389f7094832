//! Access control lists as the server keeps them, and the access decisions.
//!
//! An owner may always read and change the ACL; for everything else, the owner included, a grant decides, as in
//! Ceph. Sources: Amazon S3 API reference, "Access control list (ACL) overview"; Ceph `rgw_acl.cc` for the owner.

use hyper::HeaderMap;
use s3s::dto;
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};
use serde::{Deserialize, Serialize};

use super::profile::Profile;
use super::users::Users;

const ALL_USERS_URI: &str = "http://acs.amazonaws.com/groups/global/AllUsers";
const AUTHENTICATED_USERS_URI: &str = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers";
/// Grants in one list at most; Amazon's limit, "Access control list (ACL) overview".
const GRANTS_MAX: usize = 100;

/// Who may do what with a bucket or an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acl {
    /// The owner's canonical id.
    pub owner: String,
    /// The grants, in the order in which they were given.
    pub grants: Vec<Grant>,
}

/// One line of an ACL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Who.
    pub grantee: Grantee,
    /// May do what.
    pub permission: Permission,
}

/// Who a grant is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grantee {
    /// The account with this id.
    User(String),
    /// Everyone, signed or not.
    AllUsers,
    /// Everyone with an account.
    AuthenticatedUsers,
}

/// What a grant allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// The headers that give grants, and what each gives.
const GRANT_HEADERS: [(&str, Permission); 5] = [
    ("x-amz-grant-read", Permission::Read),
    ("x-amz-grant-write", Permission::Write),
    ("x-amz-grant-read-acp", Permission::ReadAcp),
    ("x-amz-grant-write-acp", Permission::WriteAcp),
    ("x-amz-grant-full-control", Permission::FullControl),
];

impl Permission {
    fn name(self) -> &'static str {
        match self {
            Permission::Read => dto::Permission::READ,
            Permission::Write => dto::Permission::WRITE,
            Permission::ReadAcp => dto::Permission::READ_ACP,
            Permission::WriteAcp => dto::Permission::WRITE_ACP,
            Permission::FullControl => dto::Permission::FULL_CONTROL,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        GRANT_HEADERS.iter().map(|(_, permission)| *permission).find(|permission| permission.name() == name)
    }
}

impl Acl {
    /// The list in which the owner may do all and nobody else anything.
    pub fn private(owner: &str) -> Self {
        let all = Grant { grantee: Grantee::User(owner.to_owned()), permission: Permission::FullControl };
        Acl { owner: owner.to_owned(), grants: vec![all] }
    }

    /// The list that a canned name stands for; `None` for a name that S3 does not have.
    pub fn canned(name: &str, owner: &str, bucket_owner: &str) -> Option<Self> {
        use Permission::{FullControl, Read, Write};
        let bucket_owner = || Grantee::User(bucket_owner.to_owned());
        let more = match name {
            "private" => vec![],
            "public-read" => vec![(Grantee::AllUsers, Read)],
            "public-read-write" => vec![(Grantee::AllUsers, Read), (Grantee::AllUsers, Write)],
            "authenticated-read" => vec![(Grantee::AuthenticatedUsers, Read)],
            "bucket-owner-read" => vec![(bucket_owner(), Read)],
            "bucket-owner-full-control" => vec![(bucket_owner(), FullControl)],
            _ => return None,
        };
        let mut acl = Acl::private(owner);
        for (grantee, permission) in more {
            let grant = Grant { grantee, permission };
            if !acl.grants.contains(&grant) && grant.grantee != Grantee::User(owner.to_owned()) {
                acl.grants.push(grant);
            }
        }
        Some(acl)
    }

    /// Which canned ACL this is, where it is one that a B2-like store has.
    pub fn canned_name(&self) -> Option<&'static str> {
        Profile::B2
            .canned_acls()
            .iter()
            .copied()
            .find(|name| Acl::canned(name, &self.owner, &self.owner).as_ref() == Some(self))
    }

    /// Whether the account (`None`: an unsigned request) may do this.
    pub fn allows(&self, user_id: Option<&str>, permission: Permission) -> bool {
        let of_owner = matches!(permission, Permission::ReadAcp | Permission::WriteAcp);
        if of_owner && user_id == Some(self.owner.as_str()) {
            return true;
        }
        self.grants.iter().any(|grant| {
            let meant = match &grant.grantee {
                Grantee::User(id) => user_id == Some(id.as_str()),
                Grantee::AllUsers => true,
                Grantee::AuthenticatedUsers => user_id.is_some(),
            };
            meant && (grant.permission == permission || grant.permission == Permission::FullControl)
        })
    }

    /// The list that the headers of a request give (`x-amz-acl` or `x-amz-grant-*`); `None` when there is neither.
    ///
    /// Grants in headers are the whole list: an owner who leaves himself out has no grant, as in Ceph.
    pub fn from_headers(
        headers: &HeaderMap,
        owner: &str,
        bucket_owner: &str,
        users: &Users,
        profile: Profile,
    ) -> S3Result<Option<Self>> {
        let mut grants = Vec::new();
        for (name, permission) in GRANT_HEADERS {
            for value in headers.get_all(name) {
                let value = value.to_str().map_err(|_| invalid_argument("A grant header is not plain ASCII."))?;
                for one in value.split(',') {
                    grants.push(Grant { grantee: grantee_from_header(one.trim(), users)?, permission });
                }
            }
        }
        let canned = headers.get("x-amz-acl").map(|value| value.to_str().unwrap_or("(not ASCII)"));
        match canned {
            Some(_) if !grants.is_empty() => {
                Err(s3_error!(InvalidRequest, "Specifying both Canned ACLs and Header Grants is not allowed"))
            }
            Some(name) if profile.canned_acls().contains(&name) => Ok(Acl::canned(name, owner, bucket_owner)),
            Some(name) if profile == Profile::B2 => Err(unsupported_canned(name)),
            Some(_) => Err(invalid_argument("no such ACL")),
            None if grants.is_empty() => Ok(None),
            None if profile == Profile::B2 => Err(invalid_argument("Grants are not supported by this store.")),
            None => Ok(Some(Acl { owner: owner.to_owned(), grants })),
        }
    }

    /// The list of an XML document, for a thing that `owner` owns and keeps owning.
    pub fn from_policy(policy: &dto::AccessControlPolicy, owner: &str, users: &Users) -> S3Result<Self> {
        let named = policy.owner.as_ref().and_then(|named| named.id.as_deref());
        if named.is_some_and(|named| named != owner) {
            return Err(s3_error!(AccessDenied, "The owner cannot be changed."));
        }
        let listed = policy.grants.as_deref().unwrap_or_default();
        if listed.len() > GRANTS_MAX {
            return Err(invalid_argument("An ACL has 100 grants at most."));
        }
        let grants = listed.iter().map(|grant| grant_from_xml(grant, users)).collect::<S3Result<Vec<_>>>()?;
        Ok(Acl { owner: owner.to_owned(), grants })
    }

    /// The grants as the protocol spells them.
    pub fn to_grants(&self, users: &Users) -> Vec<dto::Grant> {
        let spelled = |grant: &Grant| dto::Grant {
            grantee: Some(grantee_to_xml(&grant.grantee, users)),
            permission: Some(dto::Permission::from_static(grant.permission.name())),
        };
        self.grants.iter().map(spelled).collect()
    }
}

/// The owner as the protocol spells it.
pub fn owner_to_xml(id: &str, users: &Users) -> dto::Owner {
    dto::Owner { id: Some(id.to_owned()), display_name: Some(users.display_name(id)) }
}

/// The refusal of a canned ACL, in the words that B2-like stores use.
pub fn unsupported_canned(name: &str) -> S3Error {
    invalid_argument(format!("Unsupported value for canned acl '{name}'"))
}

fn invalid_argument(message: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    S3Error::with_message(S3ErrorCode::InvalidArgument, message)
}

fn grantee_from_header(spelled: &str, users: &Users) -> S3Result<Grantee> {
    let (kind, value) = spelled.split_once('=').ok_or_else(|| invalid_argument("A grant is spelled kind=\"who\"."))?;
    let value = value.trim().trim_matches('"');
    match kind.trim().to_ascii_lowercase().as_str() {
        "id" => grantee_by_id(value, users),
        "emailaddress" => grantee_by_email(value, users),
        "uri" => grantee_by_uri(value),
        _ => Err(invalid_argument("A grant names an id, an emailAddress or a uri.")),
    }
}

fn grant_from_xml(grant: &dto::Grant, users: &Users) -> S3Result<Grant> {
    let malformed = || s3_error!(MalformedACLError, "A grant lacks its grantee or its permission.");
    let grantee = grant.grantee.as_ref().ok_or_else(malformed)?;
    let permission = grant.permission.as_ref().ok_or_else(malformed)?;
    let permission = Permission::from_name(permission.as_str()).ok_or_else(malformed)?;
    let grantee = match (&grantee.id, &grantee.email_address, &grantee.uri) {
        (Some(id), _, _) => grantee_by_id(id, users)?,
        (None, Some(email), _) => grantee_by_email(email, users)?,
        (None, None, Some(uri)) => grantee_by_uri(uri)?,
        (None, None, None) => return Err(malformed()),
    };
    Ok(Grant { grantee, permission })
}

fn grantee_by_id(id: &str, users: &Users) -> S3Result<Grantee> {
    match users.by_id(id) {
        Some(user) => Ok(Grantee::User(user.id.clone())),
        None => Err(invalid_argument("Invalid id")),
    }
}

fn grantee_by_email(email: &str, users: &Users) -> S3Result<Grantee> {
    match users.by_email(email) {
        Some(user) => Ok(Grantee::User(user.id.clone())),
        None => Err(s3_error!(UnresolvableGrantByEmailAddress, "There is no account with this email address.")),
    }
}

fn grantee_by_uri(uri: &str) -> S3Result<Grantee> {
    match uri {
        ALL_USERS_URI => Ok(Grantee::AllUsers),
        AUTHENTICATED_USERS_URI => Ok(Grantee::AuthenticatedUsers),
        _ => Err(invalid_argument("Invalid group uri")),
    }
}

fn grantee_to_xml(grantee: &Grantee, users: &Users) -> dto::Grantee {
    let group = |uri: &str| dto::Grantee {
        display_name: None,
        email_address: None,
        id: None,
        type_: dto::Type::from_static(dto::Type::GROUP),
        uri: Some(uri.to_owned()),
    };
    match grantee {
        Grantee::AllUsers => group(ALL_USERS_URI),
        Grantee::AuthenticatedUsers => group(AUTHENTICATED_USERS_URI),
        Grantee::User(id) => dto::Grantee {
            display_name: Some(users.display_name(id)),
            email_address: None,
            id: Some(id.clone()),
            type_: dto::Type::from_static(dto::Type::CANONICAL_USER),
            uri: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::users::User;
    use super::*;

    fn users() -> Users {
        let user = |id: &str| User {
            id: id.into(),
            name: id.to_uppercase(),
            email: Some(format!("{id}@example.com")),
            access_key: format!("{id}-key"),
            secret_key: "secret".into(),
        };
        Users::new(vec![user("alice"), user("bob")])
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (hyper::header::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn canned_lists_decide() {
        let private = Acl::private("alice");
        let public = Acl::canned("public-read", "alice", "alice").unwrap();
        let signed = Acl::canned("authenticated-read", "alice", "alice").unwrap();
        let owned = Acl::canned("bucket-owner-read", "alice", "bob").unwrap();
        assert!(private.allows(Some("alice"), Permission::Write));
        assert!(!private.allows(Some("bob"), Permission::Read));
        assert!(!private.allows(None, Permission::Read));
        assert!(public.allows(None, Permission::Read) && !public.allows(None, Permission::Write));
        assert!(signed.allows(Some("bob"), Permission::Read) && !signed.allows(None, Permission::Read));
        assert!(owned.allows(Some("bob"), Permission::Read) && !owned.allows(Some("bob"), Permission::ReadAcp));
        assert_eq!(Acl::canned("nonsense", "alice", "alice"), None);
        assert_eq!(public.canned_name(), Some("public-read"));
        assert_eq!(signed.canned_name(), None);
    }

    #[test]
    fn an_owner_without_a_grant_keeps_the_acl_only() {
        let given = headers(&[("x-amz-grant-read", "id=\"bob\", emailAddress=\"BOB@example.com\"")]);
        let acl = Acl::from_headers(&given, "alice", "alice", &users(), Profile::Rgw).unwrap().unwrap();
        assert!(acl.allows(Some("bob"), Permission::Read));
        assert!(!acl.allows(Some("alice"), Permission::Read));
        assert!(acl.allows(Some("alice"), Permission::WriteAcp));
    }

    #[test]
    fn bad_headers_are_refused_by_name() {
        for (given, profile, code) in [
            (headers(&[("x-amz-acl", "nonsense")]), Profile::Rgw, S3ErrorCode::InvalidArgument),
            (headers(&[("x-amz-acl", "authenticated-read")]), Profile::B2, S3ErrorCode::InvalidArgument),
            (headers(&[("x-amz-grant-read", "id=\"bob\"")]), Profile::B2, S3ErrorCode::InvalidArgument),
            (headers(&[("x-amz-grant-read", "id=\"carol\"")]), Profile::Rgw, S3ErrorCode::InvalidArgument),
            (headers(&[("x-amz-grant-read", "bob")]), Profile::Rgw, S3ErrorCode::InvalidArgument),
            (
                headers(&[("x-amz-grant-read", "emailAddress=carol@example.com")]),
                Profile::Rgw,
                S3ErrorCode::UnresolvableGrantByEmailAddress,
            ),
            (
                headers(&[("x-amz-grant-read", "id=bob"), ("x-amz-acl", "private")]),
                Profile::Rgw,
                S3ErrorCode::InvalidRequest,
            ),
        ] {
            let error = Acl::from_headers(&given, "alice", "alice", &users(), profile).unwrap_err();
            assert_eq!(error.code(), &code, "{given:?}");
        }
        assert_eq!(Acl::from_headers(&headers(&[]), "alice", "alice", &users(), Profile::B2).unwrap(), None);
    }

    #[test]
    fn documents_round_trip_and_keep_the_owner() {
        let mut acl = Acl::canned("public-read-write", "alice", "alice").unwrap();
        acl.grants.push(Grant { grantee: Grantee::User("bob".into()), permission: Permission::ReadAcp });
        let policy = dto::AccessControlPolicy {
            grants: Some(acl.to_grants(&users())),
            owner: Some(owner_to_xml("alice", &users())),
        };
        assert_eq!(Acl::from_policy(&policy, "alice", &users()).unwrap(), acl);
        assert_eq!(Acl::from_policy(&policy, "bob", &users()).unwrap_err().code(), &S3ErrorCode::AccessDenied);
    }
}
