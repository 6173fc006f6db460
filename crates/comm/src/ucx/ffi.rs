//! `shim.h`, in Rust. Nothing else in this crate calls it.

use std::{
    ffi::{CStr, c_char, c_int},
    os::fd::BorrowedFd,
    ptr::NonNull,
};

/// Room for what UCX says of an error.
const WHY: usize = 256;

#[repr(C)]
struct Raw {
    _opaque: [u8; 0],
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct RawEvent {
    kind: u32,
    status: i32,
    ticket: u64,
}

unsafe extern "C" {
    fn drc_ucx_open(size: usize, why: *mut c_char, room: usize) -> *mut Raw;
    fn drc_ucx_address(group: *mut Raw, bytes: *mut u8, room: usize) -> usize;
    fn drc_ucx_descriptor(group: *mut Raw) -> c_int;
    fn drc_ucx_connect(group: *mut Raw, rank: usize, address: *const u8, watched: c_int, why: *mut c_char, room: usize) -> c_int;
    fn drc_ucx_send(
        group: *mut Raw,
        rank: usize,
        tag: u64,
        bytes: *const u8,
        length: usize,
        ticket: u64,
        why: *mut c_char,
        room: usize,
    ) -> c_int;
    fn drc_ucx_receive(
        group: *mut Raw,
        tag: u64,
        mask: u64,
        bytes: *mut u8,
        length: usize,
        ticket: u64,
        why: *mut c_char,
        room: usize,
    ) -> c_int;
    fn drc_ucx_flush(group: *mut Raw, ticket: u64, why: *mut c_char, room: usize) -> c_int;
    fn drc_ucx_progress(group: *mut Raw) -> usize;
    fn drc_ucx_event(group: *mut Raw, event: *mut RawEvent) -> c_int;
    fn drc_ucx_arm(group: *mut Raw) -> c_int;
    fn drc_ucx_signal(group: *mut Raw);
    fn drc_ucx_close(group: *mut Raw);
}

/// Something that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// An operation.
    Done { ticket: u64 },
    /// An operation that failed.
    Failed { ticket: u64 },
    /// The connection with a rank.
    Ended { rank: usize },
}

/// A worker of UCX and its endpoints. Not for several threads at the same time.
#[derive(Debug)]
pub(super) struct Worker(NonNull<Raw>);

// SAFETY: UCX wants one thread at a time (`UCS_THREAD_MODE_SERIALIZED`), which `&mut self` makes sure of, but no particular one.
unsafe impl Send for Worker {}

/// Wakes the thread that waits at the descriptor of a worker. Must not be used after the worker was dropped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bell(NonNull<Raw>);

// SAFETY: `ucp_worker_signal` writes to a file descriptor, from any thread.
unsafe impl Send for Bell {}
// SAFETY: as above.
unsafe impl Sync for Bell {}

impl Worker {
    /// A worker that can reach `size` ranks. The reason when that cannot be.
    pub(super) fn open(size: usize) -> Result<Self, String> {
        let mut raw = std::ptr::null_mut();
        explained(|why, room| {
            // SAFETY: nothing but plain values.
            raw = unsafe { drc_ucx_open(size, why, room) };
            c_int::from(raw.is_null())
        })?;
        Ok(Worker(NonNull::new(raw).expect("null is an error")))
    }

    fn raw(&self) -> *mut Raw {
        self.0.as_ptr()
    }

    /// Where other processes reach it.
    pub(super) fn address(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        loop {
            // SAFETY: as many bytes may be written as there are.
            let length = unsafe { drc_ucx_address(self.raw(), bytes.as_mut_ptr(), bytes.len()) };
            if length <= bytes.len() {
                bytes.truncate(length);
                return bytes;
            }
            bytes.resize(length, 0);
        }
    }

    pub(super) fn bell(&self) -> Bell {
        Bell(self.0)
    }

    /// Makes the way to a rank. Of one that is watched, UCX need not notice the death itself, so it may use shared memory.
    pub(super) fn connect(&mut self, rank: usize, address: &[u8], watched: bool) -> Result<(), String> {
        // SAFETY: UCX checks the address, which it reads during the call. The rank is below the size.
        explained(|why, room| unsafe { drc_ucx_connect(self.raw(), rank, address.as_ptr(), watched.into(), why, room) })
    }

    /// Begins to send.
    ///
    /// # Safety
    /// The bytes must stay until an event with the ticket, or until the worker was dropped; the rank is connected.
    pub(super) unsafe fn send(&mut self, rank: usize, tag: u64, bytes: &[u8], ticket: u64) -> Result<(), String> {
        // SAFETY: the caller's promise.
        explained(|why, room| unsafe { drc_ucx_send(self.raw(), rank, tag, bytes.as_ptr(), bytes.len(), ticket, why, room) })
    }

    /// Begins to receive a message whose tag agrees in the bits of the mask.
    ///
    /// # Safety
    /// The memory must stay, and nobody may use it, until an event with the ticket, or until the worker was dropped.
    pub(super) unsafe fn receive(&mut self, tag: u64, mask: u64, memory: *mut u8, length: usize, ticket: u64) -> Result<(), String> {
        // SAFETY: the caller's promise.
        explained(|why, room| unsafe { drc_ucx_receive(self.raw(), tag, mask, memory, length, ticket, why, room) })
    }

    /// Has everything that was sent leave this process.
    pub(super) fn flush(&mut self, ticket: u64) -> Result<(), String> {
        // SAFETY: nothing but plain values.
        explained(|why, room| unsafe { drc_ucx_flush(self.raw(), ticket, why, room) })
    }

    /// Moves bytes until there is an event, or nothing to do.
    pub(super) fn progress(&mut self) -> bool {
        // SAFETY: the worker lives.
        unsafe { drc_ucx_progress(self.raw()) > 0 }
    }

    /// The oldest event.
    pub(super) fn event(&mut self) -> Option<Event> {
        let mut event = RawEvent::default();
        // SAFETY: the event is written during the call.
        if unsafe { drc_ucx_event(self.raw(), &raw mut event) } == 0 {
            return None;
        }
        let RawEvent { kind, status, ticket } = event;
        Some(match (kind, status) {
            (3, _) => Event::Ended { rank: ticket as usize },
            (_, 0) => Event::Done { ticket },
            _ => Event::Failed { ticket },
        })
    }

    /// Whether there is nothing to do, so that one may wait at the descriptor.
    pub(super) fn arm(&mut self) -> bool {
        // SAFETY: the worker lives.
        unsafe { drc_ucx_arm(self.raw()) == 1 }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // SAFETY: the worker was opened, and is closed only here.
        unsafe { drc_ucx_close(self.raw()) }
    }
}

impl Bell {
    /// Makes the descriptor readable.
    pub(super) fn ring(self) {
        // SAFETY: the worker lives, by the promise of the type.
        unsafe { drc_ucx_signal(self.0.as_ptr()) }
    }

    /// Becomes readable when an armed worker has something to do.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the worker's, which lives, by the promise of the type.
        unsafe { BorrowedFd::borrow_raw(drc_ucx_descriptor(self.0.as_ptr())) }
    }
}

/// Calls a function that answers 0, or anything else and the reason.
fn explained(call: impl FnOnce(*mut c_char, usize) -> c_int) -> Result<(), String> {
    let mut why = [0u8; WHY];
    if call(why.as_mut_ptr().cast(), WHY) == 0 {
        return Ok(());
    }
    Err(CStr::from_bytes_until_nul(&why).map(|why| why.to_string_lossy().into_owned()).unwrap_or_default())
}
