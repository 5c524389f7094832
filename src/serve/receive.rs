//! Bytes in and out: the body of a request to the disk, and an object's bytes to the answer, without holding either.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use md5::{Digest, Md5};
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3Result, s3_error};
use tokio::sync::mpsc;

use super::blob::{Body, WrittenBlob, chunks, cut, write_blob};
use super::disk::{Bucket, Object};
use super::service::blocking;

/// Objects up to this many bytes lie in the file of their record: one file to write and sync in place of two.
const INLINE_BYTES_MAX: usize = 64 * 1024;
/// Pieces of a request's body that wait for the disk at most.
const WAITING_CHUNKS_MAX: usize = 16;
/// Chunks of an object that are read ahead of the connection.
const READ_AHEAD_CHUNKS: usize = 2;

/// Where a body goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// An object: small ones stay in memory and go into the record's file.
    Object,
    /// A part: always a blob.
    Part,
}

/// Takes the body of a request to the disk and checks it against `Content-MD5`.
pub async fn receive(
    bucket: &Bucket,
    body: Option<StreamingBlob>,
    content_md5: Option<&str>,
    target: Target,
) -> S3Result<WrittenBlob> {
    let mut head = BytesMut::new();
    let mut body = body;
    if target == Target::Object {
        while head.len() <= INLINE_BYTES_MAX {
            match next(&mut body).await? {
                Some(chunk) => head.extend_from_slice(&chunk),
                None => {
                    let bytes = head.freeze();
                    let md5: [u8; 16] = Md5::digest(&bytes).into();
                    check_md5(content_md5, &md5)?;
                    return Ok(WrittenBlob { size_bytes: bytes.len() as u64, body: Body::Inline(bytes), md5 });
                }
            }
        }
    }
    let (sender, receiver) = mpsc::channel(WAITING_CHUNKS_MAX);
    let folder = bucket.blobs_folder();
    let writer = tokio::spawn(blocking(move || write_blob(&folder, receiver)));
    let mut fed = sender.send(head.freeze()).await.is_ok();
    let mut failed = None;
    while fed {
        match next(&mut body).await {
            Ok(Some(chunk)) => fed = sender.send(chunk).await.is_ok(),
            Ok(None) => break,
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    drop(sender);
    // Dropping what was written removes it, so that a body that broke off leaves nothing.
    let written = writer.await.map_err(S3Error::internal_error)??;
    match failed {
        Some(error) => Err(error),
        None => check_md5(content_md5, &written.md5).map(|()| written),
    }
}

async fn next(body: &mut Option<StreamingBlob>) -> S3Result<Option<Bytes>> {
    let Some(stream) = body else { return Ok(None) };
    match stream.next().await {
        None => Ok(None),
        Some(Ok(chunk)) => Ok(Some(chunk)),
        Some(Err(error)) => {
            let text = error.to_string();
            let code =
                if text.contains("Mismatch") { s3s::S3ErrorCode::BadDigest } else { s3s::S3ErrorCode::IncompleteBody };
            Err(S3Error::with_message(code, format!("The body is not what was announced: {text}")))
        }
    }
}

fn check_md5(asked: Option<&str>, md5: &[u8; 16]) -> S3Result<()> {
    use base64::Engine;
    let Some(asked) = asked else { return Ok(()) };
    let asked = base64::engine::general_purpose::STANDARD.decode(asked).ok().filter(|asked| asked.len() == 16);
    match asked {
        None => Err(s3_error!(InvalidDigest, "Content-MD5 is not the base64 of an MD5.")),
        Some(asked) if asked == md5 => Ok(()),
        Some(_) => Err(s3_error!(BadDigest, "Content-MD5 is not the MD5 of the body.")),
    }
}

/// The bytes of a range of an object as a stream that keeps the object's blobs alive. `None`: it was replaced.
pub async fn send(bucket: &Arc<Bucket>, object: &Arc<Object>, range: Range<u64>) -> S3Result<Option<StreamingBlob>> {
    let body = {
        let (bucket, object) = (bucket.clone(), object.clone());
        if object.is_inline() { blocking(move || bucket.body(&object)).await? } else { object.pieces_body() }
    };
    Ok(body.map(|body| match body {
        Body::Inline(bytes) => {
            let part = bytes.slice(range.start as usize..range.end as usize);
            StreamingBlob::wrap(stream::iter([Ok::<_, io::Error>(part)]))
        }
        Body::Pieces(pieces, blobs) => {
            let chunks = chunks(&bucket.blobs_folder(), &cut(&pieces, &range));
            let reads = stream::iter(chunks).map(move |chunk| {
                let blobs = blobs.clone();
                async move {
                    let read = tokio::task::spawn_blocking(move || {
                        let bytes = chunk.read();
                        drop(blobs);
                        bytes
                    });
                    read.await.map_err(io::Error::other)?
                }
            });
            StreamingBlob::wrap(reads.buffered(READ_AHEAD_CHUNKS))
        }
    }))
}
