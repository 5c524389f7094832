//! What the flags and numbers of the kernel's requests mean.

use fuser::{OpenAccMode, OpenFlags, TimeOrNow};

use crate::fs::attr::SetTime;
use crate::fs::open::Access;

/// How a file is opened (open(2)).
pub(super) fn access_of(flags: OpenFlags) -> Access {
    let mode = flags.acc_mode();
    Access {
        read: mode != OpenAccMode::O_WRONLY,
        write: mode != OpenAccMode::O_RDONLY,
        truncate: flags.0 & libc::O_TRUNC != 0,
        exclusive: flags.0 & libc::O_EXCL != 0,
    }
}

/// Whether open(2) flags say that every write goes to the end.
pub(super) fn appends(flags: OpenFlags) -> bool {
    flags.0 & libc::O_APPEND != 0
}

/// Whether a mode is that of a regular file.
pub(super) fn is_regular(mode: u32) -> bool {
    mode & libc::S_IFMT == libc::S_IFREG
}

/// A time to set.
pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(time),
    }
}
