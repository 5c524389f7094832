//! The S3 adapter, under the whole stack, against the embedded server and a real Ceph RGW.

use std::num::NonZeroUsize;
use std::sync::Arc;

use dreamfs::clock::Clock;
use dreamfs::store::Store;
use dreamfs::store::limit::Limit;
use dreamfs::store::profile::Profile;
use dreamfs::store::retry::{Retry, RetryConfig};
use dreamfs::store::s3::{Addressing, Config, Credentials, Integrity, S3Store, STALL_TIMEOUT_DEFAULT, Signature};
use dreamfs::store::trace::Trace;

use super::{Expectations, run_all};
use crate::harness::{Kind, Rig};

/// The adapter alone, as alice.
pub fn client(endpoint: &str) -> S3Store {
    signing(endpoint, Signature::V4)
}

fn signing(endpoint: &str, signature: Signature) -> S3Store {
    let config = Config {
        endpoint: endpoint.to_owned(),
        region: "us-east-1".to_owned(),
        addressing: Addressing::Auto,
        signature,
        anonymous: false,
        ca_file: None,
        integrity: Integrity::Auto,
        stall_timeout: STALL_TIMEOUT_DEFAULT,
        clock: Clock::system(),
    };
    let keys = Credentials { access_key: "alicekey".into(), secret_key: "alicesecret".into(), session_token: None };
    S3Store::new(config, Arc::new(move || Ok(keys.clone())), Arc::new(Profile::new())).expect("made")
}

pub fn stack(endpoint: &str) -> Arc<dyn Store> {
    stacked(client(endpoint))
}

fn stacked(client: S3Store) -> Arc<dyn Store> {
    let limit = Limit::new(Arc::new(client), NonZeroUsize::new(8).expect("not zero"));
    Arc::new(Trace::new(Arc::new(Retry::new(Arc::new(limit), RetryConfig::default()))))
}

/// What both have in common: RGW answers Ok to the owner's second creation, takes tags with a PUT
/// only, and knows no condition on completing.
fn expectations() -> Expectations {
    Expectations {
        own_bucket_again_is_ok: true,
        tags_ride: false,
        complete_conditions: false,
        metadata_bound: false,
        part_bytes_min: 5 << 20,
        ..Expectations::default()
    }
}

#[tokio::test]
async fn s3_on_the_embedded_server() {
    let rig = Rig::start(Kind::Embedded, "s3_on_the_embedded_server").expect("always there");
    run_all(stack(&rig.endpoint), expectations()).await;
}

#[tokio::test]
async fn s3_on_ceph_rgw() {
    let Some(rig) = Rig::start(Kind::Rgw, "s3_on_ceph_rgw") else { return };
    let what = Expectations { copy_if_match: false, strict_uploads: false, appends: true, ..expectations() };
    run_all(stack(&rig.endpoint), what).await;
}

/// The older signature, over every kind of request.
#[tokio::test]
async fn s3_with_signature_version_2() {
    for kind in [Kind::Embedded, Kind::Rgw] {
        let Some(rig) = Rig::start(kind, "s3_with_signature_version_2") else { continue };
        let expectations = Expectations {
            presign: false,
            copy_if_match: kind != Kind::Rgw,
            strict_uploads: kind != Kind::Rgw,
            appends: kind == Kind::Rgw,
            ..expectations()
        };
        run_all(stacked(signing(&rig.endpoint, Signature::V2)), expectations).await;
    }
}
