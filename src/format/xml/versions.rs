//! Reads listings of versions, of uploads, and of their parts.

use std::time::SystemTime;

use crate::format::url;

use super::{BadDocument, Node, expect_root, parse_number, parse_time, replace};

/// A page of `ListObjectVersions`, keys decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionsDocument {
    /// Versions and delete markers, in the store's order.
    pub versions: Vec<VersionEntry>,
    /// The folded prefixes.
    pub prefixes: Vec<String>,
    /// Where the next page begins: behind a key, and a version of it.
    pub next: Option<(String, Option<String>)>,
}

/// A version in a [`VersionsDocument`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionEntry {
    /// The key.
    pub key: String,
    /// The version's id.
    pub version_id: String,
    /// Whether it is the present one.
    pub is_latest: bool,
    /// Whether it is a delete marker.
    pub is_delete_marker: bool,
    /// Length in bytes.
    pub size_bytes: u64,
    /// The entity tag as spelled.
    pub etag: String,
    /// When it was stored, to the second.
    pub modified: SystemTime,
}

/// A page of `ListMultipartUploads`, keys decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadsDocument {
    /// Keys and ids.
    pub uploads: Vec<(String, String)>,
    /// Where the next page begins: behind a key, and an upload of it.
    pub next: Option<(String, Option<String>)>,
}

/// A page of `ListParts`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartsDocument {
    /// The parts, in the store's order.
    pub parts: Vec<PartEntry>,
    /// The number behind which the next page begins.
    pub next: Option<u32>,
}

/// A part in a [`PartsDocument`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartEntry {
    /// Its number.
    pub number: u32,
    /// The entity tag as spelled.
    pub etag: String,
    /// Length in bytes.
    pub size_bytes: u64,
}

/// What pages of versions and of uploads tell of themselves.
#[derive(Default)]
struct Paging {
    encoded: bool,
    truncated: bool,
    next_key: Option<String>,
    next_id: Option<String>,
}

impl Paging {
    fn note(&mut self, path: &str, text: &str) {
        match path {
            "EncodingType" => self.encoded = text.eq_ignore_ascii_case("url"),
            "IsTruncated" => self.truncated = text.trim() == "true",
            "NextKeyMarker" => self.next_key = Some(text.into()),
            "NextVersionIdMarker" | "NextUploadIdMarker" if !text.is_empty() => self.next_id = Some(text.into()),
            _ => {}
        }
    }

    fn next(self) -> Result<Option<(String, Option<String>)>, BadDocument> {
        if !self.truncated {
            return Ok(None);
        }
        let known = self.next_key.filter(|key| !key.is_empty());
        let mut key = known.ok_or_else(|| BadDocument("the listing goes on, and does not tell where".into()))?;
        if self.encoded && !replace(&mut key, url::decode_listed) {
            return Err(BadDocument("the listing goes on behind a key that is not UTF-8".into()));
        }
        Ok(Some((key, self.next_id)))
    }
}

/// Reads one page of versions. A key that is not UTF-8 is left out, since no request can name it.
pub fn parse_versions(document: &str) -> Result<VersionsDocument, BadDocument> {
    let (mut page, mut paging) = (VersionsDocument::default(), Paging::default());
    expect_root("ListVersionsResult", document, |node| {
        match node {
            Node::Open { path: path @ ("Version" | "DeleteMarker") } => page.versions.push(VersionEntry {
                key: String::new(),
                version_id: "null".to_owned(),
                is_latest: false,
                is_delete_marker: path == "DeleteMarker",
                size_bytes: 0,
                etag: String::new(),
                modified: SystemTime::UNIX_EPOCH,
            }),
            Node::Open { .. } => {}
            Node::Close { path: "CommonPrefixes/Prefix", text } => page.prefixes.push(text.into()),
            Node::Close { path, text } => {
                let field = path.strip_prefix("Version/").or_else(|| path.strip_prefix("DeleteMarker/"));
                match (field, page.versions.last_mut()) {
                    (Some("Key"), Some(entry)) => entry.key = text.into(),
                    (Some("VersionId"), Some(entry)) if !text.is_empty() => entry.version_id = text.into(),
                    (Some("IsLatest"), Some(entry)) => entry.is_latest = text.trim() == "true",
                    (Some("Size"), Some(entry)) => entry.size_bytes = parse_number(text)?,
                    (Some("ETag"), Some(entry)) => entry.etag = text.into(),
                    (Some("LastModified"), Some(entry)) => {
                        let time = parse_time(text);
                        entry.modified = time.ok_or_else(|| BadDocument("a LastModified is no time of day".into()))?;
                    }
                    _ => paging.note(path, text),
                }
            }
        }
        Ok(())
    })?;
    if paging.encoded {
        page.versions.retain_mut(|entry| replace(&mut entry.key, url::decode_listed));
        page.prefixes.retain_mut(|prefix| replace(prefix, url::decode_listed));
    }
    page.next = paging.next()?;
    Ok(page)
}

/// Reads one page of uploads. A key that is not UTF-8 is left out, since no request can name it.
pub fn parse_uploads(document: &str) -> Result<UploadsDocument, BadDocument> {
    let (mut page, mut paging) = (UploadsDocument::default(), Paging::default());
    expect_root("ListMultipartUploadsResult", document, |node| {
        match node {
            Node::Open { path: "Upload" } => page.uploads.push(Default::default()),
            Node::Open { .. } => {}
            Node::Close { path, text } => match (path, page.uploads.last_mut()) {
                ("Upload/Key", Some(upload)) => upload.0 = text.into(),
                ("Upload/UploadId", Some(upload)) => upload.1 = text.into(),
                _ => paging.note(path, text),
            },
        }
        Ok(())
    })?;
    if paging.encoded {
        page.uploads.retain_mut(|upload| replace(&mut upload.0, url::decode_listed));
    }
    page.next = paging.next()?;
    Ok(page)
}

/// Reads one page of parts. It goes on behind the last of them, whatever the store says of where.
pub fn parse_parts(document: &str) -> Result<PartsDocument, BadDocument> {
    let (mut page, mut truncated) = (PartsDocument::default(), false);
    expect_root("ListPartsResult", document, |node| {
        match node {
            Node::Open { path: "Part" } => page.parts.push(PartEntry::default()),
            Node::Open { .. } => {}
            Node::Close { path, text } => match (path, page.parts.last_mut()) {
                ("Part/PartNumber", Some(part)) => {
                    let number = u32::try_from(parse_number(text)?).ok();
                    part.number = number.ok_or_else(|| BadDocument("a part has no number".into()))?;
                }
                ("Part/ETag", Some(part)) => part.etag = text.into(),
                ("Part/Size", Some(part)) => part.size_bytes = parse_number(text)?,
                ("IsTruncated", _) => truncated = text.trim() == "true",
                _ => {}
            },
        }
        Ok(())
    })?;
    page.next = page.parts.last().map(|last| last.number).filter(|_| truncated);
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Ceph RGW 16.2 spells it.
    const VERSIONS: &str = "<?xml version=\"1.0\"?><ListVersionsResult><Name>b</Name><EncodingType>url</EncodingType>\
        <IsTruncated>true</IsTruncated><NextKeyMarker>a%20b</NextKeyMarker><NextVersionIdMarker>v1</NextVersionIdMarker>\
        <Version><Key>a%20b</Key><VersionId>v2</VersionId><IsLatest>false</IsLatest>\
        <LastModified>2026-11-24T04:00:00.123Z</LastModified><ETag>&quot;e&quot;</ETag><Size>3</Size></Version>\
        <DeleteMarker><Key>a%20b</Key><VersionId>v3</VersionId><IsLatest>true</IsLatest>\
        <LastModified>2026-11-24T05:00:00.123Z</LastModified></DeleteMarker>\
        <CommonPrefixes><Prefix>d/</Prefix></CommonPrefixes></ListVersionsResult>";

    #[test]
    fn versions_are_read_in_order() {
        let page = parse_versions(VERSIONS).unwrap();
        let read =
            page.versions.iter().map(|v| (&*v.key, &*v.version_id, v.is_latest, v.is_delete_marker, v.size_bytes));
        let read: Vec<_> = read.collect();
        assert_eq!(read, [("a b", "v2", false, false, 3), ("a b", "v3", true, true, 0)]);
        assert_eq!((page.prefixes, page.next), (vec!["d/".to_owned()], Some(("a b".into(), Some("v1".into())))));
        assert!(
            parse_versions(&VERSIONS.replace("NextKeyMarker", "Else")).is_err(),
            "it goes on, and nobody knows where"
        );
        assert!(parse_versions("<ListBucketResult/>").is_err());
    }

    #[test]
    fn uploads_are_read() {
        let document = "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated><NextKeyMarker>x</NextKeyMarker>\
            <Upload><Key>a</Key><UploadId>1</UploadId></Upload><Upload><Key>a</Key><UploadId>2</UploadId></Upload>\
            </ListMultipartUploadsResult>";
        let page = parse_uploads(document).unwrap();
        assert_eq!(page.uploads, [("a".into(), "1".into()), ("a".into(), "2".into())]);
        assert_eq!(page.next, None);
    }

    #[test]
    fn parts_are_read() {
        let document = "<ListPartsResult><Key>a</Key><MaxParts>2</MaxParts><IsTruncated>true</IsTruncated>\
            <Part><PartNumber>1</PartNumber><ETag>&quot;e1&quot;</ETag><Size>5</Size></Part>\
            <Part><PartNumber>7</PartNumber><ETag>e7</ETag><Size>6</Size></Part></ListPartsResult>";
        let page = parse_parts(document).unwrap();
        let read: Vec<_> = page.parts.iter().map(|part| (part.number, part.etag.as_str(), part.size_bytes)).collect();
        assert_eq!((read, page.next), (vec![(1, "\"e1\"", 5), (7, "e7", 6)], Some(7)));
        assert_eq!(parse_parts(&document.replace("true", "false")).unwrap().next, None);
        assert!(parse_parts(&document.replace(">7<", "><")).is_err(), "a part without a number is none");
    }
}
