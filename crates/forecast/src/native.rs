//! The foreign functions: the C++ shim, `dlopen` of CUDA, glibc's allocator. The only unsafe code of this crate besides
//! `blocks.rs`.

use std::ffi::{CStr, c_char, c_int};

use tch::Tensor;
use torch_sys::C_tensor;

use crate::{Error, Result};

unsafe extern "C" {
    fn deeprc_last_error() -> *const c_char;
    fn deeprc_fused_adam(
        p: *const *mut C_tensor,
        g: *const *mut C_tensor,
        m: *const *mut C_tensor,
        v: *const *mut C_tensor,
        n: c_int,
        step: *mut C_tensor,
        lr: *mut C_tensor,
        beta1: f64,
        beta2: f64,
        eps: f64,
    ) -> c_int;
    fn deeprc_clip_grad_norm(g: *const *mut C_tensor, n: c_int, max_norm: f64) -> c_int;
}

/// Keeps freed memory in the process. Call first in `main`.
///
/// glibc gives every large tensor its own `mmap` and takes it away again, so that each step faults its pages in anew: a
/// long LSTM ran 2.4 times faster on a CPU without that. Costs a larger resident size.
pub fn tune_malloc() {
    // SAFETY: mallopt only sets two numbers inside glibc; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
    }
}

/// Makes CUDA available if this libtorch has it. Call before any other use of libtorch; an error says why there is none,
/// and the program then runs on the CPU.
///
/// # Errors
/// [`Error::NoCuda`] with the loader's reason.
pub fn load_cuda() -> Result<()> {
    // SAFETY: the library registers its kernels in its constructors and is never unloaded. RTLD_LOCAL keeps its NCCL apart
    // from another one in the process.
    let handle = unsafe { libc::dlopen(c"libtorch_cuda.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: dlerror returns a string of this thread after a failed dlopen.
    let reason = unsafe { CStr::from_ptr(libc::dlerror()) };
    Err(Error::NoCuda { reason: reason.to_string_lossy().into_owned() })
}

fn check(code: c_int) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: the shim keeps the message of this thread's last failure in a string that lives until its next one.
    let message = unsafe { CStr::from_ptr(deeprc_last_error()) };
    Err(Error::Torch { message: message.to_string_lossy().into_owned() })
}

fn pointers(tensors: &[Tensor]) -> Vec<*mut C_tensor> {
    tensors.iter().map(|t| t.as_ptr().cast_mut()).collect()
}

/// Everything that one step of Adam changes.
pub(crate) struct AdamState<'a> {
    pub first: &'a [Tensor],
    pub second: &'a [Tensor],
    pub step: &'a mut Tensor,
    pub lr: &'a mut Tensor,
}

/// One step of Adam (beta 0.9, 0.999, eps 1e-8) over all parameters in one kernel.
pub(crate) fn fused_adam(parameters: &[Tensor], gradients: &[Tensor], state: AdamState) -> Result<()> {
    let lists = [parameters, gradients, state.first, state.second].map(pointers);
    assert!(lists.iter().all(|l| l.len() == parameters.len()), "one gradient and two moments per parameter");
    // SAFETY: four arrays of `n` live tensors each, and two more; the shim changes values, keeps no pointer and catches
    // its exceptions.
    check(unsafe {
        deeprc_fused_adam(
            lists[0].as_ptr(),
            lists[1].as_ptr(),
            lists[2].as_ptr(),
            lists[3].as_ptr(),
            parameters.len() as c_int,
            state.step.as_mut_ptr(),
            state.lr.as_mut_ptr(),
            0.9,
            0.999,
            1e-8,
        )
    })
}

/// Scales all gradients together so that their common norm is at most `max_norm`.
pub(crate) fn clip_grad_norm(gradients: &[Tensor], max_norm: f64) -> Result<()> {
    let list = pointers(gradients);
    // SAFETY: an array of `n` live tensors, changed in place, no pointer kept, exceptions caught.
    check(unsafe { deeprc_clip_grad_norm(list.as_ptr(), list.len() as c_int, max_norm) })
}
