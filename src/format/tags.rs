//! Tags of objects: the lines of `user.s3.tags`, and how they ride on a write.
//!
//! A line is `KEY=VALUE`. In a key `=` is spelled `%3D`; `%` and line breaks are escaped alike in both. Source: Amazon S3
//! user guide, "Categorizing your storage using tags".

use std::fmt;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::url::{decode, encode_query};

/// Tags of one object at most.
const TAGS_MAX: usize = 10;
/// Characters of a key, and of a value, at most.
const KEY_LETTERS_MAX: usize = 128;
const VALUE_LETTERS_MAX: usize = 256;

const IN_VALUE: &AsciiSet = &CONTROLS.add(b'%');
const IN_KEY: &AsciiSet = &IN_VALUE.add(b'=');

/// A key and its value.
pub type Tag = (String, String);

/// What is known of an object's tags, or what a write gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tags {
    /// There are none.
    #[default]
    None,
    /// There are some, which take a request of their own to read. A write gives none then.
    Untold,
    /// These.
    Are(Vec<Tag>),
}

impl Tags {
    /// What an answer about the object tells of these.
    pub fn seen(&self) -> Tags {
        match self {
            Tags::Are(tags) if tags.is_empty() => Tags::None,
            Tags::Are(_) | Tags::Untold => Tags::Untold,
            Tags::None => Tags::None,
        }
    }

    /// These, where they are told and there are any.
    pub fn told(&self) -> Option<&[Tag]> {
        match self {
            Tags::Are(tags) if !tags.is_empty() => Some(tags),
            _ => None,
        }
    }
}

/// Why text is no list of tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadTags(String);

impl fmt::Display for BadTags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}; valid are {TAGS_MAX} lines KEY=VALUE at most, with different keys of up to {KEY_LETTERS_MAX} characters \
             and values of up to {VALUE_LETTERS_MAX}",
            self.0
        )
    }
}

impl std::error::Error for BadTags {}

/// Reads tags, one a line; empty lines are ignored.
pub fn parse_lines(text: &str) -> Result<Vec<Tag>, BadTags> {
    let mut tags: Vec<Tag> = Vec::new();
    for line in text.split('\n').filter(|line| !line.is_empty()) {
        let tag = line.split_once('=').and_then(|(key, value)| Some((decode(key)?, decode(value)?)));
        let is_good = |(key, value): &Tag| {
            (1..=KEY_LETTERS_MAX).contains(&key.chars().count()) && value.chars().count() <= VALUE_LETTERS_MAX
        };
        let tag = tag.filter(is_good).ok_or_else(|| BadTags(format!("{line:?} is no tag")))?;
        if tags.iter().any(|(key, _)| *key == tag.0) {
            return Err(BadTags(format!("{:?} stands there twice", tag.0)));
        }
        tags.push(tag);
    }
    if tags.len() > TAGS_MAX { Err(BadTags(format!("{} tags are too many", tags.len()))) } else { Ok(tags) }
}

/// The tags, one a line: the value of `user.s3.tags`.
pub fn lines(tags: &[Tag]) -> String {
    let line =
        |(key, value): &Tag| format!("{}={}", utf8_percent_encode(key, IN_KEY), utf8_percent_encode(value, IN_VALUE));
    tags.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The tags as `x-amz-tagging` spells them.
pub fn header(tags: &[Tag]) -> String {
    let pair = |(key, value): &Tag| format!("{}={}", encode_query(key), encode_query(value));
    tags.iter().map(pair).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tag(key: &str, value: &str) -> Tag {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn lines_are_tags_and_what_is_none_is_named() {
        let tags = parse_lines("a=1\n\nb c=x=y\ne=\nk%3Dv=100%").unwrap();
        assert_eq!(tags, [tag("a", "1"), tag("b c", "x=y"), tag("e", ""), tag("k=v", "100%")]);
        assert_eq!(header(&tags), "a=1&b%20c=x%3Dy&e=&k%3Dv=100%25");
        for bad in ["a", "=1", "a=1\na=2", &format!("{}=1", "k".repeat(129)), &format!("a={}", "v".repeat(257))] {
            assert!(parse_lines(bad).is_err(), "{bad}");
        }
        let many: String = (0..11).map(|number| format!("k{number}=\n")).collect();
        assert!(parse_lines(&many).unwrap_err().to_string().contains("11 tags are too many; valid are 10 lines"));
        assert_eq!(parse_lines(""), Ok(vec![]));
    }

    #[test]
    fn an_answer_tells_only_whether_there_are_any() {
        assert_eq!(Tags::Are(vec![tag("a", "")]).seen(), Tags::Untold);
        assert_eq!(Tags::Are(vec![]).seen(), Tags::None);
        assert_eq!((Tags::Are(vec![]).told(), Tags::Untold.told()), (None, None));
    }

    proptest! {
        #[test]
        fn lines_round_trip(pairs in proptest::collection::btree_map("(?s).{1,20}", "(?s).{0,20}", 0..10)) {
            let tags: Vec<Tag> = pairs.into_iter().collect();
            prop_assert_eq!(parse_lines(&lines(&tags)), Ok(tags));
        }

        #[test]
        fn no_text_panics(text in "(?s).{0,60}") {
            let _ = parse_lines(&text);
        }
    }
}
