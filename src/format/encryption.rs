//! How a store encrypts an object, as text: `AES256` with keys of its own (SSE-S3), `aws:kms` with those of a key management
//! service, `aws:kms KEYID` with this one of them. Pure.
//!
//! It refuses keys that go over the wire (SSE-C): whoever holds one would have to send it with every read.

/// The methods that S3 knows.
const METHODS: [&str; 3] = ["AES256", "aws:kms", "aws:kms:dsse"];

/// What is valid, in words.
pub const VALID: &str = "AES256, aws:kms, or aws:kms and the id of a key";

/// What two headers of an answer tell.
pub fn join(method: Option<String>, key_id: Option<String>) -> Option<String> {
    match (method, key_id) {
        (Some(method), Some(key_id)) if !key_id.is_empty() => Some(format!("{method} {key_id}")),
        (method, _) => method,
    }
}

/// The method and the id of the key, if one is named.
pub fn split(text: &str) -> (&str, Option<&str>) {
    text.split_once(' ').map_or((text, None), |(method, key_id)| (method, Some(key_id)))
}

/// Whether a request can ask for this.
pub fn is_valid(text: &str) -> bool {
    let (method, key_id) = split(text);
    let is_id = |id: &str| !id.is_empty() && id.len() <= 2048 && id.bytes().all(|byte| byte.is_ascii_graphic());
    METHODS.contains(&method) && key_id.is_none_or(|id| method != "AES256" && is_id(id))
}

/// Whether the store makes up the entity tags of such objects: they are no MD5, and a copy has another.
pub fn makes_up_tags(text: Option<&str>) -> bool {
    text.is_some_and(|text| text.starts_with("aws:kms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_can_be_asked_for() {
        for (method, key_id, text) in
            [("AES256", None, "AES256"), ("aws:kms", None, "aws:kms"), ("aws:kms", Some("key/1"), "aws:kms key/1")]
        {
            assert_eq!(join(Some(method.into()), key_id.map(str::to_owned)).as_deref(), Some(text));
            assert_eq!(split(text), (method, key_id));
            assert!(is_valid(text), "{text}");
        }
        assert_eq!(join(None, Some("key".into())), None);
    }

    #[test]
    fn what_no_store_knows_is_told_apart() {
        for text in ["", "aes256", "AES256 key", "aws:kms ", "aws:kms a b", "aws:kms é", "aws:kms\n"] {
            assert!(!is_valid(text), "{text:?}");
        }
    }

    #[test]
    fn tags_are_md5_unless_a_service_has_the_keys() {
        assert!(makes_up_tags(Some("aws:kms")) && makes_up_tags(Some("aws:kms key")));
        assert!(!makes_up_tags(Some("AES256")) && !makes_up_tags(None));
    }
}
