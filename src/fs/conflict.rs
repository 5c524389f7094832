//! What becomes of bytes whose writer lost a race: another client stored something under the name since it was seen
//! here. The bytes go beside it under a name that says so, and the one who wrote them is told.

use time::OffsetDateTime;
use time::macros::format_description;

use crate::data::Replaces;
use crate::error::{Error, Meaning};
use crate::store::{Key, Location, ObjectHeaders};

use super::files::OpenFile;
use super::{Fs, Notice};

impl Fs {
    /// Keeps the bytes of a file whose commit to `location` found another client's version there, and leaves the name
    /// to that. Answers the error for the caller: EBUSY for a file that was made here, ESTALE for one that was changed.
    /// With the file's lock held.
    pub(crate) async fn lose_race(
        &self,
        file: &OpenFile,
        location: &Location,
        headers: &ObjectHeaders,
        cause: Error,
    ) -> Error {
        let path = self.path(file.ino);
        let meaning = if file.bytes.version().is_some() { Meaning::Stale } else { Meaning::Busy };
        file.note_overtaken();
        let parked = self.park_beside(file, location, headers).await;
        match &parked {
            Some(place) => log::error!("{path}: another client stored it meanwhile; what was written here is {place}"),
            None => log::error!("{path}: another client stored it meanwhile, and what was written here is lost"),
        }
        let name = self.tree.read(file.ino, |inode| inode.parent_and_name());
        self.tree.update(file.ino, |inode| inode.local = false);
        if let Err(error) = self.look_again(file).await {
            log::warn!("{path}: what the other client stored cannot be looked up: {error}");
        }
        if let Some((parent, name)) = name {
            self.notify(Notice::Entry(parent, name));
        }
        Error::with_source(meaning, format!("{path}: another client stored it meanwhile"), cause)
    }

    /// Stores the bytes beside the name, or if that fails leaves them in the state folder. Answers where they are.
    async fn park_beside(&self, file: &OpenFile, location: &Location, headers: &ObjectHeaders) -> Option<String> {
        let now = OffsetDateTime::from(self.clock.now());
        let time = now.format(format_description!("[year][month][day]T[hour][minute][second]Z")).ok()?;
        let key = Key::new(&format!("{}.conflict-{}-{time}", location.key, self.config.host_name));
        let failure = match key.map(|key| Location { bucket: location.bucket.clone(), key }) {
            Ok(beside) => match file.bytes.commit(&beside, headers, Replaces::ItsBase).await {
                Ok((version, _)) => return Some(format!("now {}", version.location)),
                Err(error) => error.to_string(),
            },
            Err(why) => why.to_string(),
        };
        log::warn!("{}: cannot be stored beside the other version: {failure}", self.path(file.ino));
        let place = file.bytes.park(location)?;
        Some(format!("kept in {}", place.display()))
    }
}
