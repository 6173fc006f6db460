// What Gloo itself takes, without Deep RC: the figures that the transport `gloo` of crates/comm is measured against.
//
//   c++ -O3 -std=c++17 -o bare_gloo bare_gloo.cc -lgloo -lpthread
//   for each rank: RANK=0 WORLD_SIZE=2 BENCH_DIR=/dev/shm/empty ./bare_gloo [rounds]
//
// Rank 0 prints one JSON object per line. Times are those of the slowest rank. A rank's 256 MB of the exchange are divided among all
// ranks, itself included, as in `all_to_all` of the `exchange_speed` example. Receive buffers are allocated once and used in every
// round, which is the best case for Gloo: Deep RC hands out memory in every call.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gloo/allreduce.h>
#include <gloo/alltoallv.h>
#include <gloo/barrier.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>

namespace {

constexpr size_t kMega = 1 << 20;
// Its barrier takes 5 ms.
constexpr int kBarriers = 20;
constexpr int kCalls = 1000;

std::shared_ptr<gloo::rendezvous::Context> context;
uint32_t tag = 0;

std::string variable(const char* name) {
  const char* value = getenv(name);
  if (value == nullptr) {
    fprintf(stderr, "bare_gloo: %s is not set\n", name);
    exit(2);
  }
  return value;
}

template <typename T>
void allreduce(std::vector<T>& values, void (*reduce)(void*, const void*, const void*, size_t)) {
  gloo::AllreduceOptions options(context);
  options.setOutput(values.data(), values.size());
  options.setReduceFunction(reduce);
  options.setTag(++tag);
  gloo::allreduce(options);
}

// `calls` calls are timed as one and divided: a single small one is shorter than the clock can tell.
void measure(const char* what, size_t bytes, int rounds, int calls, const std::function<void()>& call) {
  std::vector<double> times;
  for (int round = 0; round <= rounds; round++) {
    std::vector<double> time(1, 0.0);
    allreduce(time, &gloo::max<double>);
    const auto started = std::chrono::steady_clock::now();
    for (int i = 0; i < calls; i++) {
      call();
    }
    time[0] = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - started).count() / calls;
    allreduce(time, &gloo::max<double>);
    // The first is for pages and connections.
    if (round > 0) {
      times.push_back(time[0]);
    }
  }
  std::sort(times.begin(), times.end());
  if (context->rank == 0) {
    printf("{\"what\":\"%s\",\"bytes\":%zu,\"rounds\":%d,\"min_ms\":%.6f,\"median_ms\":%.6f,\"max_ms\":%.6f}\n", what, bytes, rounds, times.front(),
           times[times.size() / 2], times.back());
    fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = std::max(1, argc > 1 ? atoi(argv[1]) : 10);
  const int rank = std::stoi(variable("RANK"));
  const int size = std::stoi(variable("WORLD_SIZE"));
  context = std::make_shared<gloo::rendezvous::Context>(rank, size);
  context->setTimeout(std::chrono::seconds(60));
  gloo::rendezvous::FileStore store(variable("BENCH_DIR"));
  auto device = gloo::transport::tcp::CreateDevice("127.0.0.1");
  context->connectFullMesh(store, device);

  const size_t bytes = 256 * kMega;
  const size_t part = bytes / size;
  std::vector<char> out(bytes, static_cast<char>(rank + 1));
  std::vector<char> in(bytes, 0);
  const std::vector<int64_t> counts(size, static_cast<int64_t>(part));
  measure("exchange", bytes, rounds, 1, [&] {
    gloo::AlltoallvOptions options(context);
    options.setInput(out.data(), counts);
    options.setOutput(in.data(), counts);
    options.setTag(++tag);
    gloo::alltoallv(options);
  });
  for (int from = 0; from < size; from++) {
    if (in[from * part] != from + 1 || in[(from + 1) * part - 1] != from + 1) {
      fprintf(stderr, "bare_gloo: rank %d received wrong bytes from rank %d\n", rank, from);
      return 1;
    }
  }
  std::vector<float> values(64 * kMega / sizeof(float));
  for (size_t i = 0; i < values.size(); i++) {
    values[i] = static_cast<float>(i % 100);
  }
  measure("allreduce f32", 64 * kMega, rounds, 1, [&] { allreduce(values, &gloo::sum<float>); });
  std::vector<double> value(1, 1.0);
  measure("allreduce f64", sizeof(double), rounds, kCalls, [&] { allreduce(value, &gloo::max<double>); });
  measure("barrier", 0, rounds, kBarriers, [&] {
    gloo::BarrierOptions options(context);
    options.setTag(++tag);
    gloo::barrier(options);
  });
  return 0;
}
