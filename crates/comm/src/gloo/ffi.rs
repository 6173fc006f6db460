//! `shim.h`, in Rust. Nothing else in this crate calls it.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    ptr::{self, NonNull},
    slice,
    sync::atomic::{AtomicPtr, Ordering},
};

/// Room for what Gloo says of an error.
const WHY: usize = 512;
/// Longer than any address that Gloo writes (`transport/address.h`).
const ADDRESS: usize = 192;

#[repr(C)]
struct Raw {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawListener {
    of: *const c_void,
    frame: extern "C" fn(*const c_void, usize, *const u8, usize),
    received: extern "C" fn(*const c_void, usize),
    sent: extern "C" fn(*const c_void, usize, usize, usize),
    ended: extern "C" fn(*const c_void, usize),
}

unsafe extern "C" {
    fn drc_gloo_open(
        rank: usize,
        size: usize,
        frame: usize,
        interface: *const c_char,
        address: *const c_char,
        patience: u64,
        listener: RawListener,
        why: *mut c_char,
        room: usize,
    ) -> *mut Raw;
    fn drc_gloo_address(group: *mut Raw, rank: usize, bytes: *mut u8, room: usize) -> usize;
    fn drc_gloo_connect(group: *mut Raw, rank: usize, address: *const u8, length: usize, why: *mut c_char, room: usize) -> c_int;
    fn drc_gloo_send_frame(group: *mut Raw, rank: usize, bytes: *const u8, length: usize, why: *mut c_char, room: usize) -> c_int;
    fn drc_gloo_send(group: *mut Raw, rank: usize, bytes: *const u8, length: usize, why: *mut c_char, room: usize) -> c_int;
    fn drc_gloo_receive(group: *mut Raw, rank: usize, bytes: *mut u8, length: usize, why: *mut c_char, room: usize) -> c_int;
    fn drc_gloo_hang_up(group: *mut Raw, rank: usize);
    fn drc_gloo_close(group: *mut Raw);
}

/// Who is told what comes, on Gloo's thread (`sent` also on a sender's). None of it may block for long.
pub(super) trait Listener: Send + Sync + 'static {
    /// The next frame of a rank; what follows its content is noise.
    fn frame(&self, line: &Line, rank: usize, frame: &[u8]);
    /// The oldest memory that was given for bodies of this rank is filled.
    fn received(&self, line: &Line, rank: usize);
    /// So many of the oldest frames and bodies to a rank are with the operating system.
    fn sent(&self, rank: usize, frames: usize, bodies: usize);
    /// The connection has ended, and everything that came over it was told.
    fn ended(&self, rank: usize);
}

/// Where a rank listens.
#[derive(Debug)]
pub(super) enum Place {
    /// The first address of an interface.
    Interface(CString),
    /// A numeric address.
    Address(CString),
}

/// The connections of a rank; ended when dropped, and then the listener hears nothing more.
pub(super) struct Group<L: Listener> {
    line: Line,
    wiring: Box<Wiring<L>>,
}

/// What the functions below find behind the pointer that C++ hands them.
struct Wiring<L> {
    listener: L,
    /// Null until the group is open.
    raw: AtomicPtr<Raw>,
}

/// The connections as the listener and the threads of a link use them: all calls may come from any thread at any time
/// while the group lives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line(NonNull<Raw>);

// SAFETY: the functions of the shim lock what they use; `close` alone is left to the owner of the group.
unsafe impl Send for Line {}
// SAFETY: as above.
unsafe impl Sync for Line {}

impl<L: Listener> Group<L> {
    /// Listens, for each other rank. The reason when that cannot be.
    pub(super) fn open(rank: usize, size: usize, frame: usize, place: &Place, patience: u64, listener: L) -> Result<Self, String> {
        let wiring = Box::new(Wiring { listener, raw: AtomicPtr::new(ptr::null_mut()) });
        let of = ptr::from_ref(&*wiring).cast();
        let told = RawListener { of, frame: frame_came::<L>, received: body_came::<L>, sent: sent::<L>, ended: ended::<L> };
        let (interface, address) = match place {
            Place::Interface(name) => (name.as_c_str(), c""),
            Place::Address(address) => (c"", address.as_c_str()),
        };
        let mut raw = ptr::null_mut();
        explained(|why, room| {
            // SAFETY: the strings live through the call; `of` points into the box, which the group keeps until it has closed.
            raw = unsafe { drc_gloo_open(rank, size, frame, interface.as_ptr(), address.as_ptr(), patience, told, why, room) };
            c_int::from(raw.is_null())
        })?;
        wiring.raw.store(raw, Ordering::SeqCst);
        Ok(Group { line: Line(NonNull::new(raw).expect("null is an error")), wiring })
    }

    pub(super) fn line(&self) -> &Line {
        &self.line
    }

    pub(super) fn listener(&self) -> &L {
        &self.wiring.listener
    }
}

impl<L: Listener> Drop for Group<L> {
    fn drop(&mut self) {
        // SAFETY: the group was opened, and is closed only here. The wiring is dropped after that.
        unsafe { drc_gloo_close(self.line.0.as_ptr()) };
    }
}

impl Line {
    /// Where a rank has to connect to.
    pub(super) fn address(&self, rank: usize) -> Vec<u8> {
        let mut bytes = vec![0; ADDRESS];
        // SAFETY: as many bytes may be written as there are.
        let length = unsafe { drc_gloo_address(self.0.as_ptr(), rank, bytes.as_mut_ptr(), bytes.len()) };
        bytes.truncate(length);
        bytes
    }

    /// Waits for the connection with a rank.
    pub(super) fn connect(&self, rank: usize, address: &[u8]) -> Result<(), String> {
        // SAFETY: the address is read during the call.
        explained(|why, room| unsafe { drc_gloo_connect(self.0.as_ptr(), rank, address.as_ptr(), address.len(), why, room) })
    }

    /// Sends a copy.
    pub(super) fn send_frame(&self, rank: usize, frame: &[u8]) -> Result<(), String> {
        // SAFETY: the frame is read during the call.
        explained(|why, room| unsafe { drc_gloo_send_frame(self.0.as_ptr(), rank, frame.as_ptr(), frame.len(), why, room) })
    }

    /// Begins to send these very bytes.
    ///
    /// # Safety
    /// They must stay until the listener hears that they were sent, or until the group was dropped.
    pub(super) unsafe fn send(&self, rank: usize, body: &[u8]) -> Result<(), String> {
        // SAFETY: the caller keeps the bytes.
        explained(|why, room| unsafe { drc_gloo_send(self.0.as_ptr(), rank, body.as_ptr(), body.len(), why, room) })
    }

    /// Gives the memory for the next body of a rank. Only for a listener that is being told of a frame of this rank.
    ///
    /// # Safety
    /// It must stay, and nobody may use it, until the listener hears that it is filled, or until the group was dropped.
    pub(super) unsafe fn receive(&self, rank: usize, memory: *mut u8, length: usize) -> Result<(), String> {
        // SAFETY: the caller keeps the memory.
        explained(|why, room| unsafe { drc_gloo_receive(self.0.as_ptr(), rank, memory, length, why, room) })
    }

    /// Ends the connection with a rank; the listener hears of it.
    pub(super) fn hang_up(&self, rank: usize) {
        // SAFETY: the group lives.
        unsafe { drc_gloo_hang_up(self.0.as_ptr(), rank) }
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

/// The wiring behind a pointer.
///
/// # Safety
/// The pointer is the one that `open` made, and the group is not closed.
unsafe fn wiring<'a, L>(of: *const c_void) -> &'a Wiring<L> {
    // SAFETY: the caller's promise.
    unsafe { &*of.cast::<Wiring<L>>() }
}

impl<L> Wiring<L> {
    /// Nothing comes before the connections were made, and those only after the group was opened.
    fn line(&self) -> Line {
        Line(NonNull::new(self.raw.load(Ordering::SeqCst)).expect("a group is open before it connects"))
    }
}

extern "C" fn frame_came<L: Listener>(of: *const c_void, rank: usize, bytes: *const u8, length: usize) {
    // SAFETY: the shim hands back the pointer that it was given, and calls only while the group lives.
    let wiring = unsafe { wiring::<L>(of) };
    // SAFETY: the shim lends the bytes for this call.
    wiring.listener.frame(&wiring.line(), rank, unsafe { slice::from_raw_parts(bytes, length) });
}

extern "C" fn body_came<L: Listener>(of: *const c_void, rank: usize) {
    // SAFETY: as above.
    let wiring = unsafe { wiring::<L>(of) };
    wiring.listener.received(&wiring.line(), rank);
}

extern "C" fn sent<L: Listener>(of: *const c_void, rank: usize, frames: usize, bodies: usize) {
    // SAFETY: as above.
    unsafe { wiring::<L>(of) }.listener.sent(rank, frames, bodies);
}

extern "C" fn ended<L: Listener>(of: *const c_void, rank: usize) {
    // SAFETY: as above.
    unsafe { wiring::<L>(of) }.listener.ended(rank);
}
