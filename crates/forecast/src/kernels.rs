//! Operations of transformers in C++ (`shim/kernels.cpp`): quicker on a CPU than what libtorch has, and with their gradients.
//!
//! Each gives the same bits for any number of threads. They work on f32 on the CPU; for other tensors each function here does
//! the same with libtorch's own operations.

use std::ffi::{CStr, c_char, c_int};

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn deeprc_kernel_error() -> *const c_char;
    fn deeprc_dropout(out: *mut *mut C_tensor, x: *mut C_tensor, probability: f64) -> c_int;
    fn deeprc_attention(out: *mut *mut C_tensor, q: *mut C_tensor, k: *mut C_tensor, v: *mut C_tensor, heads: i64, dropout: f64) -> c_int;
    fn deeprc_autocorrelation(
        out: *mut *mut C_tensor,
        q: *mut C_tensor,
        k: *mut C_tensor,
        v: *mut C_tensor,
        count: i64,
        common: c_int,
    ) -> c_int;
    fn deeprc_residual_attention(
        out: *mut *mut C_tensor,
        scores: *mut *mut C_tensor,
        qkv: *mut C_tensor,
        before: *mut C_tensor,
        batch: i64,
        heads: i64,
    ) -> c_int;
    fn deeprc_season(out: *mut *mut C_tensor, x: *mut C_tensor, window: i64) -> c_int;
}

/// The result of a call that wrote it to `out`.
///
/// # Panics
/// With the message of libtorch, as every operation of tch does: shapes that do not fit, or no memory.
fn result(name: &str, code: c_int, out: *mut C_tensor) -> Tensor {
    if code == 0 {
        // SAFETY: after success `out` is a tensor that the shim has made for the caller to own.
        return unsafe { Tensor::from_ptr(out) };
    }
    // SAFETY: the shim keeps the message of this thread's last failure in a string that lives until its next one.
    let message = unsafe { CStr::from_ptr(deeprc_kernel_error()) };
    panic!("{name}: {}", message.to_string_lossy());
}

fn pointer(x: &Tensor) -> *mut C_tensor {
    x.as_ptr().cast_mut()
}

fn on_cpu(x: &Tensor) -> bool {
    x.device() == Device::Cpu && x.kind() == Kind::Float
}

/// Sets each value to zero with `probability` and divides the others by the probability to stay (Srivastava et al. 2014).
///
/// Which values stay follows from libtorch's generator (`tch::manual_seed`) and their places, so no mask is kept for the gradient.
pub fn dropout(x: &Tensor, probability: f64) -> Tensor {
    if !on_cpu(x) {
        return x.dropout(probability, true);
    }
    let mut out = std::ptr::null_mut();
    // SAFETY: a live tensor and a place for the result; the shim catches its exceptions and keeps no pointer.
    let code = unsafe { deeprc_dropout(&mut out, pointer(x), probability) };
    result("dropout", code, out)
}

/// Scaled dot-product attention without a mask, the weights dropped with probability `dropout`:
/// `softmax(Q K' / sqrt(width of a head)) V` of each head.
///
/// Queries `[batch, steps, inner]`, keys and values `[batch, others, inner]`, heads side by side in `inner`; the result is as the
/// queries. Weights are computed again for the gradient instead of kept.
pub fn attention([q, k, v]: [&Tensor; 3], heads: i64, dropout: f64) -> Tensor {
    if !on_cpu(q) {
        let apart = |x: &Tensor| x.view([x.size()[0], x.size()[1], heads, -1]).transpose(1, 2);
        let none = None::<&Tensor>;
        let out = Tensor::scaled_dot_product_attention(&apart(q), &apart(k), &apart(v), none, dropout, false, None, false);
        return out.transpose(1, 2).flatten(2, 3);
    }
    let mut out = std::ptr::null_mut();
    // SAFETY: as in `dropout`.
    let code = unsafe { deeprc_attention(&mut out, pointer(q), pointer(k), pointer(v), heads, dropout) };
    result("attention", code, out)
}

/// Auto-correlation (Wu et al. 2021) of queries, keys and values of one shape `[batch, steps, inner]`: the values so many steps
/// later, over the `count` delays with the highest correlation of queries and keys (mean over `inner`), weighted by its softmax.
/// The delays are those of the whole batch if `common`, else of each window.
pub fn autocorrelation([q, k, v]: [&Tensor; 3], count: i64, common: bool) -> Tensor {
    // NeuralForecast's inverse transform of an odd number of steps has one delay less; only the transform itself gives that.
    if !on_cpu(q) || q.size()[1] % 2 == 1 {
        let correlation = correlation(q, k);
        let count = count.min(correlation.size()[1]);
        return delayed(v, &weights(&correlation, count, common));
    }
    let mut out = std::ptr::null_mut();
    // SAFETY: as in `dropout`.
    let code = unsafe { deeprc_autocorrelation(&mut out, pointer(q), pointer(k), pointer(v), count, c_int::from(common)) };
    result("auto-correlation", code, out)
}

/// Mean over all channels of the circular correlation of queries and keys, for each delay: `[batch, delays]`.
///
/// The inverse transform is linear, so that the mean over the channels comes first.
fn correlation(q: &Tensor, k: &Tensor) -> Tensor {
    let transform = |x: &Tensor| x.fft_rfft(None, 1, "backward");
    let product = transform(q) * transform(k).conj(); // [batch, frequencies, inner]
    product.mean_dim([-1i64].as_slice(), false, None).fft_irfft(None, -1, "backward")
}

/// Weight of each delay, `[batch, delays]`, zero but for the `count` best.
fn weights(correlation: &Tensor, count: i64, common: bool) -> Tensor {
    let (values, at) = if common {
        let at = correlation.mean_dim([0i64].as_slice(), false, None).topk(count, -1, true, true).1;
        (correlation.index_select(1, &at), at.unsqueeze(0).expand([correlation.size()[0], -1], false))
    } else {
        correlation.topk(count, -1, true, true)
    };
    correlation.zeros_like().scatter(1, &at, &values.softmax(-1, Kind::Float))
}

/// Mean of the values at each step and so many steps after it, circular, by a matrix of weights from step to step.
fn delayed(values: &Tensor, weights: &Tensor) -> Tensor {
    let (steps, delays) = (values.size()[1], weights.size()[1]);
    let step = Tensor::arange(steps, (Kind::Int64, values.device()));
    let delay = (step.unsqueeze(0) - step.unsqueeze(1)).remainder(steps).flatten(0, -1); // [steps * steps]: from row to column
    let weights = weights.constant_pad_nd([0, steps - delays]);
    weights.index_select(1, &delay).view([-1, steps, steps]).bmm(values)
}

/// `[batch, steps, width]` without its moving average over `window` steps (odd), the ends continued by copies of the outermost steps.
pub fn season(x: &Tensor, window: i64) -> Tensor {
    if !on_cpu(x) {
        return x - moving_average(x, window);
    }
    let mut out = std::ptr::null_mut();
    // SAFETY: as in `dropout`.
    let code = unsafe { deeprc_season(&mut out, pointer(x), window) };
    result("season", code, out)
}

/// The moving average that [`season`] takes away.
pub fn moving_average(x: &Tensor, window: i64) -> Tensor {
    let half = (window - 1) / 2;
    let steps = x.transpose(1, 2).replication_pad1d([half, half]);
    steps.avg_pool1d([window], [1], [0], false, true).transpose(1, 2)
}

/// Steps of the windows that the kernel of [`residual_attention`] keeps in registers.
const MOST_STEPS: i64 = 64;

/// Attention without a mask whose scores are added to those of the layer before (He et al. 2021, "RealFormer"), for few steps:
/// `softmax(S) V` with `S = Q K' + before`, and `S` for the layer behind.
///
/// `qkv` is `[batch * steps, 3 * inner]`: queries (scaled already), keys and values side by side, each with its heads side by side.
/// The result is `[batch * steps, inner]`; the scores' shape is only for the next call. `dropout` is the probability to drop a weight.
pub fn residual_attention(qkv: &Tensor, before: Option<&Tensor>, batch: i64, heads: i64, dropout: f64) -> (Tensor, Tensor) {
    if !on_cpu(qkv) || dropout > 0.0 || qkv.size()[0] > MOST_STEPS * batch {
        return residual_of_operations(qkv, before, batch, heads, dropout);
    }
    let (mut out, mut scores) = (std::ptr::null_mut(), std::ptr::null_mut());
    let before = before.map_or(std::ptr::null_mut(), pointer);
    // SAFETY: as in `dropout`; a null pointer stands for no scores before.
    let code = unsafe { deeprc_residual_attention(&mut out, &mut scores, pointer(qkv), before, batch, heads) };
    let out = result("attention", code, out);
    // SAFETY: after success, which `result` has checked, both places hold tensors for the caller to own.
    (out, unsafe { Tensor::from_ptr(scores) })
}

fn residual_of_operations(qkv: &Tensor, before: Option<&Tensor>, batch: i64, heads: i64, dropout: f64) -> (Tensor, Tensor) {
    let inner = qkv.size()[1] / 3;
    // [3, batch * heads, steps, inner / heads]
    let qkv = qkv.view([batch, -1, 3, heads, inner / heads]).permute([2, 0, 3, 1, 4]).contiguous().flatten(1, 2);
    let (q, k, v) = (qkv.get(0), qkv.get(1).transpose(1, 2), qkv.get(2));
    let scores = before.map_or_else(|| q.bmm(&k), |before| before.baddbmm(&q, &k, 1, 1));
    let weights = scores.softmax(-1, Kind::Float);
    let weights = if dropout > 0.0 { self::dropout(&weights, dropout) } else { weights };
    let out = weights.bmm(&v).view([batch, heads, -1, inner / heads]);
    (out.transpose(1, 2).reshape([-1, inner]), scores)
}
