//! The documents that requests carry. Writing refuses nothing: what XML 1.0 cannot carry the caller must not hand in.

use quick_xml::escape::escape;

use crate::format::acl::{Acl, Grantee};

use super::{ALL_USERS, AUTHENTICATED_USERS, LOG_DELIVERY, NAMESPACE};

/// Writes an ACL.
pub fn build_acl(acl: &Acl) -> String {
    let mut xml = format!("<AccessControlPolicy xmlns=\"{NAMESPACE}\"><Owner><ID>{}</ID>", escape(&acl.owner_id));
    if let Some(name) = &acl.owner_name {
        xml.push_str(&format!("<DisplayName>{}</DisplayName>", escape(name)));
    }
    xml.push_str("</Owner><AccessControlList>");
    for grant in &acl.grants {
        let (kind, field, value) = match &grant.grantee {
            Grantee::Id(id) => ("CanonicalUser", "ID", id.as_str()),
            Grantee::Email(address) => ("AmazonCustomerByEmail", "EmailAddress", address.as_str()),
            Grantee::AllUsers => ("Group", "URI", ALL_USERS),
            Grantee::AuthenticatedUsers => ("Group", "URI", AUTHENTICATED_USERS),
            Grantee::LogDelivery => ("Group", "URI", LOG_DELIVERY),
        };
        xml.push_str(&format!(
            "<Grant><Grantee xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:type=\"{kind}\">\
             <{field}>{}</{field}></Grantee><Permission>{}</Permission></Grant>",
            escape(value),
            grant.permission.name(),
        ));
    }
    xml.push_str("</AccessControlList></AccessControlPolicy>");
    xml
}

/// Writes a `DeleteObjects` request of keys, or of versions of them, that answers failures only. Every key must pass
/// [`can_carry`].
pub fn build_delete<'a>(names: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> String {
    let mut xml = format!("<Delete xmlns=\"{NAMESPACE}\"><Quiet>true</Quiet>");
    for (key, version_id) in names {
        xml.push_str(&format!("<Object><Key>{}</Key>", escape(key)));
        if let Some(version_id) = version_id {
            xml.push_str(&format!("<VersionId>{}</VersionId>", escape(version_id)));
        }
        xml.push_str("</Object>");
    }
    xml.push_str("</Delete>");
    xml
}

/// Writes the parts of a `CompleteMultipartUpload`: numbers and entity tags without quotes.
pub fn build_complete<'a>(parts: impl Iterator<Item = (u32, &'a str)>) -> String {
    let mut xml = format!("<CompleteMultipartUpload xmlns=\"{NAMESPACE}\">");
    for (number, etag) in parts {
        let etag = escape(etag);
        xml.push_str(&format!("<Part><PartNumber>{number}</PartNumber><ETag>&quot;{etag}&quot;</ETag></Part>"));
    }
    xml.push_str("</CompleteMultipartUpload>");
    xml
}

/// Writes the region of a `CreateBucket`.
pub fn build_location(region: &str) -> String {
    format!(
        "<CreateBucketConfiguration xmlns=\"{NAMESPACE}\"><LocationConstraint>{}</LocationConstraint>\
         </CreateBucketConfiguration>",
        escape(region)
    )
}

/// Writes a `RestoreObject` request.
pub fn build_restore(days: u32) -> String {
    format!("<RestoreRequest xmlns=\"{NAMESPACE}\"><Days>{days}</Days></RestoreRequest>")
}

/// Whether XML 1.0 carries the text unchanged from writer to reader: no controls but tab and line feed, no carriage
/// return (readers turn it into a line feed), no noncharacter.
pub fn can_carry(text: &str) -> bool {
    text.chars().all(|c| match c {
        '\t' | '\n' => true,
        '\u{fffe}' | '\u{ffff}' => false,
        c => c >= ' ',
    })
}
