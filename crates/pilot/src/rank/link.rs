//! The rank's end of the connection to its agent, for writing from several threads.

use std::{
    os::unix::net::UnixStream,
    sync::{Mutex, PoisonError},
};

use crate::wire::{self, FromRank};

#[derive(Debug)]
pub(super) struct Link {
    stream: Mutex<UnixStream>,
}

impl Link {
    pub(super) fn new(stream: UnixStream) -> Link {
        Link { stream: Mutex::new(stream) }
    }

    /// Sends one message. A broken connection is noticed by the reading thread, which ends the process.
    pub(super) fn send(&self, message: &FromRank) {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = wire::write(&mut *stream, message);
    }
}
