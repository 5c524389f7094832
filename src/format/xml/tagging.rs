//! The document of an object's tags.

use quick_xml::escape::escape;

use super::{BadDocument, NAMESPACE, Node, expect_root};
use crate::format::tags::Tag;

/// Reads the tags of an object.
pub fn parse_tagging(document: &str) -> Result<Vec<Tag>, BadDocument> {
    let mut tags: Vec<Tag> = Vec::new();
    expect_root("Tagging", document, |node| {
        match (node, tags.last_mut()) {
            (Node::Open { path: "TagSet/Tag" }, _) => tags.push(Tag::default()),
            (Node::Close { path: "TagSet/Tag/Key", text }, Some(tag)) => tag.0 = text.into(),
            (Node::Close { path: "TagSet/Tag/Value", text }, Some(tag)) => tag.1 = text.into(),
            _ => {}
        }
        Ok(())
    })?;
    Ok(tags)
}

/// Writes the tags of an object.
pub fn build_tagging(tags: &[Tag]) -> String {
    let tag = |(key, value): &Tag| format!("<Tag><Key>{}</Key><Value>{}</Value></Tag>", escape(key), escape(value));
    let tags: String = tags.iter().map(tag).collect();
    format!("<Tagging xmlns=\"{NAMESPACE}\"><TagSet>{tags}</TagSet></Tagging>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_round_trip() {
        let tags = vec![("a<b".to_owned(), "x & y".to_owned()), ("é \"".to_owned(), String::new())];
        assert_eq!(parse_tagging(&build_tagging(&tags)).unwrap(), tags);
        assert_eq!(parse_tagging("<Tagging><TagSet/></Tagging>").unwrap(), []);
        assert!(parse_tagging("<Error/>").is_err());
    }
}
