//! The verbs of multipart uploads. Source: Amazon S3 API reference, "Uploading and copying objects using multipart
//! upload". Conditions on the completion are ignored, as Ceph does.

use std::sync::Arc;

use md5::{Digest, Md5};
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::acl::{Permission as May, owner_to_xml};
use super::blob::{Body, WrittenBlob, chunks, cut, flatten, kept_blobs, link_pieces, md5_of, write_bytes};
use super::buckets::{entries_max, is_url};
use super::conditions::{Conditions, etag_of, time_of};
use super::disk::Bucket as Place;
use super::listing::spell;
use super::objects::check_key;
use super::receive::{Target, receive};
use super::record::{ObjectRecord, PartRecord, UploadRecord, to_ms};
use super::service::{Service, blocking};
use super::uploads::{Parts, Upload};

/// Number of a part at most; S3's limit.
const PART_NUMBER_MAX: i32 = 10_000;
/// A copied part that is scattered over more pieces than this is written anew, so that objects which are appended to
/// again and again do not fall to dust.
const COPY_PIECES_MAX: usize = 64;

impl Service {
    fn upload<T>(
        &self,
        request: &S3Request<T>,
        bucket: &str,
        key: &str,
        id: &str,
        permission: May,
    ) -> S3Result<(Arc<Place>, Arc<Upload>)> {
        let bucket = self.bucket_for(bucket, self.caller(request), permission)?;
        let upload = bucket.upload(key, id).ok_or_else(no_such_upload)?;
        Ok((bucket, upload))
    }

    pub(super) async fn begin_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let bucket = self.bucket_for(&request.input.bucket, self.caller(&request), May::Write)?;
        check_key(&request.input.key)?;
        let record = UploadRecord {
            key: request.input.key.clone(),
            initiated_ms: to_ms(self.clock.now()),
            attributes: self.new_attributes(&request, &bucket)?,
        };
        let upload = blocking(move || {
            let upload = Arc::new(Upload::create(&bucket.uploads_folder(), &bucket.draft(), record)?);
            Ok(bucket.insert_upload(upload.clone()).then_some(upload))
        })
        .await?
        .ok_or_else(|| s3_error!(NoSuchBucket, "There is no such bucket."))?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(request.input.bucket),
            key: Some(request.input.key),
            upload_id: Some(upload.id.clone()),
            ..Default::default()
        }))
    }

    pub(super) async fn take_part(
        &self,
        mut request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let body = request.input.body.take();
        let input = &request.input;
        let (bucket, upload) = self.upload(&request, &input.bucket, &input.key, &input.upload_id, May::Write)?;
        let number = check_number(input.part_number)?;
        let written = receive(&bucket, body, input.content_md5.as_deref(), Target::Part).await?;
        let record = self.store_part(bucket, upload, number, written).await?;
        let e_tag = etag_of(&hex::encode(record.md5));
        Ok(S3Response::new(UploadPartOutput { e_tag, ..Default::default() }))
    }

    async fn store_part(
        &self,
        bucket: Arc<Place>,
        upload: Arc<Upload>,
        number: u32,
        written: WrittenBlob,
    ) -> S3Result<PartRecord> {
        let record = PartRecord {
            number,
            size_bytes: written.size_bytes,
            md5: written.md5,
            modified_ms: to_ms(self.clock.now()),
            pieces: vec![],
        };
        let kept = record.clone();
        let stored = blocking(move || upload.store_part(&bucket.draft(), record, written.body)).await?;
        if stored { Ok(kept) } else { Err(no_such_upload()) }
    }

    pub(super) async fn copy_part(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let input = &request.input;
        let (bucket, upload) = self.upload(&request, &input.bucket, &input.key, &input.upload_id, May::Write)?;
        let number = check_number(input.part_number)?;
        let conditions = Conditions {
            if_match: input.copy_source_if_match.as_ref(),
            if_none_match: input.copy_source_if_none_match.as_ref(),
            if_modified_since: input.copy_source_if_modified_since.as_ref(),
            if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
        };
        loop {
            let (from, source) = self.copy_source(&input.copy_source, self.caller(&request), &conditions)?;
            self.check_copied(&source.record.attributes, &upload.record.attributes)?;
            let size_bytes = source.record.size_bytes;
            let range = match &input.copy_source_range {
                Some(spelled) => copy_range(spelled, size_bytes)?,
                None => 0..size_bytes,
            };
            if range.end - range.start > self.copy_bytes_max {
                return Err(s3_error!(InvalidRequest, "The range is larger than a single copy may be."));
            }
            let to = bucket.clone();
            let copied = blocking(move || {
                let folder = from.blobs_folder();
                let (body, md5) = match from.body(&source)? {
                    None => return Ok(None),
                    Some(Body::Inline(bytes)) => {
                        let bytes = &bytes[range.start as usize..range.end as usize];
                        return write_bytes(&to.blobs_folder(), bytes).map(Some);
                    }
                    Some(Body::Pieces(pieces, kept)) => {
                        let cut = cut(&pieces, &range);
                        let md5 = md5_of(&folder, &cut)?;
                        let body = if cut.len() > COPY_PIECES_MAX {
                            flatten(&to.blobs_folder(), chunks(&folder, &cut))?
                        } else {
                            link_pieces(&folder, &cut, &to.blobs_folder())?
                        };
                        drop(kept);
                        (body, md5)
                    }
                };
                Ok(Some(WrittenBlob { body, size_bytes: range.end - range.start, md5 }))
            });
            if let Some(written) = copied.await? {
                let record = self.store_part(bucket, upload, number, written).await?;
                let (e_tag, last_modified) = (etag_of(&hex::encode(record.md5)), time_of(record.modified_ms));
                let copy_part_result = Some(CopyPartResult { e_tag, last_modified, ..Default::default() });
                return Ok(S3Response::new(UploadPartCopyOutput { copy_part_result, ..Default::default() }));
            }
        }
    }

    pub(super) async fn complete(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = &request.input;
        let (bucket, upload) = self.upload(&request, &input.bucket, &input.key, &input.upload_id, May::Write)?;
        let asked = input.multipart_upload.as_ref().and_then(|asked| asked.parts.as_deref()).unwrap_or_default();
        let parts = upload.take_parts().ok_or_else(no_such_upload)?;
        let record = match self.assemble(&upload, &parts, asked) {
            Ok(record) => record,
            Err(error) => {
                upload.give_back(parts);
                return Err(error);
            }
        };
        let e_tag = etag_of(&record.etag);
        blocking(move || finish(&bucket, &upload, parts, record)).await?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(request.input.bucket.clone()),
            key: Some(request.input.key.clone()),
            location: Some(format!("/{}/{}", request.input.bucket, request.input.key)),
            e_tag,
            ..Default::default()
        }))
    }

    fn assemble(&self, upload: &Upload, parts: &Parts, asked: &[CompletedPart]) -> S3Result<ObjectRecord> {
        if asked.is_empty() {
            return Err(s3_error!(MalformedXML, "An upload is completed with at least one part."));
        }
        let mut record = ObjectRecord {
            key: upload.record.key.clone(),
            id: upload.id.clone(),
            size_bytes: 0,
            etag: String::new(),
            modified_ms: to_ms(self.clock.now()),
            attributes: upload.record.attributes.clone(),
            pieces: vec![],
        };
        let mut hash = Md5::new();
        let mut before = 0;
        for (index, asked_part) in asked.iter().enumerate() {
            let number = check_number(asked_part.part_number.unwrap_or_default())?;
            if number <= before {
                return Err(s3_error!(InvalidPartOrder, "The parts are not in order."));
            }
            before = number;
            let part = parts.get(&number).map(|part| &part.record);
            let part =
                part.filter(|part| asked_part.e_tag.as_ref().is_none_or(|tag| tag.value() == hex::encode(part.md5)));
            let part = part.ok_or_else(|| s3_error!(InvalidPart, "Part {number} is not there or has another tag."))?;
            if part.size_bytes < self.part_bytes_min && index + 1 < asked.len() {
                return Err(s3_error!(EntityTooSmall, "Part {number} is too small."));
            }
            hash.update(part.md5);
            record.size_bytes += part.size_bytes;
            record.pieces.extend_from_slice(&part.pieces);
        }
        record.etag = format!("{}-{}", hex::encode(hash.finalize()), asked.len());
        Ok(record)
    }

    pub(super) async fn abort(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = &request.input;
        let (bucket, upload) = self.upload(&request, &input.bucket, &input.key, &input.upload_id, May::Write)?;
        let parts = upload.take_parts().ok_or_else(no_such_upload)?;
        blocking(move || {
            bucket.forget_upload(&upload)?;
            parts.values().for_each(|part| part.doom());
            Ok(())
        })
        .await?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    pub(super) async fn list_upload_parts(
        &self,
        request: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        let input = &request.input;
        let (_, upload) = self.upload(&request, &input.bucket, &input.key, &input.upload_id, May::Write)?;
        let parts_max = entries_max(input.max_parts)?;
        let after = input.part_number_marker.and_then(|marker| u32::try_from(marker).ok()).unwrap_or_default();
        let listed = upload.with_parts(|parts| {
            let listed = parts.range(after.saturating_add(1)..).map(|(_, part)| Part {
                e_tag: etag_of(&hex::encode(part.record.md5)),
                last_modified: time_of(part.record.modified_ms),
                part_number: Some(part.record.number as i32),
                size: Some(part.record.size_bytes as i64),
                ..Default::default()
            });
            listed.take(parts_max + 1).collect::<Vec<_>>()
        });
        let mut listed = listed.ok_or_else(no_such_upload)?;
        let truncated = listed.len() > parts_max;
        listed.truncate(parts_max);
        let owner = Some(owner_to_xml(&upload.record.attributes.acl.owner, &self.users));
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket.clone()),
            key: Some(input.key.clone()),
            upload_id: Some(input.upload_id.clone()),
            is_truncated: Some(truncated),
            max_parts: Some(parts_max as i32),
            next_part_number_marker: listed.last().and_then(|part| part.part_number),
            part_number_marker: Some(after as i32),
            parts: Some(listed),
            storage_class: Some("STANDARD".to_owned().into()),
            owner,
            ..Default::default()
        }))
    }

    pub(super) async fn list_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = &request.input;
        let bucket = self.bucket_for(&input.bucket, self.caller(&request), May::Read)?;
        let uploads_max = entries_max(input.max_uploads)?;
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let after = (input.key_marker.as_deref(), input.upload_id_marker.as_deref());
        let is_after = |upload: &Upload| match after {
            (None, _) => true,
            (Some(key), None) => upload.record.key.as_str() > key,
            (Some(key), Some(id)) => (upload.record.key.as_str(), upload.id.as_str()) > (key, id),
        };
        let mut uploads = bucket.uploads();
        uploads.retain(|upload| upload.record.key.starts_with(prefix) && is_after(upload));
        let truncated = uploads.len() > uploads_max;
        uploads.truncate(uploads_max);
        let url = is_url(input.encoding_type.as_ref());
        let last = uploads.last().filter(|_| truncated).cloned();
        let listed = uploads.iter().map(|upload| MultipartUpload {
            initiated: time_of(upload.record.initiated_ms),
            key: Some(spell(&upload.record.key, url)),
            owner: Some(owner_to_xml(&upload.record.attributes.acl.owner, &self.users)),
            storage_class: Some("STANDARD".to_owned().into()),
            upload_id: Some(upload.id.clone()),
            ..Default::default()
        });
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket.clone()),
            is_truncated: Some(truncated),
            max_uploads: Some(uploads_max as i32),
            next_key_marker: last.as_ref().map(|upload| spell(&upload.record.key, url)),
            next_upload_id_marker: last.as_ref().map(|upload| upload.id.clone()),
            prefix: Some(spell(prefix, url)),
            encoding_type: input.encoding_type.clone(),
            uploads: Some(listed.collect()),
            ..Default::default()
        }))
    }
}

/// Makes the object of its parts: its record takes their blobs over, the other parts go. Blocks.
fn finish(bucket: &Place, upload: &Upload, parts: Parts, record: ObjectRecord) -> std::io::Result<()> {
    let pieces = record.pieces.clone();
    let body = match kept_blobs(&bucket.blobs_folder(), &pieces) {
        Some(blobs) => Body::Pieces(pieces.clone(), blobs),
        None => Body::Inline(bytes::Bytes::new()),
    };
    if let Err(error) = bucket.store(record, body, |_| true) {
        upload.give_back(parts);
        return Err(error);
    }
    bucket.forget_upload(upload)?;
    for part in parts.values() {
        if part.record.pieces.iter().all(|piece| pieces.iter().all(|used| used.blob != piece.blob)) {
            part.doom();
        }
    }
    Ok(())
}

fn no_such_upload() -> s3s::S3Error {
    s3_error!(NoSuchUpload, "There is no such upload.")
}

fn check_number(number: i32) -> S3Result<u32> {
    match number {
        1..=PART_NUMBER_MAX => Ok(number as u32),
        _ => Err(s3_error!(InvalidArgument, "Part numbers run from 1 to 10000.")),
    }
}

fn copy_range(spelled: &str, size_bytes: u64) -> S3Result<std::ops::Range<u64>> {
    let invalid = || s3_error!(InvalidArgument, "The range of the source is spelled bytes=first-last.");
    let (first, last) = spelled.strip_prefix("bytes=").and_then(|r| r.split_once('-')).ok_or_else(invalid)?;
    let first: u64 = first.parse().map_err(|_| invalid())?;
    let last: u64 = last.parse().map_err(|_| invalid())?;
    if first > last || last >= size_bytes {
        return Err(s3_error!(InvalidRange, "The range is not in the source."));
    }
    Ok(first..last + 1)
}
