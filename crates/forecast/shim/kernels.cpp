// Operations of transformers that libtorch's CPU kernels do slowly or not at all, with their gradients. Each works window by window,
// so that what lies between two products stays in the cache, and each is the same for any number of threads.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__)
#define VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTORISED
#endif

namespace {
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Tensor = at::Tensor;

// A number from libtorch's generator of the CPU, so that manual_seed decides what is dropped.
uint64_t draw_seed() {
  auto* generator = at::get_generator_or_default<at::CPUGeneratorImpl>(std::nullopt, at::detail::getDefaultCPUGenerator());
  std::lock_guard<std::mutex> lock(generator->mutex_);
  return generator->random64();
}

// The finaliser of MurmurHash3: every bit of the result depends on every bit of the key.
inline uint32_t mixed(uint32_t key) {
  key ^= key >> 16;
  key *= 0x85ebca6bu;
  key ^= key >> 13;
  key *= 0xc2b2ae35u;
  return key ^ (key >> 16);
}

// Key of a block of values: the n-th value of the block is kept if mixed(n * odd + key) is at least the threshold.
uint32_t block_key(uint64_t seed, uint64_t block) {
  uint64_t z = seed + 0x9e3779b97f4a7c15ull * (block + 1);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return static_cast<uint32_t>(z ^ (z >> 31));
}

inline float kept(uint32_t number, uint32_t key, uint32_t threshold, float scale) {
  return mixed(number * 0x9e3779b9u + key) >= threshold ? scale : 0.0f;
}

uint32_t threshold(double probability) {
  return static_cast<uint32_t>(std::min(probability * 4294967296.0, 4294967295.0));
}

constexpr int64_t BLOCK = 16384;

VECTORISED void drop_block(const float* x, float* out, int64_t n, uint32_t key, uint32_t threshold, float scale) {
  for (int64_t i = 0; i < n; i++) out[i] = x[i] * kept(static_cast<uint32_t>(i), key, threshold, scale);
}

Tensor dropped(const Tensor& x, double probability, uint64_t seed) {
  auto in = x.contiguous();
  auto out = at::empty_like(in);
  const float* from = in.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  int64_t count = in.numel();
  auto scale = static_cast<float>(1.0 / (1.0 - probability));
  at::parallel_for(0, (count + BLOCK - 1) / BLOCK, 4, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; block++) {
      int64_t start = block * BLOCK;
      drop_block(from + start, to + start, std::min(BLOCK, count - start), block_key(seed, block), threshold(probability), scale);
    }
  });
  return out;
}

struct Dropout : torch::autograd::Function<Dropout> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, double probability) {
    uint64_t seed = draw_seed();
    ctx->saved_data["probability"] = probability;
    ctx->saved_data["seed"] = static_cast<int64_t>(seed);
    return dropped(x, probability, seed);
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    auto seed = static_cast<uint64_t>(ctx->saved_data["seed"].toInt());
    return {dropped(gradients[0], ctx->saved_data["probability"].toDouble(), seed), Tensor()};
  }
};

// A matrix in the memory of a window: rows of contiguous values, `stride` apart.
struct Rows {
  float* data;
  int64_t stride;
  Tensor matrix(int64_t rows, int64_t columns) const { return at::from_blob(data, {rows, columns}, {stride, 1}, at::kFloat); }
};

// [batch, steps, width] with contiguous rows.
Tensor with_rows(const Tensor& x) { return x.stride(2) == 1 ? x : x.contiguous(); }

Rows window(const Tensor& x, int64_t number) {
  return {static_cast<float*>(x.data_ptr()) + number * x.stride(0), x.stride(1)};
}

// exp(x) for x <= 0 by x = n ln 2 + r and a polynomial for e^r; relative error below 2e-7.
inline float exp_negative(float x) {
  x = x < -87.0f ? -87.0f : x;
  auto n = static_cast<int32_t>(x * 1.44269504f - 0.5f);
  auto whole = static_cast<float>(n);
  float r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  union { int32_t bits; float value; } power = {(n + 127) << 23};
  return p * power.value;
}

// Softmax of each row in place; `log_sums` gets the logarithm of each row's sum of exponentials.
VECTORISED void softmax_rows(float* scores, int64_t rows, int64_t columns, float scale, float* log_sums) {
  for (int64_t i = 0; i < rows; i++) {
    float* row = scores + i * columns;
    float highest = row[0];
    for (int64_t j = 0; j < columns; j++) highest = row[j] > highest ? row[j] : highest;
    float sum = 0.0f;
    for (int64_t j = 0; j < columns; j++) {
      row[j] = exp_negative((row[j] - highest) * scale);
      sum += row[j];
    }
    float part = 1.0f / sum;
    for (int64_t j = 0; j < columns; j++) row[j] *= part;
    log_sums[i] = highest * scale + std::log(sum);
  }
}

VECTORISED void drop_rows(float* values, int64_t count, uint32_t key, uint32_t threshold, float scale) {
  for (int64_t i = 0; i < count; i++) values[i] *= kept(static_cast<uint32_t>(i), key, threshold, scale);
}

// From scores and the gradient of the dropped weights: the dropped weights and the gradient of the scores, each in its place.
VECTORISED void softmax_gradient(float* scores, float* gradient, int64_t rows, int64_t columns, float scale, const float* log_sums,
                                 const float* dots, uint32_t key, uint32_t threshold, float up) {
  for (int64_t i = 0; i < rows; i++) {
    float* row = scores + i * columns;
    float* change = gradient + i * columns;
    for (int64_t j = 0; j < columns; j++) {
      float x = row[j] * scale - log_sums[i];
      float weight = exp_negative(x < 0.0f ? x : 0.0f);
      float factor = kept(static_cast<uint32_t>(i * columns + j), key, threshold, up);
      change[j] = weight * (change[j] * factor - dots[i]) * scale;
      row[j] = weight * factor;
    }
  }
}

VECTORISED void row_dots(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t rows, int64_t width, float* out) {
  for (int64_t i = 0; i < rows; i++) {
    float sum = 0.0f;
    for (int64_t j = 0; j < width; j++) sum += a[i * a_stride + j] * b[i * b_stride + j];
    out[i] = sum;
  }
}

// Scaled dot-product attention (Vaswani et al. 2017) with dropout of the weights. The weights are computed anew in the backward pass
// (Dao et al. 2022), one head of one window at a time, so that no [batch, heads, steps, steps] ever leaves the cache.
struct Attention : torch::autograd::Function<Attention> {
  static Tensor forward(AutogradContext* ctx, const Tensor& q_, const Tensor& k_, const Tensor& v_, int64_t heads, double dropout) {
    auto q = with_rows(q_), k = with_rows(k_), v = with_rows(v_);
    int64_t batch = q.size(0), steps = q.size(1), others = k.size(1), inner = q.size(2), width = inner / heads;
    auto out = at::empty({batch, steps, inner}, q.options());
    auto log_sums = at::empty({batch, heads, steps}, q.options());
    uint64_t seed = dropout > 0.0 ? draw_seed() : 0;
    auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(width)));
    auto up = static_cast<float>(1.0 / (1.0 - dropout));
    at::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
      at::NoGradGuard no_grad;
      auto scores = at::empty({steps, others}, at::kFloat);
      float* values = scores.mutable_data_ptr<float>();
      for (int64_t b = begin; b < end; b++) {
        for (int64_t head = 0; head < heads; head++) {
          auto part = [&](const Tensor& x, int64_t rows) {
            Rows of = window(x, b);
            return Rows{of.data + head * width, of.stride}.matrix(rows, width);
          };
          at::mm_out(scores, part(q, steps), part(k, others).t());
          softmax_rows(values, steps, others, scale, log_sums.mutable_data_ptr<float>() + (b * heads + head) * steps);
          if (dropout > 0.0) drop_rows(values, steps * others, block_key(seed, b * heads + head), threshold(dropout), up);
          auto result = part(out, steps);
          at::mm_out(result, scores, part(v, others));
        }
      }
    });
    ctx->save_for_backward({q_, k_, v_, out, log_sums});
    ctx->saved_data["heads"] = heads;
    ctx->saved_data["dropout"] = dropout;
    ctx->saved_data["seed"] = static_cast<int64_t>(seed);
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    auto saved = ctx->get_saved_variables();
    auto q = with_rows(saved[0].detach()), k = with_rows(saved[1].detach()), v = with_rows(saved[2].detach());
    auto out = saved[3].detach(), log_sums = saved[4].detach();
    auto change = gradients[0].contiguous();
    int64_t heads = ctx->saved_data["heads"].toInt();
    double dropout = ctx->saved_data["dropout"].toDouble();
    auto seed = static_cast<uint64_t>(ctx->saved_data["seed"].toInt());
    int64_t batch = q.size(0), steps = q.size(1), others = k.size(1), inner = q.size(2), width = inner / heads;
    auto dq = at::empty({batch, steps, inner}, q.options());
    auto dk = at::empty({batch, others, inner}, q.options()), dv = at::empty({batch, others, inner}, q.options());
    auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(width)));
    auto up = static_cast<float>(1.0 / (1.0 - dropout));
    at::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
      at::NoGradGuard no_grad;
      auto scores = at::empty({steps, others}, at::kFloat), slopes = at::empty({steps, others}, at::kFloat);
      std::vector<float> dots(steps);
      for (int64_t b = begin; b < end; b++) {
        for (int64_t head = 0; head < heads; head++) {
          auto rows = [&](const Tensor& x) { Rows of = window(x, b); return Rows{of.data + head * width, of.stride}; };
          auto part = [&](const Tensor& x, int64_t count) { return rows(x).matrix(count, width); };
          at::mm_out(scores, part(q, steps), part(k, others).t());
          at::mm_out(slopes, part(change, steps), part(v, others).t());
          row_dots(rows(change).data, inner, rows(out).data, inner, steps, width, dots.data());
          const float* sums = log_sums.const_data_ptr<float>() + (b * heads + head) * steps;
          softmax_gradient(scores.mutable_data_ptr<float>(), slopes.mutable_data_ptr<float>(), steps, others, scale, sums, dots.data(),
                           block_key(seed, b * heads + head), threshold(dropout), up);
          auto to_q = part(dq, steps), to_k = part(dk, others), to_v = part(dv, others);
          at::mm_out(to_v, scores.t(), part(change, steps));
          at::mm_out(to_q, slopes, part(k, others));
          at::mm_out(to_k, slopes.t(), part(q, steps));
        }
      }
    });
    return {dq, dk, dv, Tensor(), Tensor()};
  }
};

// out[t] = sum over i of weights[i] * x[(t + sign * delays[i]) mod steps], rows of `width` values.
VECTORISED void shifted_sum(const float* x, int64_t x_stride, float* out, int64_t out_stride, int64_t steps, int64_t width,
                            const float* weights, const int64_t* delays, int64_t count, int64_t sign) {
  for (int64_t t = 0; t < steps; t++) {
    float* to = out + t * out_stride;
    for (int64_t j = 0; j < width; j++) to[j] = 0.0f;
    for (int64_t i = 0; i < count; i++) {
      int64_t at = t + sign * delays[i];
      at += at < 0 ? steps : at >= steps ? -steps : 0;
      const float* from = x + at * x_stride;
      float weight = weights[i];
      for (int64_t j = 0; j < width; j++) to[j] += weight * from[j];
    }
  }
}

// out[i] = sum over t of a[t] * x[(t + delays[i]) mod steps].
VECTORISED void shifted_dots(const float* a, int64_t a_stride, const float* x, int64_t x_stride, int64_t steps, int64_t width,
                             const int64_t* delays, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i++) {
    float sum = 0.0f;
    for (int64_t t = 0; t < steps; t++) {
      int64_t at = t + delays[i];
      at -= at >= steps ? steps : 0;
      const float* one = a + t * a_stride;
      const float* other = x + at * x_stride;
      for (int64_t j = 0; j < width; j++) sum += one[j] * other[j];
    }
    out[i] = sum;
  }
}

// out[d] = mean over the channels of the sum over t of q[t + d] * k[t], from the products of all rows.
VECTORISED void diagonal_sums(const float* products, int64_t steps, float scale, float* work, float* out) {
  for (int64_t d = 0; d < steps; d++) work[d] = 0.0f;
  for (int64_t i = 0; i < steps; i++) {
    const float* row = products + i * steps;
    // The product with k[t] belongs to the delay i - t; `work` counts t - i upwards, so that memory is read in order.
    for (int64_t t = i; t < steps; t++) work[t - i] += row[t];
    float* rest = work + steps - i;
    for (int64_t t = 0; t < i; t++) rest[t] += row[t];
  }
  for (int64_t d = 0; d < steps; d++) out[d] = work[(steps - d) % steps] * scale;
}

// Auto-correlation (Wu et al. 2021, section 3.2) of queries, keys and values of equal length: the mean correlation over all channels,
// its `count` best delays (of the whole batch, or of each window), and the values so many steps later weighted by their softmax.
struct AutoCorrelation : torch::autograd::Function<AutoCorrelation> {
  static Tensor forward(AutogradContext* ctx, const Tensor& q_, const Tensor& k_, const Tensor& v_, int64_t count, bool common) {
    auto q = with_rows(q_), k = with_rows(k_), v = with_rows(v_);
    int64_t batch = q.size(0), steps = q.size(1), width = q.size(2);
    auto correlation = at::empty({batch, steps}, q.options());
    at::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
      at::NoGradGuard no_grad;
      auto products = at::empty({steps, steps}, at::kFloat);
      std::vector<float> work(steps);
      for (int64_t b = begin; b < end; b++) {
        at::mm_out(products, window(q, b).matrix(steps, width), window(k, b).matrix(steps, width).t());
        diagonal_sums(products.const_data_ptr<float>(), steps, 1.0f / static_cast<float>(width), work.data(),
                      correlation.mutable_data_ptr<float>() + b * steps);
      }
    });
    Tensor best, delays;
    if (common) {
      auto at = std::get<1>(correlation.mean(0).topk(count));
      best = correlation.index_select(1, at);
      delays = at.unsqueeze(0).expand({batch, count}).contiguous();
    } else {
      std::tie(best, delays) = correlation.topk(count);
      delays = delays.contiguous();
    }
    auto weights = best.softmax(-1).contiguous();
    auto out = at::empty({batch, steps, width}, q.options());
    at::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; b++) {
        Rows from = window(v, b), to = window(out, b);
        shifted_sum(from.data, from.stride, to.data, to.stride, steps, width, weights.const_data_ptr<float>() + b * count,
                    delays.const_data_ptr<int64_t>() + b * count, count, 1);
      }
    });
    ctx->save_for_backward({q_, k_, v_, weights, delays});
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    auto saved = ctx->get_saved_variables();
    auto q = with_rows(saved[0].detach()), k = with_rows(saved[1].detach()), v = with_rows(saved[2].detach());
    auto weights = saved[3].detach(), delays = saved[4].detach();
    auto change = gradients[0].contiguous();
    int64_t batch = q.size(0), steps = q.size(1), width = q.size(2), count = weights.size(1);
    auto dq = at::empty({batch, steps, width}, q.options()), dk = at::empty_like(dq), dv = at::empty_like(dq);
    at::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> slopes(count);
      for (int64_t b = begin; b < end; b++) {
        const float* weight = weights.const_data_ptr<float>() + b * count;
        const int64_t* delay = delays.const_data_ptr<int64_t>() + b * count;
        Rows g = window(change, b), of_q = window(q, b), of_k = window(k, b), of_v = window(v, b);
        Rows to_q = window(dq, b), to_k = window(dk, b), to_v = window(dv, b);
        shifted_sum(g.data, g.stride, to_v.data, to_v.stride, steps, width, weight, delay, count, -1);
        shifted_dots(g.data, g.stride, of_v.data, of_v.stride, steps, width, delay, count, slopes.data());
        float mean = 0.0f;
        for (int64_t i = 0; i < count; i++) mean += slopes[i] * weight[i];
        for (int64_t i = 0; i < count; i++) slopes[i] = weight[i] * (slopes[i] - mean) / static_cast<float>(width);
        shifted_sum(of_k.data, of_k.stride, to_q.data, to_q.stride, steps, width, slopes.data(), delay, count, -1);
        shifted_sum(of_q.data, of_q.stride, to_k.data, to_k.stride, steps, width, slopes.data(), delay, count, 1);
      }
    });
    return {dq, dk, dv, Tensor(), Tensor()};
  }
};

// x minus its moving average over 2 * half + 1 rows, the ends continued by copies of the outermost rows.
VECTORISED void season_rows(const float* x, int64_t x_stride, float* out, int64_t steps, int64_t width, int64_t half, float* sum) {
  auto row = [&](int64_t t) { return x + std::min(std::max<int64_t>(t, 0), steps - 1) * x_stride; };
  float part = 1.0f / static_cast<float>(2 * half + 1);
  for (int64_t j = 0; j < width; j++) sum[j] = 0.0f;
  for (int64_t t = -half; t < half; t++) {
    const float* from = row(t);
    for (int64_t j = 0; j < width; j++) sum[j] += from[j];
  }
  for (int64_t t = 0; t < steps; t++) {
    const float *now = row(t), *coming = row(t + half), *gone = row(t - half);
    float* to = out + t * width;
    for (int64_t j = 0; j < width; j++) {
      float all = sum[j] + coming[j];
      to[j] = now[j] - all * part;
      sum[j] = all - gone[j];
    }
  }
}

// The gradient of that: g minus its moving average with nothing outside, and what the copies owe to the outermost rows.
VECTORISED void season_gradient_rows(const float* g, float* out, int64_t steps, int64_t width, int64_t half, float* sum) {
  float part = 1.0f / static_cast<float>(2 * half + 1);
  for (int64_t j = 0; j < width; j++) sum[j] = 0.0f;
  for (int64_t t = 0; t < std::min(half, steps); t++)
    for (int64_t j = 0; j < width; j++) sum[j] += g[t * width + j];
  for (int64_t t = 0; t < steps; t++) {
    float* to = out + t * width;
    const float* now = g + t * width;
    if (t + half < steps)
      for (int64_t j = 0; j < width; j++) sum[j] += g[(t + half) * width + j];
    for (int64_t j = 0; j < width; j++) to[j] = now[j] - sum[j] * part;
    if (t - half >= 0)
      for (int64_t j = 0; j < width; j++) sum[j] -= g[(t - half) * width + j];
  }
  for (int64_t t = 0; t < steps; t++) {
    float first = static_cast<float>(std::max<int64_t>(half - t, 0)) * part;
    float last = static_cast<float>(std::max<int64_t>(t + half - (steps - 1), 0)) * part;
    if (first > 0.0f)
      for (int64_t j = 0; j < width; j++) out[j] -= first * g[t * width + j];
    if (last > 0.0f)
      for (int64_t j = 0; j < width; j++) out[(steps - 1) * width + j] -= last * g[t * width + j];
  }
}

struct Season : torch::autograd::Function<Season> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x_, int64_t window_size) {
    auto x = with_rows(x_);
    int64_t batch = x.size(0), steps = x.size(1), width = x.size(2), half = (window_size - 1) / 2;
    auto out = at::empty({batch, steps, width}, x.options());
    at::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> sum(width);
      for (int64_t b = begin; b < end; b++) {
        Rows from = window(x, b);
        season_rows(from.data, from.stride, window(out, b).data, steps, width, half, sum.data());
      }
    });
    ctx->saved_data["half"] = half;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    auto change = gradients[0].contiguous();
    int64_t batch = change.size(0), steps = change.size(1), width = change.size(2), half = ctx->saved_data["half"].toInt();
    auto out = at::empty_like(change);
    at::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> sum(width);
      for (int64_t b = begin; b < end; b++)
        season_gradient_rows(window(change, b).data, window(out, b).data, steps, width, half, sum.data());
    });
    return {out, Tensor()};
  }
};

// Attention over few steps whose scores are added to those of the layer before (He et al. 2021, "RealFormer"): one head of one window.
// A row of scores is a few vectors of LANES, which stay in registers; what is beyond the last step has weight 0.
constexpr int64_t LANES = 16;
constexpr float NOTHING = -1e30f;
typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t Whole __attribute__((vector_size(4 * LANES)));

inline __attribute__((always_inline)) Vector load(const float* x) { return *reinterpret_cast<const Vector*>(x); }
inline __attribute__((always_inline)) void store(float* x, Vector v) { *reinterpret_cast<Vector*>(x) = v; }

inline __attribute__((always_inline)) float sum_of(Vector v) {
  float sum = 0.0f;
  for (int64_t l = 0; l < LANES; l++) sum += v[l];
  return sum;
}

// As exp_negative.
inline __attribute__((always_inline)) Vector exp_vector(Vector x) {
  x = x < -87.0f ? Vector{} - 87.0f : x;
  Whole n = __builtin_convertvector(x * 1.44269504f - 0.5f, Whole);
  Vector whole = __builtin_convertvector(n, Vector);
  Vector r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  Vector p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * reinterpret_cast<Vector>((n + 127) << 23);
}

// Pointers to one head: rows of queries, keys, values and their gradients lie `stride` apart, those of the result `out_stride`, those
// of the scores 16 * BLOCKS.
struct Head {
  const float *q, *k, *v, *before, *change, *later;
  float *now, *out, *log_sums, *dq, *dk, *dv, *earlier, *work;
  int64_t steps, width, stride, out_stride;
};

// Columns of `x` as rows of `padded` values.
inline void turned(const float* x, const Head& h, int64_t padded, float* out) {
  for (int64_t c = 0; c < h.width; c++) {
    for (int64_t j = 0; j < h.steps; j++) out[c * padded + j] = x[j * h.stride + c];
    for (int64_t j = h.steps; j < padded; j++) out[c * padded + j] = 0.0f;
  }
}

template <int BLOCKS>
inline __attribute__((always_inline)) void residual_forward(const Head& h) {
  constexpr int64_t padded = BLOCKS * LANES;
  float *keys = h.work, *values = keys + h.width * padded;
  turned(h.k, h, padded, keys);
  turned(h.v, h, padded, values);
  for (int64_t i = 0; i < h.steps; i++) {
    Vector row[BLOCKS];
    for (int b = 0; b < BLOCKS; b++) row[b] = h.before ? load(h.before + i * padded + b * LANES) : Vector{};
    for (int64_t c = 0; c < h.width; c++)
      for (int b = 0; b < BLOCKS; b++) row[b] += h.q[i * h.stride + c] * load(keys + c * padded + b * LANES);
    for (int64_t l = h.steps - (padded - LANES); l < LANES; l++) row[BLOCKS - 1][l] = NOTHING;
    Vector top = row[0];
    for (int b = 1; b < BLOCKS; b++) top = row[b] > top ? row[b] : top;
    float highest = NOTHING;
    for (int64_t l = 0; l < LANES; l++) highest = top[l] > highest ? top[l] : highest;
    Vector total = {};
    for (int b = 0; b < BLOCKS; b++) {
      store(h.now + i * padded + b * LANES, row[b]);
      row[b] = exp_vector(row[b] - highest);
      total += row[b];
    }
    float sum = sum_of(total), part = 1.0f / sum;
    for (int64_t c = 0; c < h.width; c++) {
      Vector dot = row[0] * load(values + c * padded);
      for (int b = 1; b < BLOCKS; b++) dot += row[b] * load(values + c * padded + b * LANES);
      h.out[i * h.out_stride + c] = sum_of(dot) * part;
    }
    h.log_sums[i] = highest + std::log(sum);
  }
}

// `change` is the gradient of the result; `later` that of the scores from the layer behind, or null; `earlier`, or null, gets that of
// the scores of the layer before.
template <int BLOCKS>
inline __attribute__((always_inline)) void residual_backward(const Head& h) {
  constexpr int64_t padded = BLOCKS * LANES;
  int64_t square = h.width * padded;
  float *keys = h.work, *values = keys + square, *to_keys = values + square, *to_values = to_keys + square;
  turned(h.k, h, padded, keys);
  turned(h.v, h, padded, values);
  for (int64_t n = 0; n < 2 * square; n++) to_keys[n] = 0.0f;
  for (int64_t i = 0; i < h.steps; i++) {
    const float *query = h.q + i * h.stride, *change = h.change + i * h.out_stride, *out = h.out + i * h.out_stride;
    float dot = 0.0f;
    for (int64_t c = 0; c < h.width; c++) dot += out[c] * change[c];
    Vector row[BLOCKS], weights[BLOCKS];
    for (int b = 0; b < BLOCKS; b++) row[b] = Vector{} - dot;
    for (int64_t c = 0; c < h.width; c++)
      for (int b = 0; b < BLOCKS; b++) row[b] += change[c] * load(values + c * padded + b * LANES);
    for (int b = 0; b < BLOCKS; b++) {
      Vector x = load(h.now + i * padded + b * LANES) - h.log_sums[i];
      weights[b] = exp_vector(x < 0.0f ? x : Vector{});
      row[b] *= weights[b];
      if (h.later) row[b] += load(h.later + i * padded + b * LANES);
      if (h.earlier) store(h.earlier + i * padded + b * LANES, row[b]);
    }
    for (int64_t c = 0; c < h.width; c++) {
      Vector to_query = {};
      for (int b = 0; b < BLOCKS; b++) {
        int64_t at = c * padded + b * LANES;
        to_query += row[b] * load(keys + at);
        store(to_keys + at, load(to_keys + at) + query[c] * row[b]);
        store(to_values + at, load(to_values + at) + change[c] * weights[b]);
      }
      h.dq[i * h.stride + c] = sum_of(to_query);
    }
  }
  for (int64_t j = 0; j < h.steps; j++) {
    for (int64_t c = 0; c < h.width; c++) {
      h.dk[j * h.stride + c] = to_keys[c * padded + j];
      h.dv[j * h.stride + c] = to_values[c * padded + j];
    }
  }
}

VECTORISED void residual_forward_1(const Head& h) { residual_forward<1>(h); }
VECTORISED void residual_forward_2(const Head& h) { residual_forward<2>(h); }
VECTORISED void residual_forward_3(const Head& h) { residual_forward<3>(h); }
VECTORISED void residual_forward_4(const Head& h) { residual_forward<4>(h); }
VECTORISED void residual_backward_1(const Head& h) { residual_backward<1>(h); }
VECTORISED void residual_backward_2(const Head& h) { residual_backward<2>(h); }
VECTORISED void residual_backward_3(const Head& h) { residual_backward<3>(h); }
VECTORISED void residual_backward_4(const Head& h) { residual_backward<4>(h); }
using OfHead = void (*)(const Head&);
const OfHead FORWARD[] = {residual_forward_1, residual_forward_2, residual_forward_3, residual_forward_4};
const OfHead BACKWARD[] = {residual_backward_1, residual_backward_2, residual_backward_3, residual_backward_4};

// Queries (scaled already), keys and values side by side in [batch * steps, 3 * heads * width]; scores [batch, heads, steps, padded].
struct ResidualAttention : torch::autograd::Function<ResidualAttention> {
  static variable_list forward(AutogradContext* ctx, const Tensor& qkv_, const std::optional<Tensor>& before_, int64_t batch, int64_t heads) {
    auto qkv = qkv_.contiguous();
    int64_t steps = qkv.size(0) / batch, inner = qkv.size(1) / 3, width = inner / heads;
    int64_t blocks = (steps + LANES - 1) / LANES, padded = blocks * LANES;
    TORCH_CHECK(blocks >= 1 && blocks <= 4, "at most 64 steps, but ", steps, " are given");
    auto before = before_ ? before_->contiguous() : Tensor();
    auto out = at::empty({batch * steps, inner}, qkv.options());
    auto now = at::empty({batch, heads, steps, padded}, qkv.options());
    auto log_sums = at::empty({batch, heads, steps}, qkv.options());
    at::parallel_for(0, batch * heads, 16, [&](int64_t begin, int64_t end) {
      std::vector<float> work(2 * width * padded);
      for (int64_t n = begin; n < end; n++) {
        int64_t square = n * steps * padded;
        Head head{};
        head.q = qkv.const_data_ptr<float>() + n / heads * steps * 3 * inner + n % heads * width;
        head.k = head.q + inner;
        head.v = head.k + inner;
        head.before = before.defined() ? before.const_data_ptr<float>() + square : nullptr;
        head.now = now.mutable_data_ptr<float>() + square;
        head.out = out.mutable_data_ptr<float>() + n / heads * steps * inner + n % heads * width;
        head.log_sums = log_sums.mutable_data_ptr<float>() + n * steps;
        head.work = work.data();
        head.steps = steps, head.width = width, head.stride = 3 * inner, head.out_stride = inner;
        FORWARD[blocks - 1](head);
      }
    });
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({qkv_, out, now, log_sums});
    ctx->saved_data["before"] = before.defined();
    return {out, now};
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    auto saved = ctx->get_saved_variables();
    auto qkv = saved[0].detach().contiguous(), out = saved[1].detach(), now = saved[2].detach(), log_sums = saved[3].detach();
    int64_t batch = now.size(0), heads = now.size(1), steps = now.size(2), padded = now.size(3);
    int64_t inner = out.size(1), width = inner / heads;
    auto change = gradients[0].defined() ? gradients[0].contiguous() : at::zeros_like(out);
    auto later = gradients[1].defined() ? gradients[1].contiguous() : Tensor();
    auto dqkv = at::empty_like(qkv);
    auto earlier = ctx->saved_data["before"].toBool() ? at::empty_like(now) : Tensor();
    at::parallel_for(0, batch * heads, 16, [&](int64_t begin, int64_t end) {
      std::vector<float> work(4 * width * padded);
      for (int64_t n = begin; n < end; n++) {
        int64_t place = n / heads * steps * 3 * inner + n % heads * width, square = n * steps * padded;
        int64_t of_out = n / heads * steps * inner + n % heads * width;
        Head head{};
        head.q = qkv.const_data_ptr<float>() + place;
        head.k = head.q + inner;
        head.v = head.k + inner;
        head.now = now.mutable_data_ptr<float>() + square;
        head.out = out.mutable_data_ptr<float>() + of_out;
        head.log_sums = log_sums.mutable_data_ptr<float>() + n * steps;
        head.change = change.const_data_ptr<float>() + of_out;
        head.later = later.defined() ? later.const_data_ptr<float>() + square : nullptr;
        head.earlier = earlier.defined() ? earlier.mutable_data_ptr<float>() + square : nullptr;
        head.dq = dqkv.mutable_data_ptr<float>() + place;
        head.dk = head.dq + inner;
        head.dv = head.dk + inner;
        head.work = work.data();
        head.steps = steps, head.width = width, head.stride = 3 * inner, head.out_stride = inner;
        BACKWARD[padded / LANES - 1](head);
      }
    });
    return {dqkv, earlier, Tensor(), Tensor()};
  }
};

thread_local std::string last_error;
}  // namespace

#define TRY(...)                        \
  try {                                 \
    __VA_ARGS__;                        \
    return 0;                           \
  } catch (const std::exception& e) {   \
    last_error = e.what();              \
    return 1;                           \
  } catch (...) {                       \
    last_error = "unknown C++ exception"; \
    return 1;                           \
  }

extern "C" {
const char* deeprc_kernel_error() { return last_error.c_str(); }

int deeprc_dropout(Tensor** out, Tensor* x, double probability) { TRY(*out = new Tensor(Dropout::apply(*x, probability))) }

int deeprc_attention(Tensor** out, Tensor* q, Tensor* k, Tensor* v, int64_t heads, double dropout) {
  TRY(*out = new Tensor(Attention::apply(*q, *k, *v, heads, dropout)))
}

int deeprc_autocorrelation(Tensor** out, Tensor* q, Tensor* k, Tensor* v, int64_t count, int common) {
  TRY(*out = new Tensor(AutoCorrelation::apply(*q, *k, *v, count, common != 0)))
}

// `before` is null in the first layer.
int deeprc_residual_attention(Tensor** out, Tensor** scores, Tensor* qkv, Tensor* before, int64_t batch, int64_t heads) {
  TRY(auto both = ResidualAttention::apply(*qkv, before ? std::optional<Tensor>(*before) : std::nullopt, batch, heads);
      *out = new Tensor(both[0]); *scores = new Tensor(both[1]))
}

int deeprc_season(Tensor** out, Tensor* x, int64_t window) { TRY(*out = new Tensor(Season::apply(*x, window))) }
}
