//! Extended attributes in an object's metadata: one name each, as geesefs and goofys keep them, or all in one, as s3fs
//! does. Both are read; a change goes where the attribute lies already, so that whoever wrote it sees the change.
//!
//! Names here are without `user.`. What is not in that namespace (`security.…`) is kept, and never shown.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;

use super::header::{LINK_TARGET, decode_name, decode_value, encode_name, encode_value, is_posix_name};

/// The metadata name under which s3fs keeps all attributes: escaped JSON of names to values in base64.
const BUNDLE: &str = "xattr";

/// The metadata name of the ACL that a directory's marker gives to what is made below it.
pub const DEFAULT_ACL: &str = "dreamfs-default-acl";

/// Whether no attribute lies under this metadata name.
fn is_hidden(name: &str) -> bool {
    is_posix_name(name) || matches!(name, BUNDLE | LINK_TARGET | DEFAULT_ACL)
}

/// s3fs's attributes, as spelled; `None` where there are none, or where they are not what s3fs writes.
fn bundle(metadata: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    let text = percent_decode_str(metadata.get(BUNDLE)?).decode_utf8().ok()?;
    serde_json::from_str(&text).ok()
}

/// Whether an attribute can have this name.
pub fn is_allowed(name: &str) -> bool {
    !is_hidden(&encode_name(name))
}

/// The names of all attributes.
pub fn names(metadata: &BTreeMap<String, String>) -> Vec<String> {
    let own = metadata.keys().filter(|name| !is_hidden(name)).filter_map(|name| decode_name(name));
    let mut names: Vec<String> = own.collect();
    let bundled = bundle(metadata).unwrap_or_default().into_keys();
    names.extend(bundled.filter_map(|name| name.strip_prefix("user.").map(str::to_owned)));
    names.sort();
    names.dedup();
    names
}

/// The value of an attribute.
pub fn get(metadata: &BTreeMap<String, String>, name: &str) -> Option<Vec<u8>> {
    let own = encode_name(name);
    if is_hidden(&own) {
        return None;
    }
    let bundled = || STANDARD.decode(bundle(metadata)?.get(&format!("user.{name}"))?).ok();
    metadata.get(&own).map(|value| decode_value(value)).or_else(bundled)
}

/// Sets an attribute.
pub fn set(metadata: &mut BTreeMap<String, String>, name: &str, value: &[u8]) {
    let bundled = format!("user.{name}");
    match bundle(metadata) {
        Some(mut bundle) if bundle.contains_key(&bundled) => {
            bundle.insert(bundled, STANDARD.encode(value));
            metadata.remove(&encode_name(name));
            put_bundle(metadata, &bundle);
        }
        _ => drop(metadata.insert(encode_name(name), encode_value(value))),
    }
}

/// Removes an attribute; answers whether it was there.
pub fn remove(metadata: &mut BTreeMap<String, String>, name: &str) -> bool {
    let own = metadata.remove(&encode_name(name)).is_some();
    let Some(mut bundle) = bundle(metadata) else { return own };
    let bundled = bundle.remove(&format!("user.{name}")).is_some();
    if bundled {
        put_bundle(metadata, &bundle);
    }
    own || bundled
}

fn put_bundle(metadata: &mut BTreeMap<String, String>, bundle: &BTreeMap<String, String>) {
    if bundle.is_empty() {
        metadata.remove(BUNDLE);
        return;
    }
    let json = serde_json::to_string(bundle).expect("text to text is JSON");
    let escaped = percent_encoding::utf8_percent_encode(&json, percent_encoding::NON_ALPHANUMERIC);
    metadata.insert(BUNDLE.to_owned(), escaped.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As s3fs 1.90 writes it.
    const RECORDED: &str = "%7B%22user.Colour%22%3A%22Ymx1ZSDDpA%3D%3D%22%2C%22security.x%22%3A%22AP8%3D%22%7D";

    fn recorded() -> BTreeMap<String, String> {
        [("xattr".to_owned(), RECORDED.to_owned()), ("mode".to_owned(), "33188".to_owned())].into()
    }

    #[test]
    fn what_s3fs_bundles_is_read_and_changed_in_place() {
        let mut metadata = recorded();
        assert_eq!(names(&metadata), ["Colour"]);
        assert_eq!(get(&metadata, "Colour").as_deref(), Some("blue ä".as_bytes()));
        set(&mut metadata, "Colour", b"red");
        set(&mut metadata, "shape", b"round");
        assert_eq!(names(&metadata), ["Colour", "shape"]);
        assert_eq!(get(&metadata, "Colour").as_deref(), Some(&b"red"[..]));
        assert_eq!(metadata.get("shape").map(String::as_str), Some("round"), "a new one lies by itself");
        assert!(remove(&mut metadata, "Colour") && !remove(&mut metadata, "Colour"));
        assert!(metadata.contains_key("xattr"), "what is not ours to show is kept");
    }

    #[test]
    fn what_is_no_bundle_is_no_attribute_and_stays() {
        for value in ["", "%7B", "%FF", "[]", "{\"user.a\":1}"] {
            let metadata: BTreeMap<_, _> = [("xattr".to_owned(), value.to_owned())].into();
            assert_eq!((names(&metadata), get(&metadata, "xattr")), (Vec::new(), None), "{value}");
        }
        let bad = [("xattr".to_owned(), "{\"user.a\":\"?\"}".to_owned())].into();
        assert_eq!(get(&bad, "a"), None);
        assert!(!is_allowed("xattr") && !is_allowed("mode") && is_allowed("colour"));
    }

    proptest! {
        #[test]
        fn attributes_round_trip_through_both(name in "[^\0]{1,20}", value in prop::collection::vec(any::<u8>(), 0..40), bundled: bool) {
            prop_assume!(is_allowed(&name));
            let mut metadata = BTreeMap::new();
            if bundled {
                put_bundle(&mut metadata, &[(format!("user.{name}"), String::new())].into());
            }
            set(&mut metadata, &name, &value);
            prop_assert_eq!(metadata.contains_key(BUNDLE), bundled);
            prop_assert_eq!(names(&metadata), vec![name.clone()]);
            prop_assert_eq!(get(&metadata, &name), Some(value));
            prop_assert!(remove(&mut metadata, &name) && metadata.is_empty());
        }
    }
}
