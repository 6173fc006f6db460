//! A lock that is waited for with a deadline.

use std::{
    ops::{Deref, DerefMut},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{Result, transport::Deadline};

/// How often a wait looks whether it was cancelled: the thread whose turn it is knows nothing of the token.
const LOOK: Duration = Duration::from_millis(10);

/// Holds a value for one thread at a time. Unlike a `Mutex` it can be held across a blocking call without making
/// the other threads' waits endless.
#[derive(Debug)]
pub(crate) struct Turn<T> {
    value: Mutex<Option<T>>,
    returned: Condvar,
}

impl<T> Turn<T> {
    pub(crate) fn new(value: T) -> Self {
        Turn { value: Mutex::new(Some(value)), returned: Condvar::new() }
    }

    /// Waits for the turn, which serves a call that is about `rank`.
    ///
    /// # Errors
    /// Those of [`Deadline::remaining`].
    pub(crate) fn take(&self, rank: impl Into<Option<usize>>, deadline: Deadline<'_>) -> Result<Held<'_, T>> {
        let rank = rank.into();
        let mut value = self.lock();
        loop {
            if let Some(value) = value.take() {
                return Ok(Held { turn: self, value: Some(value) });
            }
            let left = deadline.remaining(rank)?;
            let left = if deadline.cancel.is_some() { left.min(LOOK) } else { left };
            value = self.returned.wait_timeout(value, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A turn taken; ends when dropped.
pub(crate) struct Held<'a, T> {
    turn: &'a Turn<T>,
    value: Option<T>,
}

const HELD: &str = "a held turn has its value until it is dropped";

impl<T> Deref for Held<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value.as_ref().expect(HELD)
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect(HELD)
    }
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        *self.turn.lock() = self.value.take();
        self.turn.returned.notify_one();
    }
}
