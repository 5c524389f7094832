//! The keys that requests are signed with, and when they are read again.
//!
//! A [`Keyring`] holds the signer of the newest credentials. It asks its source at the start, when told to, and when
//! the store refuses a request because of them; always on a thread that may block, since the source may run a
//! program. It never shows a secret.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;

use super::sign::Signer;
use crate::store::Kind;

/// How long after a reading an `AccessDenied` starts no other: a forbidden folder is not a reason to read files for
/// each of its names.
const DENIED_PAUSE: Duration = Duration::from_secs(1);

/// An access key with its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The public half.
    pub access_key: String,
    /// The secret half.
    pub secret_key: String,
    /// The token of temporary credentials.
    pub session_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

/// Reads the credentials as they are now, or says in a sentence without secrets why it cannot. May block.
pub type CredentialSource = Arc<dyn Fn() -> std::result::Result<Credentials, String> + Send + Sync>;

/// The newest credentials, ready to sign.
pub(super) struct Keyring {
    source: CredentialSource,
    region: String,
    signer: RwLock<Arc<Signer>>,
    /// When the source was last asked. Held while it is asked, so that many refusals at once ask it once.
    asked: tokio::sync::Mutex<Instant>,
}

impl Keyring {
    /// Asks the source for the first time, on the calling thread.
    pub(super) fn new(source: CredentialSource, region: String) -> Result<Self, String> {
        let signer = RwLock::new(Arc::new(Signer::new(source()?, &region)));
        Ok(Keyring { source, region, signer, asked: tokio::sync::Mutex::new(Instant::now()) })
    }

    /// What signs now.
    pub(super) fn signer(&self) -> Arc<Signer> {
        self.signer.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the source again; answers whether the credentials changed.
    pub(super) async fn reload(&self) -> Result<bool, String> {
        let mut asked = self.asked.lock().await;
        self.ask(&mut asked).await
    }

    /// Whether there is another signer than the `refused` one, asking the source if need be. `kind` is the refusal.
    pub(super) async fn has_newer(&self, refused: &Arc<Signer>, kind: Kind) -> bool {
        let mut asked = self.asked.lock().await;
        if !Arc::ptr_eq(&self.signer(), refused) {
            return true;
        }
        if kind == Kind::AccessDenied && asked.elapsed() < DENIED_PAUSE {
            return false;
        }
        match self.ask(&mut asked).await {
            Ok(changed) => changed,
            Err(why) => {
                log::warn!("the credentials cannot be read again: {why}");
                false
            }
        }
    }

    async fn ask(&self, asked: &mut Instant) -> Result<bool, String> {
        let source = self.source.clone();
        let answer = tokio::task::spawn_blocking(move || source()).await;
        *asked = Instant::now();
        let credentials = answer.map_err(|_| "reading them failed inside".to_owned())??;
        if self.signer().credentials() == &credentials {
            return Ok(false);
        }
        log::info!("signing with new credentials, access key {}", credentials.access_key);
        let signer = Arc::new(Signer::new(credentials, &self.region));
        *self.signer.write().unwrap_or_else(PoisonError::into_inner) = signer;
        Ok(true)
    }
}
