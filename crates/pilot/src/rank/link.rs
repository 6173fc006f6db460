//! The rank's end of the connection to its agent, for writing from several threads.

use std::{
    io,
    os::unix::net::UnixStream,
    sync::{Mutex, PoisonError},
};

use serde_json::Value;

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
        match wire::write(&mut *stream, message) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                // Nothing was written. Progress is lost; without an answer the task would never end.
                if let FromRank::Returned { at, .. } | FromRank::Failed { at, .. } = message {
                    let message = format!("the function's answer cannot be sent: {error}");
                    let answer = FromRank::Failed { at: *at, message, detail: Value::Null, panicked: false };
                    let _ = wire::write(&mut *stream, &answer);
                }
            }
            _ => {}
        }
    }
}
