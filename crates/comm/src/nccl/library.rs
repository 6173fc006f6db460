//! Symbols of shared libraries that are only there at run time.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    mem::transmute_copy,
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr::NonNull,
};

use crate::{Error, Result};

/// A shared library, loaded until the process ends: what it started may still run then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Library {
    handle: NonNull<c_void>,
    name: &'static str,
}

// SAFETY: a handle may be used by all threads at a time (dlsym(3): MT-Safe).
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// The library that another part of the program has loaded.
    ///
    /// # Safety
    /// A handle of `dlopen` that is not closed.
    pub(super) unsafe fn loaded(name: &'static str, handle: NonNull<c_void>) -> Self {
        Library { handle, name }
    }

    /// The library of this file name, from memory if it is there, else from where the system looks; or why there is none.
    pub(super) fn load(name: &'static str, file: &Path) -> Result<Self, String> {
        let file = CString::new(file.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
        let open = |more| {
            // SAFETY: a string that ends with a zero. The initialisers that run are those of the library that was asked for. RTLD_LOCAL: two
            // copies of NCCL in a process must not see each other's symbols.
            NonNull::new(unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL | more) })
        };
        let handle = open(libc::RTLD_NOLOAD).or_else(|| open(0));
        handle.map(|handle| Library { handle, name }).ok_or_else(|| {
            // SAFETY: null, or a string that ends with a zero, until the next call of this thread.
            let reason = unsafe { NonNull::new(libc::dlerror()).map(|text| CStr::from_ptr(text.as_ptr())) };
            reason.map_or("unknown error".to_owned(), |reason| reason.to_string_lossy().into_owned())
        })
    }

    /// A function of the library.
    ///
    /// # Errors
    /// [`Error::Library`] when it has none of this name.
    ///
    /// # Safety
    /// `F` is the type of a function pointer, and the function has this type.
    pub(super) unsafe fn function<F: Copy>(&self, symbol: &CStr) -> Result<F> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        // SAFETY: a handle that is open, and a string that ends with a zero.
        let found = unsafe { libc::dlsym(self.handle.as_ptr(), symbol.as_ptr()) };
        if found.is_null() {
            let reason = "the library has no such function\nhint: install a newer one".to_owned();
            return Err(Error::Library { library: self.name, action: format!("find {}", symbol.to_string_lossy()), reason });
        }
        // SAFETY: the caller says that `F` is a function pointer; it is not null.
        Ok(unsafe { transmute_copy(&found) })
    }
}

/// A text of the library.
///
/// # Safety
/// Null, or a string that ends with a zero and stays.
pub(super) unsafe fn text(text: *const c_char, code: c_int) -> String {
    if text.is_null() {
        return format!("error {code}");
    }
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
