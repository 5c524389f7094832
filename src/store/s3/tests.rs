//! What the adapter may never do, shown on the bytes it sends.
