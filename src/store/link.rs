//! What a link is to allow, and for how long.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Location;

/// The longest life of a signed link: seven days (Amazon S3 user guide, "Sharing objects with presigned URLs").
pub const LINK_EXPIRES_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// A link that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresignRequest {
    /// The object.
    pub location: Location,
    /// What the link lets its holder do.
    pub method: LinkMethod,
    /// For how long; at most [`LINK_EXPIRES_MAX`].
    pub expires: Duration,
    /// The name under which browsers keep what they get by it.
    pub download_name: Option<String>,
}

/// What a link lets its holder do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LinkMethod {
    /// Get the object.
    #[default]
    Get,
    /// Store it, whether or not it is there.
    Put,
}

impl LinkMethod {
    /// Its name in HTTP.
    pub fn name(self) -> &'static str {
        match self {
            LinkMethod::Get => "GET",
            LinkMethod::Put => "PUT",
        }
    }
}
