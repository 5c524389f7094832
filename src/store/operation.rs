//! The S3 names of the requests, as logs, counters and seeded faults spell them. Nothing but names.

/// Answers the account's buckets.
pub const LIST_BUCKETS: &str = "ListBuckets";
/// Makes a bucket.
pub const CREATE_BUCKET: &str = "CreateBucket";
/// Deletes an empty bucket.
pub const DELETE_BUCKET: &str = "DeleteBucket";
/// Asks for a bucket.
pub const HEAD_BUCKET: &str = "HeadBucket";
/// Lists keys, one page.
pub const LIST_OBJECTS: &str = "ListObjects";
/// Asks for an object.
pub const HEAD_OBJECT: &str = "HeadObject";
/// Fetches bytes of an object.
pub const GET_OBJECT: &str = "GetObject";
/// Stores an object.
pub const PUT_OBJECT: &str = "PutObject";
/// Puts bytes behind the last of an object.
pub const APPEND_OBJECT: &str = "AppendObject";
/// Copies an object on the server.
pub const COPY_OBJECT: &str = "CopyObject";
/// Deletes an object.
pub const DELETE_OBJECT: &str = "DeleteObject";
/// Deletes many objects.
pub const DELETE_OBJECTS: &str = "DeleteObjects";
/// Begins a multipart upload.
pub const CREATE_MULTIPART_UPLOAD: &str = "CreateMultipartUpload";
/// Uploads a part.
pub const UPLOAD_PART: &str = "UploadPart";
/// Makes a part of another object's bytes.
pub const UPLOAD_PART_COPY: &str = "UploadPartCopy";
/// Makes an object of its parts.
pub const COMPLETE_MULTIPART_UPLOAD: &str = "CompleteMultipartUpload";
/// Gives up a multipart upload.
pub const ABORT_MULTIPART_UPLOAD: &str = "AbortMultipartUpload";
/// Reads the ACL of a bucket or object.
pub const GET_ACL: &str = "GetAcl";
/// Replaces the ACL of a bucket or object.
pub const PUT_ACL: &str = "PutAcl";
/// Reads the tags of an object.
pub const GET_OBJECT_TAGGING: &str = "GetObjectTagging";
/// Replaces the tags of an object.
pub const PUT_OBJECT_TAGGING: &str = "PutObjectTagging";
/// Asks whether a bucket keeps versions.
pub const GET_BUCKET_VERSIONING: &str = "GetBucketVersioning";
/// Lists versions, one page.
pub const LIST_OBJECT_VERSIONS: &str = "ListObjectVersions";
/// Lists multipart uploads, one page.
pub const LIST_MULTIPART_UPLOADS: &str = "ListMultipartUploads";
/// Lists the parts of a multipart upload, one page.
pub const LIST_PARTS: &str = "ListParts";
/// Asks for an archived object's bytes.
pub const RESTORE_OBJECT: &str = "RestoreObject";
