//! ACLs of buckets and objects, canned by header or in full by XML.

use bytes::Bytes;
use reqwest::Method;

use super::client::Client;
use super::request::Request;
use crate::format::xml;
use crate::store::{Acl, AclTarget, Kind, NewAcl, Result};

pub(super) async fn get(client: &Client, target: &AclTarget) -> Result<Acl> {
    let request = Request::target("GetAcl", Method::GET, target).query("acl", "");
    let (_, document) = client.send_for_text(request.clone()).await?;
    xml::parse_acl(&document).map_err(|why| request.error(Kind::Malformed, why.to_string()))
}

pub(super) async fn put(client: &Client, target: &AclTarget, new: &NewAcl) -> Result<()> {
    let request = Request::target("PutAcl", Method::PUT, target).query("acl", "");
    let request = match new {
        NewAcl::Canned(name) => request.header("x-amz-acl", name)?,
        NewAcl::Full(acl) => request.header("content-type", "application/xml")?.body(Bytes::from(xml::build_acl(acl))),
    };
    client.send_for_text(request).await.map(drop)
}
