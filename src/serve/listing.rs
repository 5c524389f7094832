//! Pages of keys: prefix, delimiter, where to go on. Keys are sorted by the bytes of their UTF-8, as S3 sorts.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::disk::Object;

/// Entries of a page at most; S3's limit.
pub const PAGE_ENTRIES_MAX: usize = 1000;

/// What `encoding-type=url` leaves as it is.
const UNESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// What of a bucket is asked for.
pub struct Query<'a> {
    /// Only keys that begin so.
    pub prefix: &'a str,
    /// Keys are folded after the first of these behind the prefix; empty for none.
    pub delimiter: &'a str,
    /// Only what sorts after this key or folded prefix.
    pub after: &'a str,
    /// Entries at most.
    pub entries_max: usize,
}

/// A page.
#[derive(Debug, Default)]
pub struct Page {
    /// Objects in order.
    pub objects: Vec<Arc<Object>>,
    /// Folded prefixes in order.
    pub prefixes: Vec<String>,
    /// The last entry, when there is more behind it.
    pub next: Option<String>,
}

/// Looks up a page.
pub fn page(objects: &BTreeMap<String, Arc<Object>>, query: &Query<'_>) -> Page {
    let mut page = Page::default();
    if query.entries_max == 0 {
        return page;
    }
    let mut last = String::new();
    let mut from = if query.after < query.prefix {
        Bound::Included(query.prefix.to_owned())
    } else {
        Bound::Excluded(query.after.to_owned())
    };
    loop {
        let mut range = objects.range::<String, _>((from.clone(), Bound::Unbounded));
        let Some((key, object)) = range.next() else { return page };
        let Some(rest) = key.strip_prefix(query.prefix) else { return page };
        let folded = match rest.find(query.delimiter) {
            Some(at) if !query.delimiter.is_empty() => Some(&key[..query.prefix.len() + at + query.delimiter.len()]),
            _ => None,
        };
        // A page that ended with a folded prefix goes on behind all of its keys.
        let seen = folded == Some(query.after);
        if !seen && page.objects.len() + page.prefixes.len() == query.entries_max {
            page.next = Some(last);
            return page;
        }
        from = match folded {
            Some(folded) => past(folded),
            None => Bound::Excluded(key.clone()),
        };
        if seen {
            continue;
        }
        last = folded.unwrap_or(key).to_owned();
        match folded {
            Some(folded) => page.prefixes.push(folded.to_owned()),
            None => page.objects.push(object.clone()),
        }
    }
}

/// The first place behind all keys that begin so. A key that holds the last character of Unicode right behind the
/// prefix would be behind it too; there is none in practice, and it would only be listed as a prefix once more.
fn past(prefix: &str) -> Bound<String> {
    Bound::Excluded(format!("{prefix}{}", char::MAX))
}

/// A key or prefix as the answer spells it.
pub fn spell(name: &str, url: bool) -> String {
    if url { utf8_percent_encode(name, UNESCAPED).to_string() } else { name.to_owned() }
}
