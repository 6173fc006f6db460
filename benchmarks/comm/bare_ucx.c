/* What UCX itself takes, without Deep RC: the figures that the transport `ucx` of crates/comm is measured against.
 *
 *   cc -O3 -o bare_ucx bare_ucx.c -lucp -lucs -lpthread
 *   for each rank: RANK=0 WORLD_SIZE=2 BENCH_DIR=/dev/shm/empty ./bare_ucx [rounds]
 *
 * Rank 0 prints one JSON object per line. Times are those of the slowest rank. UCX has no collectives: the exchange is one send and
 * one receive for each other rank, all under way at the same time; the allreduce is an exchange, a sum and another exchange; the barrier
 * sends empty messages over ever longer distances. A rank's 256 MB of the exchange are divided among all ranks, itself included, as in
 * `all_to_all` of the `exchange_speed` example. Receive buffers are allocated once and used in every round, and ranks spin while they
 * wait, which is the best case for UCX.
 */
#define _POSIX_C_SOURCE 200809L

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <ucp/api/ucp.h>

enum { MEGA = 1 << 20, CALLS = 1000, MOST = 64 };

static int rank, size;
static ucp_worker_h worker;
static ucp_ep_h to[MOST];
static uint64_t sequence;
static char *out, *in;
static float *values, *sums;

static void die(const char *what) {
  fprintf(stderr, "bare_ucx: rank %d: %s\n", rank, what);
  exit(1);
}

static void check(ucs_status_t status, const char *what) {
  if (status != UCS_OK) {
    fprintf(stderr, "bare_ucx: rank %d: %s: %s\n", rank, what, ucs_status_string(status));
    exit(1);
  }
}

static const char *variable(const char *name) {
  const char *value = getenv(name);
  if (value == NULL) {
    fprintf(stderr, "bare_ucx: %s is not set\n", name);
    exit(2);
  }
  return value;
}

static void *allocate(size_t bytes) {
  void *memory = malloc(bytes);
  if (memory == NULL) die("no memory");
  return memory;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

/* Operations under way. */
static ucs_status_ptr_t requests[2 * MOST];
static int begun;

static void begin(ucs_status_ptr_t request) {
  if (UCS_PTR_IS_ERR(request)) check(UCS_PTR_STATUS(request), "begin");
  if (request != NULL) requests[begun++] = request;
}

static void send_to(int rank_to, const void *bytes, size_t length) {
  const ucp_request_param_t param = {0};
  begin(ucp_tag_send_nbx(to[rank_to], bytes, length, sequence << 16 | rank, &param));
}

static void receive_from(int from, void *bytes, size_t length) {
  const ucp_request_param_t param = {0};
  begin(ucp_tag_recv_nbx(worker, bytes, length, sequence << 16 | from, UINT64_MAX, &param));
}

static void finish(void) {
  for (int i = 0; i < begun; i++) {
    ucs_status_t status;
    while ((status = ucp_request_check_status(requests[i])) == UCS_INPROGRESS) ucp_worker_progress(worker);
    check(status, "finish");
    ucp_request_free(requests[i]);
  }
  begun = 0;
  sequence++;
}

static void exchange_of(const char *from, size_t from_stride, char *into, size_t part) {
  for (int distance = 1; distance < size; distance++) {
    const int source = (rank + size - distance) % size, target = (rank + distance) % size;
    receive_from(source, into + source * part, part);
    send_to(target, from + target * from_stride, part);
  }
  memcpy(into + rank * part, from + rank * from_stride, part);
  finish();
}

static void exchange(void) {
  const size_t part = 256 * (size_t)MEGA / size;
  exchange_of(out, part, in, part);
}

static void allreduce_of(float *numbers, size_t count) {
  const size_t part = count / size;
  exchange_of((char *)numbers, part * sizeof(float), (char *)sums, part * sizeof(float));
  for (int other = 1; other < size; other++) {
    for (size_t i = 0; i < part; i++) sums[i] += sums[other * part + i];
  }
  /* The same piece for everybody. */
  exchange_of((char *)sums, 0, (char *)numbers, part * sizeof(float));
}

static void allreduce(void) {
  allreduce_of(values, 64 * MEGA / sizeof(float));
}

static void allreduce_max(double *value) {
  double all[MOST];
  exchange_of((char *)value, 0, (char *)all, sizeof *value);
  for (int i = 0; i < size; i++) {
    if (all[i] > *value) *value = all[i];
  }
}

static void small_allreduce(void) {
  double value = 1;
  allreduce_max(&value);
}

static void barrier(void) {
  for (int distance = 1; distance < size; distance *= 2) {
    receive_from((rank + size - distance) % size, NULL, 0);
    send_to((rank + distance) % size, NULL, 0);
    finish();
  }
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* `calls` calls are timed as one and divided: a single small one is shorter than the clock can tell. */
static void measure(const char *what, size_t bytes, int rounds, int calls, void (*call)(void)) {
  double *times = allocate(rounds * sizeof(double));
  call(); /* pages and connections */
  for (int round = 0; round < rounds; round++) {
    barrier();
    const double started = now();
    for (int i = 0; i < calls; i++) call();
    times[round] = (now() - started) / calls;
    allreduce_max(&times[round]);
  }
  qsort(times, rounds, sizeof(double), by_value);
  if (rank == 0) {
    printf("{\"what\":\"%s\",\"bytes\":%zu,\"rounds\":%d,\"min_ms\":%.6f,\"median_ms\":%.6f,\"max_ms\":%.6f}\n", what, bytes, rounds, times[0],
           times[rounds / 2], times[rounds - 1]);
    fflush(stdout);
  }
  free(times);
}

/* Every rank writes its address into a file; a file that is there is complete. */
static void connect_all(void) {
  char path[4096], draft[4096];
  ucp_address_t *address;
  size_t length;
  check(ucp_worker_get_address(worker, &address, &length), "get the address");
  snprintf(path, sizeof path, "%s/ucx-%d", variable("BENCH_DIR"), rank);
  snprintf(draft, sizeof draft, "%s/draft-%d", variable("BENCH_DIR"), rank);
  FILE *file = fopen(draft, "wb");
  if (file == NULL || fwrite(address, 1, length, file) != length || fclose(file) != 0 || rename(draft, path) != 0) die("write the address");
  ucp_worker_release_address(worker, address);
  for (int other = 0; other < size; other++) {
    if (other == rank) continue;
    static char bytes[1 << 16];
    const double until = now() + 60e3;
    snprintf(path, sizeof path, "%s/ucx-%d", variable("BENCH_DIR"), other);
    while ((file = fopen(path, "rb")) == NULL) {
      if (now() > until) die("another rank did not come");
      nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    if (fread(bytes, 1, sizeof bytes, file) == 0) die("read an address");
    fclose(file);
    const ucp_ep_params_t params = {.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS, .address = (ucp_address_t *)bytes};
    check(ucp_ep_create(worker, &params, &to[other]), "create an endpoint");
  }
}

int main(int argc, char **argv) {
  int rounds = argc > 1 ? atoi(argv[1]) : 10;
  if (rounds < 1) rounds = 1;
  rank = atoi(variable("RANK"));
  size = atoi(variable("WORLD_SIZE"));
  if (size < 1 || size > MOST) die("too many ranks");
  ucp_context_h context;
  const ucp_params_t params = {.field_mask = UCP_PARAM_FIELD_FEATURES, .features = UCP_FEATURE_TAG};
  check(ucp_init(&params, NULL, &context), "initialise");
  const ucp_worker_params_t worker_params = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE, .thread_mode = UCS_THREAD_MODE_SINGLE};
  check(ucp_worker_create(context, &worker_params, &worker), "create a worker");
  connect_all();

  const size_t bytes = 256 * (size_t)MEGA, part = bytes / size;
  out = allocate(bytes), in = allocate(bytes), values = allocate(64 * MEGA), sums = allocate(64 * MEGA);
  memset(out, rank + 1, bytes);
  memset(in, 0, bytes);
  for (size_t i = 0; i < 64 * MEGA / sizeof(float); i++) values[i] = (float)(i % 100);
  measure("exchange", bytes, rounds, 1, exchange);
  for (int from = 0; from < size; from++) {
    if (in[from * part] != from + 1 || in[(from + 1) * part - 1] != from + 1) die("received wrong bytes");
  }
  measure("allreduce f32", 64 * MEGA, rounds, 1, allreduce);
  measure("allreduce f64", sizeof(double), rounds, CALLS, small_allreduce);
  measure("barrier", 0, rounds, CALLS, barrier);
  /* Nobody takes its memory away while another one still reads it. */
  barrier();
  const ucp_request_param_t flush = {0};
  begin(ucp_worker_flush_nbx(worker, &flush));
  finish();
  ucp_worker_destroy(worker);
  ucp_cleanup(context);
  free(out), free(in), free(values), free(sums);
  return 0;
}
