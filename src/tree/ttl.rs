//! How long names and attributes are believed: for a tenth of the time that a directory has not changed, as NFS clients
//! do it. Pure.

use std::time::Duration;

/// A directory that has not changed for so long is believed for a part of that.
const SHARE: u32 = 10;

/// The bounds within which names and attributes are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    min: Duration,
    max: Duration,
}

impl Ttl {
    /// What NFS clients use by default for files (acregmin, acregmax).
    pub const ADAPTIVE: Ttl = Ttl { min: Duration::from_secs(3), max: Duration::from_secs(60) };

    /// Always the same.
    pub const fn fixed(ttl: Duration) -> Ttl {
        Ttl { min: ttl, max: ttl }
    }

    /// The least.
    pub fn min(&self) -> Duration {
        self.min
    }

    /// Whether nothing is ever believed.
    pub fn is_zero(&self) -> bool {
        self.max.is_zero()
    }

    /// For a directory that has not changed for so long.
    pub fn of(&self, unchanged: Duration) -> Duration {
        (unchanged / SHARE).clamp(self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_the_same_is_believed_longer() {
        for (unchanged, adaptive) in [(0, 3), (30, 3), (100, 10), (599, 59), (600, 60), (1 << 30, 60)] {
            let told = Ttl::ADAPTIVE.of(Duration::from_secs(unchanged));
            assert_eq!(told.as_secs(), adaptive, "{unchanged} s");
            assert_eq!(Ttl::fixed(Duration::from_secs(7)).of(Duration::from_secs(unchanged)).as_secs(), 7);
        }
    }
}
