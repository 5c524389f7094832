//! Multipart uploads of the store in memory (S3 user guide, "Multipart upload overview" and its limits).

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use md5::{Digest, Md5};

use crate::store::{CopySource, ETag, Kind, Location, ObjectHeaders, Part, Result};

use super::state::{Bucket, Object, Request, StoredPart, Upload, check_headers, check_match, clamp, find, slice};

/// The highest part number, so the most parts of an object.
const PART_NUMBER_MAX: u32 = 10_000;

pub(super) fn begin(
    bucket: &mut Bucket,
    location: &Location,
    headers: &ObjectHeaders,
    request: &Request<'_>,
) -> Result<String> {
    check_headers(headers, request)?;
    bucket.uploads_begun += 1;
    let id = format!("upload-{}", bucket.uploads_begun);
    let upload = Upload { key: location.key.clone(), headers: headers.clone(), parts: BTreeMap::new() };
    bucket.uploads.insert(id.clone(), upload);
    Ok(id)
}

pub(super) fn keep(
    bucket: &mut Bucket,
    upload_id: &str,
    number: u32,
    bytes: Bytes,
    request: &Request<'_>,
) -> Result<Part> {
    if !(1..=PART_NUMBER_MAX).contains(&number) {
        return Err(request.refuse(Kind::BadRequest, "InvalidArgument: part numbers are 1 to 10000"));
    }
    let upload = bucket.uploads.get_mut(upload_id);
    let upload = upload.filter(|upload| request.key.is_some_and(|key| upload.is_for(key)));
    let upload = upload.ok_or_else(|| request.refuse(Kind::NotFound, "NoSuchUpload"))?;
    let part = StoredPart { md5: Md5::digest(&bytes).into(), bytes };
    let etag = part.etag();
    upload.parts.insert(number, part);
    Ok(Part { number, etag })
}

/// The bytes of a part copy. Unlike a GET, a range that reaches beyond the source is refused.
pub(super) fn bytes_to_copy(
    bucket: &Bucket,
    source: &CopySource,
    range: &Range<u64>,
    request: &Request<'_>,
) -> Result<Bytes> {
    let object = find(bucket, None, request)?;
    check_match(source.if_match.as_ref(), object, request)?;
    let clamped = clamp(Some(range), object.bytes.len() as u64, request)?;
    if clamped != *range {
        return Err(request.refuse(Kind::BadRange, "the range reaches beyond the source"));
    }
    Ok(slice(&object.bytes, range))
}

/// An upload that is under way.
pub(super) fn under_way<'a>(bucket: &'a Bucket, upload_id: &str, request: &Request<'_>) -> Result<&'a Upload> {
    let upload = bucket.uploads.get(upload_id);
    let upload = upload.filter(|upload| request.key.is_some_and(|key| upload.is_for(key)));
    upload.ok_or_else(|| request.refuse(Kind::NotFound, "NoSuchUpload"))
}

/// Makes the object of an upload's parts, and leaves the upload as it is.
pub(super) fn join(
    bucket: &Bucket,
    upload_id: &str,
    parts: &[Part],
    part_bytes_min: usize,
    now: SystemTime,
    request: &Request<'_>,
) -> Result<Object> {
    let upload = under_way(bucket, upload_id, request)?;
    let stored = chosen_parts(upload, parts, part_bytes_min, request)?;
    let mut digest = Md5::new();
    let mut bytes = BytesMut::with_capacity(stored.iter().map(|part| part.bytes.len()).sum());
    for part in &stored {
        digest.update(part.md5);
        bytes.extend_from_slice(&part.bytes);
    }
    let etag = ETag::new(&format!("{}-{}", hex::encode(digest.finalize()), stored.len()));
    Object::new(bytes.freeze(), Some(etag), &upload.headers, now, request)
}

/// The parts that the object is made of, checked: known, in order, and large enough but for the last.
fn chosen_parts<'a>(
    upload: &'a Upload,
    parts: &[Part],
    part_bytes_min: usize,
    request: &Request<'_>,
) -> Result<Vec<&'a StoredPart>> {
    let refuse = |message| request.refuse(Kind::BadRequest, message);
    if !parts.is_sorted_by(|one, next| one.number < next.number) {
        return Err(refuse("InvalidPartOrder"));
    }
    let known = |part: &Part| upload.parts.get(&part.number).filter(|stored| stored.etag() == part.etag);
    let stored: Option<Vec<&StoredPart>> = parts.iter().map(known).collect();
    let stored = stored.ok_or_else(|| refuse("InvalidPart"))?;
    let Some((_, all_but_last)) = stored.split_last() else { return Err(refuse("MalformedXML: no parts")) };
    if all_but_last.iter().any(|part| part.bytes.len() < part_bytes_min) {
        return Err(refuse("EntityTooSmall"));
    }
    Ok(stored)
}
