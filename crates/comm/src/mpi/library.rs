//! The few calls of MPI that are used, each of which returns at once.

use std::{
    ffi::{c_char, c_int},
    mem::MaybeUninit,
    ptr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use mpi::ffi;

use crate::{Error, Result};

/// A message of MPI is at most this long: its counts are `i32`.
pub(super) const LONGEST: usize = 1 << 30;

/// Whether MPI may be called. All calls of this crate are made under this lock, so it is enough that the library lets
/// several threads call it in turn (`MPI_THREAD_SERIALIZED`).
static STATE: Mutex<State> = Mutex::new(State::Never);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not initialised by this crate yet.
    Never,
    Running,
    Finalized,
}

/// The right to call MPI: it is initialised, not finalized, and no other thread of this crate is inside.
pub(super) struct Inside(MutexGuard<'static, State>);

/// A communicator of MPI.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group(ffi::MPI_Comm);

// SAFETY: a communicator is a handle that any thread may use, one at a time.
unsafe impl Send for Group {}
// SAFETY: it is only read.
unsafe impl Sync for Group {}

/// A transfer under way.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub(super) struct Request(ffi::MPI_Request);

// SAFETY: as for `Group`.
unsafe impl Send for Request {}

/// A message that has come in and that no other call can take any more.
pub(super) struct Matched {
    pub(super) from: usize,
    pub(super) length: usize,
    message: ffi::MPI_Message,
}

/// What became of [`start`].
pub(super) struct Started {
    /// This process in the job.
    pub(super) rank: usize,
    /// Processes of the job.
    pub(super) size: usize,
    /// Whether it was us who initialised MPI, so that we have to finalize it.
    pub(super) ours: bool,
}

/// The communicator of the job.
pub(super) fn job() -> Group {
    // SAFETY: a constant of the library that nobody writes.
    Group(unsafe { ffi::RSMPI_COMM_WORLD })
}

/// Whether MPI was initialised, by this crate or by the program.
pub(super) fn is_running() -> bool {
    let mut initialized = 0;
    // SAFETY: may be called at any time, and writes one number.
    unsafe { ffi::MPI_Initialized(&mut initialized) };
    initialized != 0
}

/// Initialises MPI unless the program did.
///
/// # Errors
/// [`Error::Library`] when MPI was finalized before, or lets only one thread call it.
pub(super) fn start() -> Result<Started> {
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut finalized, mut provided) = (0, 0);
    // SAFETY: may be called at any time, and writes one number.
    unsafe { ffi::MPI_Finalized(&mut finalized) };
    if finalized != 0 {
        *state = State::Finalized;
        return Err(ended());
    }
    let ours = !is_running();
    if ours {
        // SAFETY: not initialised before, and not concurrently by this crate; no arguments are allowed since MPI-2.
        check("initialise", unsafe { ffi::MPI_Init_thread(ptr::null_mut(), ptr::null_mut(), ffi::RSMPI_THREAD_MULTIPLE, &mut provided) })?;
    } else {
        // SAFETY: initialised, as was asked above.
        check("ask for the level of threads", unsafe { ffi::MPI_Query_thread(&mut provided) })?;
    }
    *state = State::Running;
    // SAFETY: a constant of the library that nobody writes; levels are ordered (MPI 3.1, 12.4.3).
    if provided < unsafe { ffi::RSMPI_THREAD_SERIALIZED } {
        let reason = format!(
            "it lets only one thread call it (thread level {provided})\nhint: initialise MPI with MPI_THREAD_MULTIPLE, or use an MPI that was built with threads"
        );
        return Err(Error::Library { library: "MPI", action: "be used from several threads".to_owned(), reason });
    }
    let inside = Inside(state);
    let (mut rank, mut size) = (0, 0);
    // SAFETY: initialised; the numbers are written before they are read.
    unsafe {
        check("set the error handler", ffi::MPI_Comm_set_errhandler(job().0, ffi::RSMPI_ERRORS_RETURN))?;
        check("ask for the rank", ffi::MPI_Comm_rank(job().0, &mut rank))?;
        check("ask for the number of ranks", ffi::MPI_Comm_size(job().0, &mut size))?;
    }
    drop(inside);
    Ok(Started { rank: rank as usize, size: size as usize, ours })
}

/// Takes the right to call MPI.
///
/// # Errors
/// [`Error::Library`] when MPI was finalized.
pub(super) fn enter() -> Result<Inside> {
    let state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    if *state == State::Running { Ok(Inside(state)) } else { Err(ended()) }
}

/// The error of a call after the end.
pub(super) fn ended() -> Error {
    let reason = "it was finalized, and MPI starts only once in a process".to_owned();
    Error::Library { library: "MPI", action: "be used".to_owned(), reason }
}

impl Inside {
    /// Begins to make a communicator of its own for the same processes. All of them call this, in the same order.
    ///
    /// # Safety
    /// `place` stays where it is until the request is complete.
    pub(super) unsafe fn duplicate(&self, of: Group, place: *mut MaybeUninit<Group>) -> Result<Request> {
        self.request("duplicate a communicator", |request| {
            // SAFETY: `Group` is a struct of just this handle; the caller keeps the place.
            unsafe { ffi::MPI_Comm_idup(of.0, place.cast::<ffi::MPI_Comm>(), request) }
        })
    }

    /// Begins to wait for all processes.
    pub(super) fn barrier(&self, of: Group) -> Result<Request> {
        // SAFETY: a communicator that exists.
        self.request("start a barrier", |request| unsafe { ffi::MPI_Ibarrier(of.0, request) })
    }

    /// Begins to send at most [`LONGEST`] bytes.
    ///
    /// # Safety
    /// The bytes stay where they are, unchanged, until the request is complete.
    pub(super) unsafe fn send(&self, on: Group, to: usize, tag: c_int, bytes: &[u8]) -> Result<Request> {
        self.request("send", |request| {
            // SAFETY: as the caller promises; the count fits.
            unsafe { ffi::MPI_Isend(bytes.as_ptr().cast(), bytes.len() as c_int, ffi::RSMPI_UINT8_T, to as c_int, tag, on.0, request) }
        })
    }

    /// Begins to receive at most `length` ≤ [`LONGEST`] bytes.
    ///
    /// # Safety
    /// The place is writable and nobody else touches it until the request is complete.
    pub(super) unsafe fn receive(&self, on: Group, from: usize, tag: c_int, place: *mut u8, length: usize) -> Result<Request> {
        self.request("receive", |request| {
            // SAFETY: as the caller promises; the count fits.
            unsafe { ffi::MPI_Irecv(place.cast(), length as c_int, ffi::RSMPI_UINT8_T, from as c_int, tag, on.0, request) }
        })
    }

    /// Takes the next message with this tag that has come in from anybody.
    pub(super) fn probe(&self, on: Group, tag: c_int) -> Result<Option<Matched>> {
        let mut flag = 0;
        let mut length = 0;
        let mut status = MaybeUninit::<ffi::MPI_Status>::uninit();
        // SAFETY: the status is read only when the call says that it wrote it.
        unsafe {
            let mut message = ffi::RSMPI_MESSAGE_NULL;
            let answer = ffi::MPI_Improbe(ffi::RSMPI_ANY_SOURCE, tag, on.0, &mut flag, &mut message, status.as_mut_ptr());
            check("look for messages", answer)?;
            if flag == 0 {
                return Ok(None);
            }
            let status = status.assume_init();
            check("ask for the length of a message", ffi::MPI_Get_count(&status, ffi::RSMPI_UINT8_T, &mut length))?;
            Ok(Some(Matched { from: status.MPI_SOURCE as usize, length: length as usize, message }))
        }
    }

    /// Begins to receive a message that was taken.
    ///
    /// # Safety
    /// As for [`receive`](Inside::receive), for the message's length.
    pub(super) unsafe fn receive_matched(&self, mut matched: Matched, place: *mut u8) -> Result<Request> {
        self.request("receive", |request| {
            // SAFETY: as the caller promises; the length was a count of MPI.
            unsafe { ffi::MPI_Imrecv(place.cast(), matched.length as c_int, ffi::RSMPI_UINT8_T, &mut matched.message, request) }
        })
    }

    /// Moves transfers on and notes the places of those that are complete; their requests must not be used again.
    /// `done` is only room for the answer.
    pub(super) fn test<'a>(&self, requests: &mut [Request], done: &'a mut Vec<c_int>) -> Result<&'a [c_int]> {
        done.resize(requests.len(), 0);
        let mut count = 0;
        // SAFETY: `Request` is a struct of just this handle; all of them are under way; there is room for as many answers.
        let answer = unsafe {
            let (length, requests) = (requests.len() as c_int, requests.as_mut_ptr().cast::<ffi::MPI_Request>());
            ffi::MPI_Testsome(length, requests, &mut count, done.as_mut_ptr(), ffi::RSMPI_STATUSES_IGNORE)
        };
        check("complete a transfer", answer)?;
        // Negative (MPI_UNDEFINED) when there was nothing to test.
        Ok(&done[..count.max(0) as usize])
    }

    /// Gives up a communicator that [`duplicate`](Inside::duplicate) made. All processes do so in the end; its number is used again when
    /// all have.
    pub(super) fn free(&self, mut group: Group) {
        // SAFETY: a communicator that exists and that nobody uses any more. After an error it merely stays.
        unsafe { ffi::MPI_Comm_free(&mut group.0) };
    }

    /// Ends MPI in this process. Returns when all processes of the job have called it.
    pub(super) fn finalize(mut self) {
        *self.0 = State::Finalized;
        // SAFETY: initialised, and nobody else gets inside any more. There is nobody left to tell of an error.
        unsafe { ffi::MPI_Finalize() };
    }

    fn request(&self, action: &str, call: impl FnOnce(*mut ffi::MPI_Request) -> c_int) -> Result<Request> {
        // SAFETY: a constant of the library that nobody writes.
        let mut request = unsafe { ffi::RSMPI_REQUEST_NULL };
        check(action, call(&mut request))?;
        Ok(Request(request))
    }
}

fn check(action: &str, answer: c_int) -> Result<()> {
    if answer == 0 {
        return Ok(());
    }
    // Longer than the texts of OpenMPI (256) and MPICH (1024 with the end).
    let mut text = [0u8; 2048];
    let mut length = 0;
    // SAFETY: there is room for the longest text; may be called whenever another call of MPI has answered.
    let told = unsafe { ffi::MPI_Error_string(answer, text.as_mut_ptr().cast::<c_char>(), &mut length) };
    let text = if told == 0 { String::from_utf8_lossy(&text[..length.max(0) as usize]) } else { "unknown error".into() };
    Err(Error::Library { library: "MPI", action: action.to_owned(), reason: text.trim().to_owned() })
}
