//! The one road on which requests go out: address, sign, send, judge.

use std::sync::Arc;

use md5::{Digest, Md5};
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use reqwest::{Response, Url};
use sha2::Sha256;
use time::OffsetDateTime;

use super::answer;
use super::body::{self, Progress};
use super::credentials::{CredentialSource, Keyring};
use super::direct::{CONNECT_TIMEOUT, Direct, IDLE_TIMEOUT, USER_AGENT};
use super::request::Request;
use super::sign::UNSIGNED_PAYLOAD;
use super::{Addressing, Config, Integrity, Signature, sign_v2};
use crate::format::url::{Endpoint, attachment, encode_path, encode_query, is_loopback};
use crate::format::xml;
use crate::store::profile::Profile;
use crate::store::{BucketName, Error, Kind, LinkMethod, Location, PresignRequest, Result};

/// The HTTP client with all that a request needs.
pub(super) struct Client {
    http: reqwest::Client,
    direct: Option<Direct>,
    endpoint: Endpoint,
    config: Config,
    keyring: Option<Keyring>,
    pub(super) profile: Arc<Profile>,
}

impl Client {
    pub(super) fn new(config: Config, source: CredentialSource, profile: Arc<Profile>) -> Result<Self> {
        let failed = |kind, why: String| Error::new(kind, "Connect", config.endpoint.clone(), why);
        let endpoint = Endpoint::parse(&config.endpoint).map_err(|why| failed(Kind::BadRequest, why.to_string()))?;
        let mut http = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true)
            .http1_only();
        if let Some(path) = &config.ca_file {
            let unusable = |why: String| failed(Kind::UntrustedCertificate, format!("{}: {why}", path.display()));
            let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
            let roots =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unusable(answer::chain_of(error)))?;
            http = roots.into_iter().fold(http, reqwest::ClientBuilder::add_root_certificate);
        }
        let http = http.build().map_err(|error| failed(Kind::BadRequest, answer::chain_of(error)))?;
        let keyring = match config.anonymous {
            true => None,
            false => Some(Keyring::new(source, config.region.clone()).map_err(|why| failed(Kind::AccessDenied, why))?),
        };
        profile.observe_host(&endpoint.host);
        let direct = Direct::to(&endpoint.to_string());
        Ok(Client { http, direct, endpoint, config, keyring, profile })
    }

    pub(super) async fn reload_credentials(&self) -> Result<bool> {
        let failed = |why| Error::new(Kind::AccessDenied, "Connect", self.config.endpoint.clone(), why);
        match &self.keyring {
            Some(keyring) => keyring.reload().await.map_err(failed),
            None => Ok(false),
        }
    }

    /// Sends a request; the answer is a success, its body unread.
    pub(super) async fn send(&self, request: Request) -> Result<Response> {
        let signer = self.keyring.as_ref().map(Keyring::signer);
        let error = match self.attempt(&request).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        let by_credentials = matches!(
            error.kind,
            Kind::UnknownAccessKey | Kind::BadSignature | Kind::ExpiredCredentials | Kind::AccessDenied
        );
        match (&self.keyring, signer) {
            (Some(keyring), Some(signer)) if by_credentials && keyring.has_newer(&signer, error.kind).await => {
                self.attempt(&request).await
            }
            _ => Err(error),
        }
    }

    /// Sends a request and reads the answer's document. A success that carries an error document is none.
    pub(super) async fn send_for_text(&self, request: Request) -> Result<(HeaderMap, String)> {
        let response = self.send(request.clone()).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let blame = |kind, message: &str| request.error(kind, message);
        let document = body::read_text(response, self.config.stall_timeout, blame).await?;
        if xml::parse_error(&document).is_some() {
            return Err(answer::refusal(&request, status, &headers, &document));
        }
        Ok((headers, document))
    }

    /// The bytes of an answer as they come.
    pub(super) fn download(&self, response: Response, length: u64, subject: String) -> crate::store::Body {
        body::download(response, length, self.config.stall_timeout, subject)
    }

    async fn attempt(&self, request: &Request) -> Result<Response> {
        let url = self.address(request)?;
        let mut headers = request.headers.clone();
        let payload = self.protect(request, &mut headers);
        if let Some(keyring) = &self.keyring {
            let (signer, method) = (keyring.signer(), request.method.as_str());
            let signed = match self.config.signature {
                Signature::V4 => signer.sign(method, &url, &mut headers, &payload, self.now()),
                Signature::V2 => {
                    let at = (&url, &*self.path_with_bucket(request));
                    sign_v2::sign(signer.credentials(), method, at, &mut headers, self.now())
                }
            };
            signed.map_err(|why| request.error(Kind::BadRequest, why))?;
        }
        let progress = Progress::new();
        let sending = async {
            if let Some((direct, start)) = self.direct.as_ref().zip(request.reads_from())
                && let Some(response) = direct.get(&url, &headers, (start, &request.buffers)).await
            {
                return Ok(response);
            }
            let mut http = self.http.request(request.method.clone(), url).headers(headers);
            if !request.body.is_empty() || matches!(request.method.as_str(), "PUT" | "POST") {
                http = http.header(CONTENT_LENGTH, HeaderValue::from(request.body.len()));
                http = http.body(body::upload(request.body.clone(), &progress));
            }
            http.send().await
        };
        let response = match progress.watch(self.config.stall_timeout, sending).await {
            None => return Err(request.error(Kind::TimedOut, "the store did not answer")),
            Some(Err(error)) => return Err(answer::broken(request, error)),
            Some(Ok(response)) => response,
        };
        self.profile.observe(request.bucket.as_ref(), response.headers());
        let (status, headers) = (response.status(), response.headers().clone());
        if status.is_success() {
            return Ok(response);
        }
        let blame = |kind, message: &str| request.error(kind, message);
        let document = body::read_text(response, self.config.stall_timeout, blame).await.unwrap_or_default();
        Err(answer::refusal(request, status, &headers, &document))
    }

    /// The URL of a request, sent only if the URL library kept every byte of it: a bent path is another object.
    fn address(&self, request: &Request) -> Result<Url> {
        let (text, path) = self.spell(request);
        let url = Url::parse(&text).map_err(|error| request.error(Kind::BadRequest, error.to_string()))?;
        if url.path() == path { Ok(url) } else { Err(request.error(Kind::BadRequest, "no URL can spell this key")) }
    }

    /// The URL and its path.
    fn spell(&self, request: &Request) -> (String, String) {
        let bucket = request.bucket.as_ref().map(|bucket| bucket.as_str());
        let in_host = self.is_in_host(request);
        let authority = self.endpoint.authority(bucket.filter(|_| in_host));
        let mut path = String::from("/");
        if let Some(bucket) = bucket.filter(|_| !in_host) {
            path.push_str(bucket);
            path.push_str(if request.key.is_some() { "/" } else { "" });
        }
        path.push_str(&encode_path(request.key.as_deref().unwrap_or_default()));
        let mut query: Vec<String> = request
            .query
            .iter()
            .map(|(name, value)| format!("{}={}", encode_query(name), encode_query(value)))
            .collect();
        query.sort();
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        (format!("{}://{authority}{path}{query}", self.endpoint.scheme()), path)
    }

    /// Whether the bucket is in the host's name.
    fn is_in_host(&self, request: &Request) -> bool {
        let fits_host = |bucket: &BucketName| bucket.fits_host(self.endpoint.secure);
        self.config.addressing == Addressing::Virtual && request.bucket.as_ref().is_some_and(fits_host)
    }

    /// The path as it is where the bucket is in it.
    fn path_with_bucket(&self, request: &Request) -> String {
        let (_, path) = self.spell(request);
        match &request.bucket {
            Some(bucket) if self.is_in_host(request) => format!("/{bucket}{path}"),
            _ => path,
        }
    }

    /// What the signature says of the body, and a Content-MD5 where that was asked for.
    fn protect(&self, request: &Request, headers: &mut HeaderMap) -> String {
        let hashed = match self.config.integrity {
            Integrity::Sha256 => true,
            Integrity::None | Integrity::Md5 => false,
            Integrity::Auto => !self.endpoint.secure && !is_loopback(&self.endpoint.host),
        };
        if self.config.integrity == Integrity::Md5 && !request.body.is_empty() {
            headers.insert("content-md5", content_md5(&request.body));
        }
        if hashed { hex::encode(Sha256::digest(&request.body)) } else { UNSIGNED_PAYLOAD.to_owned() }
    }

    /// The region that requests are signed for.
    pub(super) fn region(&self) -> &str {
        &self.config.region
    }

    fn now(&self) -> OffsetDateTime {
        self.config.clock.now().into()
    }

    pub(super) fn presign(&self, wanted: &PresignRequest) -> Result<String> {
        let method = match wanted.method {
            LinkMethod::Get => reqwest::Method::GET,
            LinkMethod::Put => reqwest::Method::PUT,
        };
        let mut request = Request::object("Presign", method, &wanted.location);
        if let Some(name) = &wanted.download_name {
            request = request.query("response-content-disposition", attachment(name));
        }
        let Some(keyring) = &self.keyring else {
            return Err(request.error(Kind::Unsupported, "an anonymous mount cannot sign links"));
        };
        let (url, seconds) = (self.address(&request)?, wanted.expires.as_secs() as u32);
        let (signer, method) = (keyring.signer(), request.method.as_str());
        let link = match self.config.signature {
            Signature::V4 => signer.presign(method, &url, seconds, self.now()),
            Signature::V2 => {
                let at = (&url, &*self.path_with_bucket(&request));
                sign_v2::presign(signer.credentials(), method, at, seconds, self.now())
            }
        };
        link.map_err(|why| request.error(Kind::BadRequest, why))
    }

    pub(super) fn plain_url(&self, location: &Location) -> String {
        self.spell(&Request::object("Link", reqwest::Method::GET, location)).0
    }
}

/// `Content-MD5` of a body, which DeleteObjects demands.
pub(super) fn content_md5(body: &[u8]) -> HeaderValue {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(Md5::digest(body));
    HeaderValue::from_str(&text).expect("base64 is ASCII")
}
