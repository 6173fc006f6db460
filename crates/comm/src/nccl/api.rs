//! The functions of NCCL that are used, with the types of its header.

use std::{
    ffi::{c_char, c_int, c_uint, c_void},
    path::Path,
    ptr::{self, NonNull},
};

use super::library::{Library, text};
use crate::{DeviceNumber, Error, ReduceOp, Result};

/// The name of every NCCL 2.
const FILE: &str = "libnccl.so.2";
/// The first version whose configuration is as [`Config`], and that can wait without blocking.
const OLDEST: c_int = 21800;

/// The library, wherever it comes from.
///
/// A process should use one copy only: the one that libtorch brought, if it did.
#[derive(Debug, Clone, Copy)]
pub struct NcclLibrary {
    pub(super) api: Api,
    version: c_int,
}

/// A communicator of NCCL.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handle(*mut c_void);

// SAFETY: a communicator may be used by any thread, one at a time.
unsafe impl Send for Handle {}

#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct UniqueId(pub(super) [u8; 128]);

/// `ncclConfig_t` as it was in 2.18; newer libraries take it by its size and version.
#[repr(C)]
struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
    cga_cluster_size: c_int,
    min_ctas: c_int,
    max_ctas: c_int,
    net_name: *const c_char,
    split_share: c_int,
    /// Here newer versions go on.
    end: c_int,
}

/// `ncclResult_t`.
pub(super) const SUCCESS: c_int = 0;
pub(super) const IN_PROGRESS: c_int = 7;
const UNDEFINED: c_int = c_int::MIN;

type Reduce = unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, *mut c_void, *mut c_void) -> c_int;
type Gather = unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, *mut c_void, *mut c_void) -> c_int;

/// Functions of `libnccl.so.2` (nccl.h).
#[derive(Debug, Clone, Copy)]
pub(super) struct Api {
    unique_id: unsafe extern "C" fn(*mut UniqueId) -> c_int,
    init: unsafe extern "C" fn(*mut *mut c_void, c_int, UniqueId, c_int, *mut Config) -> c_int,
    finalize: unsafe extern "C" fn(*mut c_void) -> c_int,
    destroy: unsafe extern "C" fn(*mut c_void) -> c_int,
    abort: unsafe extern "C" fn(*mut c_void) -> c_int,
    async_error: unsafe extern "C" fn(*mut c_void, *mut c_int) -> c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    last_error: unsafe extern "C" fn(*mut c_void) -> *const c_char,
    pub(super) allreduce: Reduce,
    pub(super) reduce_scatter: Reduce,
    pub(super) broadcast: Reduce,
    pub(super) allgather: Gather,
}

impl NcclLibrary {
    /// The copy that is in the process already, else the one that the system finds (`LD_LIBRARY_PATH`).
    ///
    /// # Errors
    /// [`Error::Library`] when there is none, or it is older than 2.18.
    pub fn find() -> Result<Self> {
        NcclLibrary::at(Path::new(FILE))
    }

    /// The library of this file, for example the `libnccl.so.2` of the Python package `nvidia-nccl-cu13`.
    ///
    /// # Errors
    /// As [`find`](NcclLibrary::find).
    pub fn at(file: &Path) -> Result<Self> {
        let library = Library::load("NCCL", file).map_err(|reason| {
            let hint = "hint: libtorch with CUDA brings one; else install libnccl2, or put its directory into LD_LIBRARY_PATH";
            Error::Library { library: "NCCL", action: "be loaded".to_owned(), reason: format!("{reason}\n{hint}") }
        })?;
        NcclLibrary::of(library)
    }

    /// The copy that a loaded library has or was linked to, for example libtorch's `libtorch_cuda.so`.
    ///
    /// # Errors
    /// As [`find`](NcclLibrary::find).
    ///
    /// # Safety
    /// A handle of `dlopen` that is not closed until the process ends.
    pub unsafe fn loaded(handle: NonNull<c_void>) -> Result<Self> {
        // SAFETY: as the caller says.
        NcclLibrary::of(unsafe { Library::loaded("NCCL", handle) })
    }

    fn of(library: Library) -> Result<Self> {
        let mut version = 0;
        // SAFETY: the type in nccl.h.
        let answer = unsafe { library.function::<unsafe extern "C" fn(*mut c_int) -> c_int>(c"ncclGetVersion")?(&mut version) };
        let found = NcclLibrary { api: Api::of(&library)?, version };
        found.api.check("tell its version", answer, None)?;
        if version < OLDEST {
            let reason = format!("it is NCCL {}\nhint: 2.18 or newer is needed", found.version());
            return Err(Error::Library { library: "NCCL", action: "be used".to_owned(), reason });
        }
        Ok(found)
    }

    /// Its version, for example `2.28.9`.
    pub fn version(&self) -> String {
        // The code of versions up to 2.8 has fewer digits (NCCL_VERSION in nccl.h).
        let (major, rest) = if self.version < 10_000 { (1000, 100) } else { (10_000, 100) };
        format!("{}.{}.{}", self.version / major, self.version % major / rest, self.version % rest)
    }
}

impl Api {
    fn of(library: &Library) -> Result<Self> {
        // SAFETY: the types in nccl.h. A broadcast has a root where a reduction has its operation, and both are numbers.
        unsafe {
            Ok(Api {
                unique_id: library.function(c"ncclGetUniqueId")?,
                init: library.function(c"ncclCommInitRankConfig")?,
                finalize: library.function(c"ncclCommFinalize")?,
                destroy: library.function(c"ncclCommDestroy")?,
                abort: library.function(c"ncclCommAbort")?,
                async_error: library.function(c"ncclCommGetAsyncError")?,
                error_string: library.function(c"ncclGetErrorString")?,
                last_error: library.function(c"ncclGetLastError")?,
                allreduce: library.function(c"ncclAllReduce")?,
                reduce_scatter: library.function(c"ncclReduceScatter")?,
                broadcast: library.function(c"ncclBroadcast")?,
                allgather: library.function(c"ncclAllGather")?,
            })
        }
    }

    /// A name for a new group of ranks, made by one of them.
    pub(super) fn unique_id(&self) -> Result<UniqueId> {
        let mut id = UniqueId([0; 128]);
        // SAFETY: there is room for an id.
        self.check("make a name for the ranks", unsafe { (self.unique_id)(&mut id) }, None)?;
        Ok(id)
    }

    /// Begins to meet the other ranks; [`state`](Api::state) tells when all are there.
    pub(super) fn init(&self, id: UniqueId, rank: usize, size: usize) -> Result<Handle> {
        let mut config = Config {
            size: size_of::<Config>(),
            magic: 0xcafe_beef,
            version: OLDEST as c_uint,
            blocking: 0,
            cga_cluster_size: UNDEFINED,
            min_ctas: UNDEFINED,
            max_ctas: UNDEFINED,
            net_name: ptr::null(),
            split_share: UNDEFINED,
            end: UNDEFINED,
        };
        let mut comm = ptr::null_mut();
        // SAFETY: the types in nccl.h; the configuration is copied. The address of the communicator is written at once.
        let answer = unsafe { (self.init)(&mut comm, size as c_int, id, rank as c_int, &mut config) };
        if comm.is_null() {
            self.check("meet the other ranks", answer, None)?;
            let reason = "it gave no communicator".to_owned();
            return Err(Error::Library { library: "NCCL", action: "meet the other ranks".to_owned(), reason });
        }
        Ok(Handle(comm))
    }

    /// How far what was asked of a communicator has come: whether it is no longer in progress.
    pub(super) fn state(&self, action: &str, comm: Handle) -> Result<bool> {
        let mut state = SUCCESS;
        // SAFETY: a communicator that was neither destroyed nor aborted.
        self.check(action, unsafe { (self.async_error)(comm.0, &mut state) }, None)?;
        if state == IN_PROGRESS { Ok(false) } else { self.check(action, state, Some(comm)).map(|()| true) }
    }

    /// Enqueues what `call` does with the communicator.
    pub(super) fn enqueue(&self, action: &str, comm: Handle, call: impl FnOnce(*mut c_void) -> c_int) -> Result<()> {
        match call(comm.0) {
            IN_PROGRESS => Ok(()),
            answer => self.check(action, answer, Some(comm)),
        }
    }

    /// Begins the end of a communicator in good order.
    pub(super) fn finalize(&self, comm: Handle) -> Result<()> {
        // SAFETY: a communicator that was neither destroyed nor aborted.
        self.enqueue("finish", comm, |comm| unsafe { (self.finalize)(comm) })
    }

    /// Gives a finalized communicator up.
    pub(super) fn destroy(&self, comm: Handle) {
        // SAFETY: as for `finalize`; the caller forgets it.
        unsafe { (self.destroy)(comm.0) };
    }

    /// Gives a communicator up and ends what it does.
    pub(super) fn abort(&self, comm: Handle) {
        // SAFETY: as for `finalize`; the caller forgets it.
        unsafe { (self.abort)(comm.0) };
    }

    fn check(&self, action: &str, answer: c_int, comm: Option<Handle>) -> Result<()> {
        if answer == SUCCESS {
            return Ok(());
        }
        // SAFETY: both give null or a text that stays until the next error.
        let reason = unsafe {
            let what = text((self.error_string)(answer), answer);
            let detail = text((self.last_error)(comm.map_or(ptr::null_mut(), |comm| comm.0)), 0);
            if detail.is_empty() || detail == "error 0" { what } else { format!("{what}: {}", detail.trim()) }
        };
        Err(Error::Library { library: "NCCL", action: action.to_owned(), reason })
    }
}

/// `ncclDataType_t`.
pub(super) fn number(number: DeviceNumber) -> c_int {
    match number {
        DeviceNumber::I8 => 0,
        DeviceNumber::U8 => 1,
        DeviceNumber::I32 => 2,
        DeviceNumber::U32 => 3,
        DeviceNumber::I64 => 4,
        DeviceNumber::U64 => 5,
        DeviceNumber::F16 => 6,
        DeviceNumber::F32 => 7,
        DeviceNumber::F64 => 8,
        DeviceNumber::Bf16 => 9,
    }
}

/// `ncclRedOp_t`.
pub(super) fn reduction(op: ReduceOp) -> Result<c_int> {
    match op {
        ReduceOp::Sum => Ok(0),
        ReduceOp::Prod => Ok(1),
        ReduceOp::Max => Ok(2),
        ReduceOp::Min => Ok(3),
        ReduceOp::And | ReduceOp::Or => {
            let reason = "it combines no bits\nhint: Sum, Prod, Min or Max".to_owned();
            Err(Error::Library { library: "NCCL", action: format!("reduce with {op:?}"), reason })
        }
    }
}
