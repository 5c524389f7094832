//! Memory that whoever asks for bytes lends to whoever receives them. Refuses nothing: where it is used up, or of no
//! use, the receiver makes its own.

use std::sync::{Arc, Mutex, PoisonError};

/// Empty buffers of [`super::PIECE_BYTES`] that bytes may be received into. What is received comes as pieces made of
/// them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// Lends these.
    pub fn new(buffers: Vec<Vec<u8>>) -> Self {
        Buffers(Arc::new(Mutex::new(buffers)))
    }

    /// One of them.
    pub fn take(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}
