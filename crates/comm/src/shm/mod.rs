//! Ranks that are processes of one host.

use std::{io, sync::Arc};

use crate::{
    Error, Rendezvous, Result,
    transport::{Deadline, Message, Tag, Transport},
};

#[derive(Debug)]
pub(crate) struct SharedMemory(crate::threads::Threads);

impl SharedMemory {
    pub(crate) fn connect(at: &Rendezvous) -> Result<Self> {
        Err(Error::io(format!("meet in {}", at.dir.display()), io::Error::from(io::ErrorKind::Unsupported)))
    }
}

impl Transport for SharedMemory {
    fn rank(&self) -> usize {
        self.0.rank()
    }
    fn size(&self) -> usize {
        self.0.size()
    }
    fn send(&self, to: usize, tag: Tag, message: Message, deadline: Deadline) -> Result<()> {
        self.0.send(to, tag, message, deadline)
    }
    fn recv(&self, from: usize, tag: Tag, deadline: Deadline) -> Result<Message> {
        self.0.recv(from, tag, deadline)
    }
    fn subgroup(&self, ranks: &[usize], context: u64, deadline: Deadline) -> Result<Arc<dyn Transport>> {
        self.0.subgroup(ranks, context, deadline)
    }
    fn abort(&self, reason: &str) {
        self.0.abort(reason);
    }
}
