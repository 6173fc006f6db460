//! The little that is needed of CUDA's driver: which GPU, and whether a stream has come to its end.

use std::{
    ffi::{c_char, c_int, c_uint, c_void},
    path::Path,
    ptr,
};

use super::library::{Library, text};
use crate::{DeviceStream, Error, Result};

const NOT_READY: c_int = 600;

/// One GPU, ready for use.
#[derive(Debug)]
pub(super) struct Gpu {
    driver: Driver,
    device: c_int,
    context: Context,
    uuid: [u8; 16],
}

#[derive(Debug, Clone, Copy)]
struct Context(*mut c_void);

// SAFETY: a context may be made current in any thread.
unsafe impl Send for Context {}
// SAFETY: it is only read.
unsafe impl Sync for Context {}

type Retain = unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int;

/// Functions of `libcuda.so.1` (cuda.h).
#[derive(Debug, Clone, Copy)]
struct Driver {
    init: unsafe extern "C" fn(c_uint) -> c_int,
    device_count: unsafe extern "C" fn(*mut c_int) -> c_int,
    device_uuid: unsafe extern "C" fn(*mut [u8; 16], c_int) -> c_int,
    retain: Retain,
    release: unsafe extern "C" fn(c_int) -> c_int,
    set_current: unsafe extern "C" fn(*mut c_void) -> c_int,
    stream_query: unsafe extern "C" fn(*mut c_void) -> c_int,
    error_string: unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int,
}

impl Gpu {
    /// The GPU of this number among those that the process may use (`CUDA_VISIBLE_DEVICES`).
    ///
    /// # Errors
    /// [`Error::Library`] without a driver, without a GPU, or without one of this number.
    pub(super) fn open(number: usize) -> Result<Self> {
        let missing = |reason: String| Error::Library { library: "CUDA", action: "find a GPU".to_owned(), reason };
        let library = Library::load("CUDA", Path::new("libcuda.so.1")).map_err(|reason| {
            missing(format!("{reason}\nhint: this needs an NVIDIA GPU and its driver; without, use another transport"))
        })?;
        let driver = Driver::of(&library)?;
        let mut count = 0;
        // SAFETY: of these types in cuda.h; may be called again and again.
        unsafe {
            driver.check("initialise", (driver.init)(0))?;
            driver.check("count the GPUs", (driver.device_count)(&mut count))?;
        }
        let device = c_int::try_from(number).unwrap_or(c_int::MAX);
        if device >= count {
            let hint = "hint: see CUDA_VISIBLE_DEVICES; each rank needs a GPU of its own";
            return Err(missing(format!("there is no GPU {number}, this process may use {count}\n{hint}")));
        }
        let (mut uuid, mut context) = ([0; 16], ptr::null_mut());
        // SAFETY: of these types in cuda.h. Device handles are the numbers of the devices. The primary context is the one that the runtime
        // library, and so libtorch, uses.
        unsafe {
            driver.check("identify the GPU", (driver.device_uuid)(&mut uuid, device))?;
            driver.check("use the GPU", (driver.retain)(&mut context, device))?;
        }
        Ok(Gpu { driver, device, context: Context(context), uuid })
    }

    /// What no other GPU has.
    pub(super) fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// Makes it the GPU of this thread.
    pub(super) fn enter(&self) -> Result<()> {
        // SAFETY: a context that was retained.
        self.driver.check("use the GPU", unsafe { (self.driver.set_current)(self.context.0) })
    }

    /// Whether everything on a stream is done.
    pub(super) fn is_done(&self, stream: DeviceStream) -> Result<bool> {
        self.enter()?;
        // SAFETY: a stream of this GPU, as whoever made the `DeviceStream` promised.
        match unsafe { (self.driver.stream_query)(stream.handle() as *mut c_void) } {
            NOT_READY => Ok(false),
            code => self.driver.check("work on the stream", code).map(|()| true),
        }
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: retained once; others in the process may hold it still.
        unsafe { (self.driver.release)(self.device) };
    }
}

impl Driver {
    fn of(library: &Library) -> Result<Self> {
        // SAFETY: the types in cuda.h, where names are mapped to those with the suffix by macros.
        unsafe {
            Ok(Driver {
                init: library.function(c"cuInit")?,
                device_count: library.function(c"cuDeviceGetCount")?,
                device_uuid: library.function(c"cuDeviceGetUuid")?,
                retain: library.function::<Retain>(c"cuDevicePrimaryCtxRetain")?,
                release: library.function(c"cuDevicePrimaryCtxRelease_v2")?,
                set_current: library.function(c"cuCtxSetCurrent")?,
                stream_query: library.function(c"cuStreamQuery")?,
                error_string: library.function(c"cuGetErrorString")?,
            })
        }
    }

    fn check(&self, action: &str, code: c_int) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        let mut told = ptr::null();
        // SAFETY: writes null or a constant text.
        let reason = unsafe {
            (self.error_string)(code, &mut told);
            text(told, code)
        };
        Err(Error::Library { library: "CUDA", action: action.to_owned(), reason })
    }
}
