//! Pages of a listing, in S3's order: the bytes of UTF-8, folded prefixes among the keys. Pure.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::store::{ListPage, ListRequest, ListedObject};

use super::state::Object;

/// What a token begins with when the page before ended with a key.
const AFTER_KEY: char = 'k';

/// What a token begins with when the page before ended with a folded prefix.
const AFTER_PREFIX: char = 'p';

/// One page of at most `keys_max` entries; `None` when the continuation is not one of ours.
pub(super) fn page(objects: &BTreeMap<String, Object>, request: &ListRequest, keys_max: usize) -> Option<ListPage> {
    let entries_max = request.keys_max.map_or(keys_max, |asked| keys_max.min(asked as usize));
    let mut page = ListPage::default();
    let mut from = begin(request)?;
    let mut token = None;
    // Each entry is looked up anew: behind a folded prefix the walk jumps over all that it folds.
    while let Some((key, object)) =
        objects.range::<str, _>((from.as_ref().map(String::as_str), Bound::Unbounded)).next()
    {
        let Some(rest) = key.strip_prefix(request.prefix.as_str()) else { break };
        if page.objects.len() + page.prefixes.len() >= entries_max {
            page.continuation = token;
            break;
        }
        match rest.find('/').filter(|_| request.delimited) {
            Some(at) => {
                let folded = &key[..request.prefix.len() + at + 1];
                page.prefixes.push(folded.to_owned());
                token = Some(spell(AFTER_PREFIX, folded));
                from = Bound::Included(behind(folded));
            }
            None => {
                page.objects.push(listed(key, object));
                token = Some(spell(AFTER_KEY, key));
                from = Bound::Excluded(key.clone());
            }
        }
    }
    Some(page)
}

/// Where the page begins: never before the prefix.
fn begin(request: &ListRequest) -> Option<Bound<String>> {
    let after = match (&request.continuation, &request.start_after) {
        (Some(token), _) => {
            let text = String::from_utf8(hex::decode(token).ok()?).ok()?;
            match text.strip_prefix(AFTER_PREFIX) {
                Some(folded) if folded.ends_with('/') => Bound::Included(behind(folded)),
                _ => Bound::Excluded(text.strip_prefix(AFTER_KEY)?.to_owned()),
            }
        }
        (None, Some(start_after)) => Bound::Excluded(start_after.clone()),
        (None, None) => return Some(Bound::Included(request.prefix.clone())),
    };
    let before_prefix = match &after {
        Bound::Included(at) | Bound::Excluded(at) => *at < request.prefix,
        Bound::Unbounded => true,
    };
    Some(if before_prefix { Bound::Included(request.prefix.clone()) } else { after })
}

/// The first name that sorts behind everything below a folded prefix: `0` is the byte after `/`.
fn behind(folded: &str) -> String {
    format!("{}0", folded.strip_suffix('/').unwrap_or(folded))
}

/// A token that nobody mistakes for a key.
fn spell(kind: char, name: &str) -> String {
    hex::encode(format!("{kind}{name}"))
}

fn listed(key: &str, object: &Object) -> ListedObject {
    ListedObject {
        key: key.to_owned(),
        size_bytes: object.bytes.len() as u64,
        etag: object.etag.clone(),
        modified: object.modified,
        storage_class: Some(object.headers.storage_class.clone().unwrap_or_else(|| "STANDARD".to_owned())),
    }
}
