//! Access control lists: the canned names, the lines of `user.s3.grants`, and what of them fits in request headers.
//!
//! The XML form is in [`crate::format::xml`]. Sources: Amazon S3 API reference, "Access control list (ACL) overview".

/// The ACL of a bucket or object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    /// Who owns it: the canonical id.
    pub owner_id: String,
    /// The owner's display name, where the store tells.
    pub owner_name: Option<String>,
    /// Who may do what, in the store's order.
    pub grants: Vec<Grant>,
}

/// One line of an ACL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who.
    pub grantee: Grantee,
    /// May do what.
    pub permission: Permission,
}

/// Who a grant is for.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
