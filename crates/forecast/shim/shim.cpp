// What tch 0.24 (libtorch 2.11) lacks: multi-tensor Adam and gradient clipping, autocast, TF32, hooks of gradients. Needs no CUDA headers; links libtorch_cpu and libc10 only.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <string>

namespace {
thread_local std::string last_error;
std::vector<at::Tensor> list(at::Tensor** tensors, int n) {
  std::vector<at::Tensor> out;
  out.reserve(n);
  for (int i = 0; i < n; i++) out.push_back(*tensors[i]);
  return out;
}
}  // namespace

#define TRY(...)                                                     \
  try {                                                              \
    __VA_ARGS__;                                                     \
    return 0;                                                        \
  } catch (const std::exception& e) {                                \
    last_error = e.what();                                           \
    return 1;                                                        \
  } catch (...) {                                                    \
    last_error = "unknown C++ exception";                            \
    return 1;                                                        \
  }

extern "C" {
const char* deeprc_last_error() { return last_error.c_str(); }

// One step of Adam (decoupled: AdamW) over all parameters. step: one f32, incremented here; lr: one f32; both on the parameters' device.
int deeprc_fused_adam(at::Tensor** p, at::Tensor** g, at::Tensor** m, at::Tensor** v, int n, at::Tensor* step, at::Tensor* lr,
                      double beta1, double beta2, double weight_decay, double eps, int decoupled) {
  TRY(at::NoGradGuard no_grad; step->add_(1); std::vector<at::Tensor> steps(n, *step); std::vector<at::Tensor> none;
      if (decoupled) at::_fused_adamw_(list(p, n), list(g, n), list(m, n), list(v, n), none, steps, *lr, beta1, beta2, weight_decay, eps, false, false);
      else at::_fused_adam_(list(p, n), list(g, n), list(m, n), list(v, n), none, steps, *lr, beta1, beta2, weight_decay, eps, false, false))
}

// bf16 autocast of this thread on or off; *before tells how it was. Without the cache of cast weights, which a captured graph cannot use.
int deeprc_autocast_bf16(int cuda, int on, int* before) {
  TRY(auto device = cuda ? at::kCUDA : at::kCPU; *before = at::autocast::is_autocast_enabled(device);
      at::autocast::set_autocast_dtype(device, at::kBFloat16); at::autocast::set_autocast_cache_enabled(false);
      at::autocast::set_autocast_enabled(device, on))
}

// TF32 in matrix products and convolutions on GPUs, for the whole process.
int deeprc_allow_tf32(int on) { TRY(at::globalContext().setAllowTF32CuBLAS(on); at::globalContext().setAllowTF32CuDNN(on)) }

// torch.nn.utils.clip_grad_norm_ without reading the norm back to the host.
int deeprc_clip_grad_norm(at::Tensor** g, int n, double max_norm) {
  TRY(at::NoGradGuard no_grad; auto grads = list(g, n); auto total = at::stack(at::_foreach_norm(grads, 2)).norm(2);
      at::_foreach_mul_(grads, (max_norm / (total + 1e-6)).clamp_max(1.0)))
}

// Calls hook(context, gradient) when a backward pass has the gradient of the parameter; the hook returns 0 if all is well.
int deeprc_on_gradient(at::Tensor* p, int (*hook)(void*, at::Tensor*), void* context, unsigned* handle) {
  TRY(*handle = p->register_hook([hook, context](const at::TensorBase& gradient) {
    at::Tensor tensor(gradient);
    TORCH_CHECK(hook(context, &tensor) == 0, "the hook of a gradient failed");
  }))
}
int deeprc_remove_hook(at::Tensor* p, unsigned handle) { TRY(p->remove_hook(handle)) }
}
