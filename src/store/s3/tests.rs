//! What the adapter may never do, shown on the bytes it sends: each test is named after a fault that a naive use of
//! the libraries has.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::store::LinkMethod;

/// Heads and bodies of requests.
type Recorded = Vec<(String, Vec<u8>)>;

/// A server that writes down each request and gives the answers it was told, then 200 without a body.
struct Recorder {
    requests: Arc<Mutex<Recorded>>,
    store: S3Store,
}

impl Recorder {
    async fn start(answers: &[&str]) -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Recorded>>::default();
        let (seen, mut answers) =
            (requests.clone(), answers.iter().map(|answer| answer.to_string()).collect::<Vec<_>>());
        answers.reverse();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut bytes = Vec::new();
                let end = loop {
                    if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                        break end + 4;
                    }
                    if socket.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                        break bytes.len();
                    }
                };
                let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
                let length: usize = length.parse().unwrap();
                while bytes.len() < end + length && socket.read_buf(&mut bytes).await.unwrap_or(0) > 0 {}
                seen.lock().unwrap().push((head, bytes.split_off(end)));
                let plain = "HTTP/1.1 200 OK\r\netag: \"e\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                let answer = answers.pop().unwrap_or_else(|| plain.to_owned());
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        let store = store(config(endpoint));
        Recorder { requests, store }
    }

    fn heads(&self) -> Vec<String> {
        self.requests.lock().unwrap().iter().map(|(head, _)| head.clone()).collect()
    }

    fn first_line(&self, index: usize) -> String {
        self.heads()[index].lines().next().unwrap().to_owned()
    }
}

fn config(endpoint: String) -> Config {
    Config {
        endpoint,
        region: "us-east-1".to_owned(),
        addressing: Addressing::Auto,
        signature: Signature::V4,
        anonymous: false,
        ca_file: None,
        integrity: Integrity::Auto,
        stall_timeout: Duration::from_secs(5),
        clock: Clock::system(),
    }
}

fn store(config: Config) -> S3Store {
    let keys = Credentials { access_key: "A".to_owned(), secret_key: "S".to_owned(), session_token: None };
    S3Store::new(config, Arc::new(move || Ok(keys.clone())), Arc::new(Profile::new())).unwrap()
}

fn bucket() -> BucketName {
    BucketName::new("bucket").unwrap()
}

fn at(key: &str) -> Location {
    Location { bucket: bucket(), key: Key::new(key).unwrap() }
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn header_names_that_begin_each_other_are_signed_in_order() {
    let recorder = Recorder::start(&[]).await;
    let metadata = [("mtime", "1"), ("mtime-ns", "2"), ("a", "3"), ("a1", "4")];
    let metadata = metadata.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let headers = ObjectHeaders { metadata, ..ObjectHeaders::default() };
    recorder.store.put(&at("k"), Bytes::new(), &headers, &Condition::None).await.unwrap();
    let head = recorder.heads().remove(0);
    assert!(head.contains("x-amz-meta-a;x-amz-meta-a1;x-amz-meta-mtime;x-amz-meta-mtime-ns"), "{head}");
}

#[tokio::test]
async fn each_request_that_makes_a_version_asks_for_encryption() {
    let copied = answer("200 OK", "<CopyObjectResult><ETag>e</ETag></CopyObjectResult>");
    let begun =
        answer("200 OK", "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>");
    for (encryption, method, key_id) in
        [("AES256", "AES256", None), ("aws:kms", "aws:kms", None), ("aws:kms key/1", "aws:kms", Some("key/1"))]
    {
        let recorder = Recorder::start(&[&copied, &begun]).await;
        let headers = ObjectHeaders { encryption: Some(encryption.to_owned()), ..ObjectHeaders::default() };
        let source = CopySource { location: at("a"), if_match: None };
        recorder.store.copy(&source, &at("b"), &CopyHeaders::Replace(headers.clone())).await.unwrap();
        recorder.store.create_upload(&at("b"), &headers).await.unwrap();
        recorder.store.put(&at("b"), Bytes::new(), &headers, &Condition::None).await.unwrap();
        recorder.store.upload_part(&at("b"), "u", 1, Bytes::new()).await.unwrap();
        let asked = |head: &String| head.contains(&format!("x-amz-server-side-encryption: {method}\r\n"));
        let named = |head: &String| head.contains("x-amz-server-side-encryption-aws-kms-key-id: key/1\r\n");
        let heads = recorder.heads();
        assert_eq!(heads.iter().map(asked).collect::<Vec<_>>(), [true, true, true, false], "{heads:?}");
        assert!(heads[..3].iter().all(|head| named(head) == key_id.is_some()), "{heads:?}");
    }
}

#[tokio::test]
async fn no_key_can_delete_its_bucket() {
    for raw in ["x/..", "..", "../other/keep", "a/./b", ".", "%2e%2e/."] {
        assert!(Key::new(raw).is_err(), "{raw}");
    }
    let recorder = Recorder::start(&[]).await;
    // What looks like dots when it is decoded stays one segment, spelled out.
    recorder.store.delete(&at("x/%2e%2e"), None).await.unwrap();
    recorder.store.delete(&at("x/..a"), None).await.unwrap();
    assert!(recorder.first_line(0).starts_with("DELETE /bucket/x/%252e%252e "));
    assert!(recorder.first_line(1).starts_with("DELETE /bucket/x/..a "));
}

#[tokio::test]
async fn header_values_that_http_would_bend_are_not_sent() {
    let recorder = Recorder::start(&[]).await;
    let headers = ObjectHeaders { content_type: Some("tëxt".to_owned()), ..ObjectHeaders::default() };
    let refused = recorder.store.put(&at("k"), Bytes::new(), &headers, &Condition::None).await;
    assert_eq!(refused.unwrap_err().kind, Kind::BadRequest);
    assert!(recorder.heads().is_empty());
}

#[tokio::test]
async fn subresources_are_queries_and_not_keys() {
    let recorder = Recorder::start(&[]).await;
    let _ = recorder.store.get_acl(&AclTarget::Bucket(bucket())).await;
    let _ = recorder.store.get_acl(&AclTarget::Object(at("a b"))).await;
    assert!(recorder.first_line(0).starts_with("GET /bucket?acl= "));
    assert!(recorder.first_line(1).starts_with("GET /bucket/a%20b?acl= "));
}

#[tokio::test]
async fn a_new_bucket_names_no_region_that_a_store_may_not_know() {
    let recorder = Recorder::start(&[]).await;
    recorder.store.create_bucket(&bucket()).await.unwrap();
    assert!(recorder.requests.lock().unwrap()[0].1.is_empty());
}

#[tokio::test]
async fn listed_and_deleted_keys_keep_their_control_characters() {
    let page = "<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>cr%0Dx</Key><Size>1</Size>\
                <ETag>e</ETag><LastModified>2024-01-01T00:00:00Z</LastModified></Contents></ListBucketResult>";
    let recorder = Recorder::start(&[&answer("200 OK", page)]).await;
    let listed = recorder.store.list(&bucket(), &ListRequest::default()).await.unwrap();
    assert_eq!(listed.objects[0].key, "cr\rx");
    assert!(recorder.first_line(0).contains("encoding-type=url"));
    let keys = ["plain", "cr\rx", "\u{1}"].map(|key| Key::new(key).unwrap());
    let _ = recorder.store.delete_many(&bucket(), &keys).await;
    assert!(recorder.first_line(1).starts_with("DELETE /bucket/cr%0Dx "));
    assert!(recorder.first_line(2).starts_with("DELETE /bucket/%01 "));
    let batch = recorder.requests.lock().unwrap()[3].clone();
    assert!(batch.0.starts_with("POST /bucket?delete= ") && batch.0.contains("content-md5: "));
    assert!(String::from_utf8(batch.1).unwrap().matches("<Key>").count() == 1);
}

#[tokio::test]
async fn a_link_has_one_query() {
    let recorder = Recorder::start(&[]).await;
    let (location, expires) = (at("a?b c"), Duration::from_secs(60));
    let mut request = PresignRequest { location, method: LinkMethod::Get, expires, download_name: None };
    let link = recorder.store.presign(&request).unwrap();
    assert_eq!(link.matches('?').count(), 1, "{link}");
    assert!(link.contains("/bucket/a%3Fb%20c?X-Amz-"), "{link}");
    request.download_name = Some("ü".to_owned());
    let named = recorder.store.presign(&request).unwrap();
    assert_eq!(named.matches('?').count(), 1, "{named}");
    assert!(named.contains("c?response-content-disposition=attachment%3B%20") && named.contains("&X-Amz-"), "{named}");
    let put = recorder.store.presign(&PresignRequest { method: LinkMethod::Put, download_name: None, ..request });
    assert_ne!(put.unwrap(), link, "another method has another signature");
}

#[tokio::test]
async fn a_bucket_goes_into_the_host_where_its_name_allows() {
    let link = |endpoint: &str, addressing, bucket: &str| {
        let location = Location { bucket: BucketName::new(bucket).unwrap(), key: Key::new("a b").unwrap() };
        let store = store(Config { addressing, ..config(endpoint.to_owned()) });
        let expires = Duration::from_secs(60);
        let wanted = PresignRequest { location, method: LinkMethod::Get, expires, download_name: None };
        let (plain, signed) = (store.url(&wanted.location), store.presign(&wanted).unwrap());
        assert!(signed.starts_with(&format!("{plain}?X-Amz-")), "{signed}");
        plain
    };
    let secure = "https://store.example";
    assert_eq!(link(secure, Addressing::Auto, "photos"), "https://store.example/photos/a%20b");
    assert_eq!(link(secure, Addressing::Virtual, "photos"), "https://photos.store.example/a%20b");
    assert_eq!(link(secure, Addressing::Virtual, "my.photos"), "https://store.example/my.photos/a%20b");
    assert_eq!(link(secure, Addressing::Virtual, "My_photos"), "https://store.example/My_photos/a%20b");
    assert_eq!(link("http://h:81", Addressing::Virtual, "my.photos"), "http://my.photos.h:81/a%20b");
}

#[tokio::test]
async fn an_empty_range_is_an_error_and_no_panic() {
    let recorder = Recorder::start(&[]).await;
    let options = GetOptions { range: Some(5..5), ..GetOptions::default() };
    assert_eq!(recorder.store.get(&at("k"), &options).await.err().map(|error| error.kind), Some(Kind::BadRange));
}

#[tokio::test]
async fn a_part_carries_its_number_its_upload_and_its_bytes() {
    let recorder = Recorder::start(&[]).await;
    recorder.store.upload_part(&at("k"), "id/+&=", 7, Bytes::from_static(b"part")).await.unwrap();
    assert!(recorder.first_line(0).starts_with("PUT /bucket/k?partNumber=7&uploadId=id%2F%2B%26%3D "));
    assert_eq!(recorder.requests.lock().unwrap()[0].1, b"part");
}

#[tokio::test]
async fn a_failed_part_does_not_end_the_upload() {
    let recorder = Recorder::start(&[&answer("500 Internal Server Error", "")]).await;
    let failed = recorder.store.upload_part(&at("k"), "id", 1, Bytes::from_static(b"part")).await;
    assert_eq!(failed.unwrap_err().kind, Kind::ServerError);
    assert_eq!(recorder.heads().len(), 1, "nothing but the part was sent");
}

#[tokio::test]
async fn a_success_that_carries_an_error_is_an_error() {
    let error = "<Error><Code>InternalError</Code><Message>sorry</Message></Error>";
    let recorder = Recorder::start(&[&answer("200 OK", error), &answer("200 OK", error), &answer("200 OK", "")]).await;
    let source = CopySource { location: at("a"), if_match: None };
    let keep = CopyHeaders::Keep { acl: None, storage_class: None };
    assert_eq!(recorder.store.copy(&source, &at("b"), &keep).await.unwrap_err().kind, Kind::ServerError);
    let part = Part { number: 1, etag: crate::store::ETag::new("00") };
    for kind in [Kind::ServerError, Kind::Malformed] {
        let completed =
            recorder.store.complete_upload(&at("k"), "id", std::slice::from_ref(&part), &Condition::None).await;
        assert_eq!(completed.unwrap_err().kind, kind);
    }
}

#[tokio::test]
async fn a_body_that_is_cut_is_an_error_and_never_a_short_end() {
    let cut = "HTTP/1.1 200 OK\r\netag: \"e\"\r\nlast-modified: Wed, 21 Oct 2015 07:28:00 GMT\r\ncontent-length: 10\r\n\
               connection: close\r\n\r\nhalf";
    let recorder = Recorder::start(&[cut]).await;
    let mut got = recorder.store.get(&at("k"), &GetOptions::default()).await.unwrap();
    let mut last = Ok(Bytes::new());
    while let Some(piece) = got.body.next().await {
        last = piece;
    }
    assert_eq!(last.unwrap_err().kind, Kind::Interrupted);
}
