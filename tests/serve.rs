//! The embedded server over HTTP, with boto 2 as the witness: it is an S3 client that shares no code with us.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use dreamfs::clock::Clock;
use dreamfs::serve::{Config, Profile, User, start};

const PYTHON: &str = "/usr/bin/python3";

const PRELUDE: &str = r#"
import sys, os, io, time, urllib.request, urllib.error, urllib.parse
import boto, boto.s3.connection
from boto.exception import S3ResponseError
host, port = sys.argv[1], int(sys.argv[2])
def connect(key, secret='secret', v4=False, anon=False):
    os.environ.pop('S3_USE_SIGV4', None)
    if v4: os.environ['S3_USE_SIGV4'] = 'True'
    c = boto.connect_s3(None if anon else key, None if anon else secret, anon=anon, host=host, port=port,
        is_secure=False, calling_format=boto.s3.connection.OrdinaryCallingFormat())
    if v4: c._auth_handler.region_name = 'us-east-1' # boto reads it out of the host name, and fails with an address
    return c
def status(url, method='GET'):
    try: return urllib.request.urlopen(urllib.request.Request(url, method=method)).status
    except urllib.error.HTTPError as e: return e.code
def refused(code, f):
    try: f()
    except S3ResponseError as e:
        assert e.error_code == code or str(e.status) == code, (e.status, e.error_code, code)
        return
    raise AssertionError('not refused: ' + code)
base = 'http://%s:%d' % (host, port)
# A link by version 4, after the manual: boto's own ones do not verify for a host that is an address with a port.
def link_v4(path, seconds, query=(), secret='secret', age=0):
    import hmac, hashlib
    now = time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(time.time() - age)); scope = now[:8] + '/us-east-1/s3/aws4_request'
    q = sorted(list(query) + [('X-Amz-Algorithm', 'AWS4-HMAC-SHA256'), ('X-Amz-Credential', 'alice/' + scope), ('X-Amz-Date', now),
        ('X-Amz-Expires', str(seconds)), ('X-Amz-SignedHeaders', 'host')])
    q = '&'.join('%s=%s' % (k, urllib.parse.quote(v, safe='-_.~')) for k, v in q)
    canonical = '\n'.join(['GET', path, q, 'host:%s:%d' % (host, port), '', 'host', 'UNSIGNED-PAYLOAD'])
    to_sign = '\n'.join(['AWS4-HMAC-SHA256', now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = ('AWS4' + secret).encode()
    for word in scope.split('/') + [to_sign]: key = hmac.new(key, word.encode(), 'sha256').digest()
    return base + path + '?' + q + '&X-Amz-Signature=' + key.hex()
"#;

fn config(data_dir: &Path, profile: Profile) -> Config {
    let user = |name: &str| User {
        id: format!("{name}-id"),
        name: name.to_owned(),
        email: Some(format!("{name}@example.com")),
        access_key: name.to_owned(),
        secret_key: "secret".to_owned(),
    };
    Config {
        data_dir: data_dir.to_owned(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        profile,
        users: vec![user("alice"), user("bob")],
        copy_bytes_max: 1 << 20,
        part_bytes_min: 1000,
        clock: Clock::system(),
    }
}

/// Runs a script of boto against a server on the folder; prints why and does nothing where boto is missing.
async fn witness(name: &str, data_dir: &Path, profile: Profile, script: &str) {
    let boto = Command::new(PYTHON).args(["-c", "import boto"]).output();
    if !boto.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED {name}: {PYTHON} has no boto 2 (package python3-boto)");
        return;
    }
    let server = start(config(data_dir, profile)).await.expect("the server starts");
    let (host, port) = (server.address().ip().to_string(), server.address().port().to_string());
    let script = format!("{PRELUDE}{script}");
    let run = move || Command::new(PYTHON).args(["-c", &script, &host, &port]).output();
    let output = tokio::task::spawn_blocking(run).await.expect("the script does not panic").expect("python runs");
    server.stop().await;
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_and_buckets_with_both_signatures_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
for v4 in (False, True):
    c = connect('alice', v4=v4) # keys with // are proven without HTTP: boto folds them
    b = c.create_bucket('bucket-%s' % ('v4' if v4 else 'v2'))
    assert [x for x in c.get_all_buckets() if x.name == b.name][0].creation_date.startswith('20')
    keys = ['a', 'a/b', 'sp ace', '+', '%41', "q'\"&<>", 'é', 'x/../y', 'x/./y', 'tab\there']
    if not v4: keys.append('new\nline')
    for k in keys:
        b.new_key(k).set_contents_from_string('body of ' + k, headers={'x-amz-meta-mode': '33188', 'Cache-Control': 'no-cache'})
    assert sorted(x.name for x in b.list()) == sorted(keys), [x.name for x in b.list()]
    for k in keys:
        o = b.get_key(k)
        assert o.get_contents_as_string(encoding='utf-8') == 'body of ' + k, k
        assert o.metadata['mode'] == '33188' and o.cache_control == 'no-cache', (o.metadata, o.cache_control)
    k = b.get_key('a')
    assert k.get_contents_as_string(headers={'Range': 'bytes=5-6'}) == b'of'
    if v4: url = link_v4('/%s/a' % b.name, 60, [('response-content-type', 'text/x-test')])
    else: url = b.get_key('a', validate=False).generate_url(60, response_headers={'response-content-type': 'text/x-test'})
    r = urllib.request.urlopen(url)
    assert r.headers['content-type'] == 'text/x-test' and r.headers['x-amz-request-id'].startswith('tx')
    assert status(base + '/' + b.name + '/a') == 403
    refused('412', lambda: b.new_key('a').set_contents_from_string('x', headers={'If-None-Match': '*'}))
    refused('412', lambda: b.new_key('a').set_contents_from_string('x', headers={'If-Match': 'nonsense'}))
    etag = b.get_key('a').etag
    b.new_key('a').set_contents_from_string('big' * 50000, headers={'If-Match': etag})
    b.copy_key('copy', b.name, 'a')
    b.new_key('a').set_contents_from_string('replaced')
    assert b.get_key('copy').get_contents_as_string() == b'big' * 50000
    assert sorted(p.name for p in b.list(delimiter='/')) == sorted(set(k.split('/')[0] + '/' if '/' in k else k for k in keys + ['copy']))
    refused('BucketNotEmpty', lambda: c.delete_bucket(b.name))
    r = b.delete_keys([x for x in b.get_all_keys() if x.name not in ('copy',)])
    assert not r.errors and [x.name for x in b.list()] == ['copy'], r.errors
    e = c.create_bucket('empty-' + b.name); c.delete_bucket(e.name); refused('404', lambda: c.get_bucket(e.name))
c = connect('alice')
b = c.get_bucket('bucket-v2')
url = b.get_key('copy', validate=False).generate_url(-10)
assert status(url) == 403
assert status(link_v4('/bucket-v2/copy', 60)) == 200
assert status(link_v4('/bucket-v2/copy', 60, age=61)) == 403
assert status(link_v4('/bucket-v2/copy', 60, secret='wrong')) == 403
refused('InvalidAccessKeyId', lambda: connect('nobody').get_all_buckets())
refused('SignatureDoesNotMatch', lambda: connect('alice', 'wrong').get_all_buckets())
refused('SignatureDoesNotMatch', lambda: connect('alice', 'wrong', v4=True).get_all_buckets())
"#;
    witness("both signatures", folder.path(), Profile::Rgw, script).await;
    let script = r#"
b = connect('alice').get_bucket('bucket-v4')
assert b.get_key('copy').get_contents_as_string() == b'big' * 50000
"#;
    witness("restart", folder.path(), Profile::Rgw, script).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acls_are_enforced() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
a = connect('alice').create_bucket('bucket')
k = a.new_key('hello.txt'); k.set_contents_from_string('Hello World!')
url = base + '/bucket/hello.txt'
b = connect('bob').get_bucket('bucket', validate=False)
assert status(url) == 403
refused('403', lambda: b.get_key('hello.txt'))
refused('AccessDenied', lambda: b.new_key('x').set_contents_from_string('x'))
k.set_canned_acl('public-read')
assert status(url) == 200 and status(url, 'DELETE') == 403
k.set_canned_acl('private')
assert status(url) == 403
k.add_user_grant('READ', 'bob-id')
assert b.get_key('hello.txt', validate=False).get_contents_as_string() == b'Hello World!'
refused('AccessDenied', lambda: b.get_key('hello.txt', validate=False).get_acl())
assert sorted(g.permission for g in k.get_acl().acl.grants) == ['FULL_CONTROL', 'READ']
k.set_canned_acl('public-read')
k.copy('bucket', 'hello.txt', metadata={'x': 'y'})
assert status(url) == 403, 'a copy that replaces resets the ACL'
assert a.get_key('hello.txt').metadata['x'] == 'y'
a.copy_key('hello.txt', 'bucket', 'hello.txt', metadata={'x': 'z'}, headers={'x-amz-acl': 'public-read'})
assert status(url) == 200
refused('InvalidArgument', lambda: k.set_contents_from_string('x', headers={'x-amz-acl': 'nonsense'}))
a.set_canned_acl('public-read-write')
b.new_key('of-bob').set_contents_from_string('x')
refused('403', lambda: a.get_key('of-bob'))
assert status(base + '/bucket') == 200
"#;
    witness("acls", folder.path(), Profile::Rgw, script).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_b2_like_store_has_the_buckets_acl_only() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
b = connect('alice', v4=True).create_bucket('bucket')
k = b.new_key('a'); k.set_contents_from_string('x')
refused('InvalidArgument', lambda: k.set_canned_acl('public-read'))
k.set_canned_acl('private')
refused('InvalidArgument', lambda: k.set_contents_from_string('x', headers={'x-amz-acl': 'public-read'}))
refused('InvalidArgument', lambda: k.set_xml_acl(b.get_acl().to_xml()))
assert status(base + '/bucket/a') == 403
b.set_canned_acl('public-read')
assert status(base + '/bucket/a') == 200
assert len(k.get_acl().acl.grants) == 2
"#;
    witness("b2", folder.path(), Profile::B2, script).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn multipart_uploads_and_large_copies() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
import hashlib
# Version 2: boto's version 4 sorts a header behind one whose name begins with its name, and cannot copy a range.
b = connect('alice').create_bucket('bucket')
p = [os.urandom(200000), os.urandom(300000), os.urandom(10)]
m = b.initiate_multipart_upload('big', headers={'x-amz-acl': 'public-read', 'x-amz-meta-a': 'b'})
for i, x in enumerate(p): m.upload_part_from_file(io.BytesIO(x), i + 1)
assert [q.size for q in m.get_all_parts()] == [len(x) for x in p]
assert [u.id for u in b.get_all_multipart_uploads()] == [m.id]
e = m.complete_upload().etag
tag = hashlib.md5(b''.join(hashlib.md5(x).digest() for x in p)).hexdigest() + '-3'
assert e.strip('"') == tag, e
k = b.get_key('big')
assert k.get_contents_as_string() == b''.join(p) and k.metadata['a'] == 'b'
assert k.get_contents_as_string(headers={'Range': 'bytes=199990-200009'}) == b''.join(p)[199990:200010]
assert status(base + '/bucket/big') == 200
n = b.initiate_multipart_upload('edited')
n.copy_part_from_key('bucket', 'big', 1, 100000, 399999)
n.upload_part_from_file(io.BytesIO(b'tail'), 2)
n.complete_upload()
whole = b''.join(p)
k.delete()
assert b.get_key('edited').get_contents_as_string() == whole[100000:400000] + b'tail'
z = b.initiate_multipart_upload('none'); z.cancel_upload()
assert not b.get_all_multipart_uploads()
b.new_key('huge').set_contents_from_string('x' * ((1 << 20) + 1))
refused('InvalidRequest', lambda: b.copy_key('copy', 'bucket', 'huge'))
"#;
    witness("multipart", folder.path(), Profile::Rgw, script).await;
}
