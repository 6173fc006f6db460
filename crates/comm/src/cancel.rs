//! Calling off what ranks wait for.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::Transport;

/// Ends the calls of a communicator from outside, for example when the user presses Ctrl-C. A clone is the same token.
///
/// ```
/// use deeprc_comm::{CancelToken, Communicator, Error};
///
/// let token = CancelToken::new();
/// let comm = Communicator::solo().with_cancel(&token);
/// let waiting = std::thread::spawn(move || comm.recv(0, 1));
/// token.cancel();
/// assert!(matches!(waiting.join().expect("no panic"), Err(Error::Cancelled { operation: "recv" })));
/// ```
#[derive(Clone, Default)]
pub struct CancelToken {
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    cancelled: AtomicBool,
    /// Those whose calls may sleep.
    sleepers: Mutex<Vec<Weak<dyn Transport>>>,
}

impl CancelToken {
    /// A token that nobody has cancelled.
    pub fn new() -> Self {
        CancelToken::default()
    }

    /// Ends the blocked and all later calls of the communicators with this token with
    /// [`Error::Cancelled`](crate::Error::Cancelled). The other ranks are not told: they see this rank leave.
    pub fn cancel(&self) {
        self.state.cancelled.store(true, Ordering::SeqCst);
        let sleepers = std::mem::take(&mut *self.state.sleepers.lock().unwrap_or_else(PoisonError::into_inner));
        sleepers.iter().filter_map(Weak::upgrade).for_each(|transport| transport.wake());
    }

    /// Whether [`cancel`](CancelToken::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.state.cancelled.load(Ordering::SeqCst)
    }

    /// Has a transport woken when the token is cancelled.
    pub(crate) fn register(&self, transport: &Arc<dyn Transport>) {
        let mut sleepers = self.state.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        sleepers.retain(|known| known.strong_count() > 0);
        sleepers.push(Arc::downgrade(transport));
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelToken").field(&self.is_cancelled()).finish()
    }
}
