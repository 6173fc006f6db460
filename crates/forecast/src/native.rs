//! The foreign functions: the C++ shim, `dlopen` of CUDA, glibc's allocator. The only unsafe code of this crate besides
//! `kernels.rs` and `blocks.rs`.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::{Device, Tensor};
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
        weight_decay: f64,
        eps: f64,
        decoupled: c_int,
    ) -> c_int;
    fn deeprc_autocast_bf16(cuda: c_int, on: c_int, before: *mut c_int) -> c_int;
    fn deeprc_allow_tf32(on: c_int) -> c_int;
    fn deeprc_on_gradient(
        parameter: *mut C_tensor,
        hook: extern "C" fn(*mut c_void, *mut C_tensor) -> c_int,
        context: *mut c_void,
        handle: *mut c_uint,
    ) -> c_int;
    fn deeprc_remove_hook(parameter: *mut C_tensor, handle: c_uint) -> c_int;
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
    pub weight_decay: f64,
    /// AdamW: weights decay by themselves rather than through the gradient.
    pub decoupled: bool,
}

/// One step of Adam or AdamW (beta 0.9, 0.999, eps 1e-8) over all parameters in one kernel.
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
            state.weight_decay,
            1e-8,
            c_int::from(state.decoupled),
        )
    })
}

/// Scales all gradients together so that their common norm is at most `max_norm`.
pub(crate) fn clip_grad_norm(gradients: &[Tensor], max_norm: f64) -> Result<()> {
    let list = pointers(gradients);
    // SAFETY: an array of `n` live tensors, changed in place, no pointer kept, exceptions caught.
    check(unsafe { deeprc_clip_grad_norm(list.as_ptr(), list.len() as c_int, max_norm) })
}

/// Runs `f` with matrix products and convolutions of this thread in bfloat16 on `device`.
pub(crate) fn with_bf16<R>(device: Device, f: impl FnOnce() -> R) -> Result<R> {
    /// Back to how it was, also when `f` panics.
    struct Restore(c_int, c_int);
    impl Drop for Restore {
        fn drop(&mut self) {
            let mut ignored = 0;
            // SAFETY: sets a flag of this thread; the pointer is to a local.
            unsafe { deeprc_autocast_bf16(self.0, self.1, &mut ignored) };
        }
    }
    let cuda = c_int::from(device.is_cuda());
    let mut before = 0;
    // SAFETY: sets a flag of this thread; the pointer is to a local.
    check(unsafe { deeprc_autocast_bf16(cuda, 1, &mut before) })?;
    let _restore = Restore(cuda, before);
    Ok(f())
}

/// Allows or forbids TF32 in matrix products and convolutions on the GPUs of this process.
///
/// # Errors
/// What libtorch reports.
pub fn allow_tf32(on: bool) -> Result<()> {
    // SAFETY: sets two flags of the process.
    check(unsafe { deeprc_allow_tf32(c_int::from(on)) })
}

type Receive = Box<dyn Fn(&Tensor) + Send + Sync>;

/// Calls a function with the gradient of a parameter as soon as a backward pass has it, on the thread of that pass.
pub(crate) struct GradientHook {
    parameter: Tensor,
    handle: c_uint,
    /// Boxed twice: the shim holds a thin pointer.
    context: *mut Receive,
}

// SAFETY: the context is only called by backward passes and only freed by `drop`, and may be shared between threads.
unsafe impl Send for GradientHook {}

impl GradientHook {
    /// Until it is dropped.
    ///
    /// # Errors
    /// What libtorch reports, for a tensor without gradient for example.
    pub fn new(parameter: &Tensor, receive: impl Fn(&Tensor) + Send + Sync + 'static) -> Result<Self> {
        let context = Box::into_raw(Box::new(Box::new(receive) as Receive));
        let mut hook = Self { parameter: parameter.shallow_clone(), handle: 0, context };
        // SAFETY: a live tensor; the context lives until the hook is removed in `drop`.
        let code = unsafe { deeprc_on_gradient(hook.parameter.as_mut_ptr(), call_hook, context.cast(), &mut hook.handle) };
        check(code).map(|()| hook)
    }
}

impl Drop for GradientHook {
    fn drop(&mut self) {
        // SAFETY: the parameter is alive; after the removal nobody has the context, which `new` made from a box.
        unsafe {
            deeprc_remove_hook(self.parameter.as_mut_ptr(), self.handle);
            drop(Box::from_raw(self.context));
        }
    }
}

impl std::fmt::Debug for GradientHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GradientHook({})", self.handle)
    }
}

extern "C" fn call_hook(context: *mut c_void, gradient: *mut C_tensor) -> c_int {
    let call = || {
        // SAFETY: the shim passes the context of `GradientHook::new` and a live tensor, which is cloned and not kept.
        let (receive, gradient) = unsafe { (&*context.cast::<Receive>(), Tensor::clone_from_ptr(gradient)) };
        receive(&gradient);
    };
    c_int::from(catch_unwind(AssertUnwindSafe(call)).is_err())
}
