//! Which store the server plays. Everything in which the profiles differ is asked of [`Profile`], by meaning.

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Profile {
    /// Ceph's gateway: ACLs of objects, usage in the answer to a HEAD of a bucket.
    #[default]
    Rgw,
    /// A store in the manner of Backblaze B2: the bucket's ACL is the only one.
    B2,
}

impl Profile {
    /// Whether an object has an ACL of its own; else the bucket's counts for all that is in it.
    pub fn objects_have_acls(self) -> bool {
        self == Profile::Rgw
    }

    /// Whether objects have tags.
    pub fn has_tags(self) -> bool {
        self == Profile::Rgw
    }

    /// Whether a copy with new metadata keeps the source's tags, as Amazon documents it and Ceph does not.
    pub fn copies_keep_tags(self) -> bool {
        self != Profile::Rgw
    }

    /// Whether the server copies what is encrypted, or is to be: Ceph (16.2) does not.
    pub fn copies_encrypted(self) -> bool {
        self != Profile::Rgw
    }

    /// Whether a HEAD of a bucket tells how full it is.
    pub fn tells_usage(self) -> bool {
        self == Profile::Rgw
    }

    /// Whether creating one's own bucket once more is a success (Ceph) or a conflict.
    pub fn recreates_own_bucket(self) -> bool {
        self == Profile::Rgw
    }

    /// The canned ACLs that it knows.
    pub fn canned_acls(self) -> &'static [&'static str] {
        match self {
            Profile::Rgw => &[
                "private",
                "public-read",
                "public-read-write",
                "authenticated-read",
                "bucket-owner-read",
                "bucket-owner-full-control",
            ],
            Profile::B2 => &["private", "public-read"],
        }
    }

    /// The id of the `number`th request, in the store's own form.
    pub fn request_id(self, number: u64, seconds: u64) -> String {
        match self {
            Profile::Rgw => format!("tx{number:021x}-{seconds:010x}-1-default"),
            Profile::B2 => format!("{number:016x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_have_the_stores_form() {
        assert_eq!(Profile::Rgw.request_id(10, 0x63), "tx00000000000000000000a-0000000063-1-default");
        assert_eq!(Profile::B2.request_id(10, 0x63), "000000000000000a");
    }
}
