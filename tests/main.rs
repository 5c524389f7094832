//! Everything that needs more than one module: one binary, a module per theme.

/// Starting stores and mounts, running tools, asking boto.
mod harness;

/// The border rules of the code.
mod tidy;

/// What every store promises: one suite over all of them.
mod conformance;

/// The embedded server, by its own protocol.
mod serve;

/// The embedded server, killed in mid-traffic.
mod serve_crash;

/// Content headers, and that no road to a new version loses an attribute.
mod kept;

/// The table of attributes.
mod attributes;

/// What is put onto a version after it was made.
mod finish;

/// ACLs, of many files at once too.
mod acl;

/// Links that lend the mounter's credentials.
mod links;

/// Every example of the store's own manual, through the mount, with boto as the witness.
mod manual;

/// How many requests a thing costs.
mod requests;

/// Walks, large directories, names that other clients change.
mod names;

/// What names cost in memory.
mod memory;

/// Very many names, in one directory and in many.
mod large;

/// Ordinary tools at work in a mount.
mod tools;

/// Files of other programs.
mod interop;

/// Versions, and what a mount cannot show.
mod versions;

/// Logs that are appended to.
mod append;

/// Copies inside a mount, which the server makes.
mod copy;

/// A file system exerciser at work.
mod fsx;

/// Write-back.
mod journal;

/// Uploads that go on where a daemon died.
mod resume;

/// What two programs, or two clients, see of each other.
mod sharing;

/// Two clients that write the same names.
mod conflict;

/// Daemons that die, stores that go away.
mod crash;

/// Wrong keys, wrong names, wrong places: one line each, nothing half done.
mod bad_input;

/// Ordinary users, and users beside each other.
mod users;

/// An `Fs` over a store in memory, without a kernel.
mod stand;

/// `Fs` against a model of what a POSIX user expects.
mod model;

/// The engine of reading: faults, stalls, memory, waste, and what is kept.
mod reading;

/// Every verb × every fault.
mod faults;
