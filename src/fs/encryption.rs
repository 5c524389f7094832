//! How the store encrypts an object, behind `user.s3.encryption`.
//!
//! It refuses to tell it from memory: a store may take the request and not heed it (RGW without a key does).

use crate::error::{Error, Meaning, Result};
use crate::format::encryption::split;
use crate::store::ObjectHeaders;
use crate::tree::Ino;

use super::Fs;

impl Fs {
    /// How the object is encrypted, as the store has it now.
    pub(crate) async fn encryption(&self, ino: Ino) -> Result<Option<String>> {
        let known = self.known_headers(ino).await?;
        let Some(location) = self.place(ino)?.location().filter(|_| known.is_some() && !self.is_old(ino)) else {
            return Ok(known.and_then(|known| known.encryption.clone()));
        };
        self.store_now(ino).await?;
        self.settle_name(ino).await?;
        let told = self.store.head(&location, None).await?.headers.encryption;
        if let Some(known) = known.filter(|known| known.encryption != told) {
            let headers = ObjectHeaders { encryption: told.clone(), ..(*known).clone() };
            self.tree.update(ino, |inode| inode.set_headers(Some(headers)));
        }
        Ok(told)
    }

    /// Changes it, and looks whether that was heeded. What is being written has it with its next version.
    pub(super) async fn set_encryption(&self, ino: Ino, wanted: &str) -> Result<()> {
        self.set_header(ino, "encryption", Some(wanted)).await?;
        if self.files.get(ino).is_some_and(|file| file.bytes.is_dirty()) {
            return Ok(());
        }
        let told = self.encryption(ino).await?;
        match told.as_deref().is_some_and(|told| split(told).0 == split(wanted).0) {
            true => Ok(()),
            false => {
                log::warn!("{}: the store took {wanted:?} and does not encrypt so", self.path(ino));
                Err(Error::new(Meaning::Unsupported, "user.s3.encryption"))
            }
        }
    }
}
