/* What MPI itself takes, without Deep RC: the figures that crates/comm is measured against.
 *
 *   mpicc -O3 -o bare_mpi bare_mpi.c && mpirun -n 2 ./bare_mpi [rounds]
 *
 * Rank 0 prints one JSON object per line. Times are those of the slowest rank. A rank's 256 MB of the exchange are divided
 * among all ranks, itself included, as in `all_to_all` of the `exchange` example. Receive buffers are allocated once and used
 * in every round, which is the best case for MPI: Deep RC hands out new memory in every call.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MEGA = 1 << 20, CALLS = 1000 };

static int rank, size;

static void *allocate(size_t bytes) {
    void *memory = malloc(bytes);
    if (memory == NULL) {
        fprintf(stderr, "bare_mpi: no memory for %zu bytes\n", bytes);
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    return memory;
}

struct work {
    char *out, *in;
    float *values, *sums;
    int *counts, *starts;
};

static void exchange(struct work *w) {
    MPI_Alltoallv(w->out, w->counts, w->starts, MPI_BYTE, w->in, w->counts, w->starts, MPI_BYTE, MPI_COMM_WORLD);
}

static void allreduce(struct work *w) {
    MPI_Allreduce(w->values, w->sums, 64 * MEGA / sizeof(float), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

static void small_allreduce(struct work *w) {
    double value = 1, sum;
    (void)w;
    MPI_Allreduce(&value, &sum, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
}

static void barrier(struct work *w) {
    (void)w;
    MPI_Barrier(MPI_COMM_WORLD);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* `calls` calls are timed as one and divided: a single small one is shorter than the clock can tell. */
static void measure(const char *what, size_t bytes, int rounds, int calls, void (*call)(struct work *), struct work *w) {
    double *times = allocate(rounds * sizeof(double));
    call(w); /* pages and connections */
    for (int round = 0; round < rounds; round++) {
        MPI_Barrier(MPI_COMM_WORLD);
        double started = MPI_Wtime();
        for (int i = 0; i < calls; i++) call(w);
        double mine = (MPI_Wtime() - started) * 1e3 / calls;
        MPI_Allreduce(&mine, &times[round], 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    }
    qsort(times, rounds, sizeof(double), by_value);
    if (rank == 0) {
        printf("{\"what\":\"%s\",\"bytes\":%zu,\"rounds\":%d,\"min_ms\":%.6f,\"median_ms\":%.6f,\"max_ms\":%.6f}\n", what, bytes, rounds,
               times[0], times[rounds / 2], times[rounds - 1]);
        fflush(stdout);
    }
    free(times);
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    int rounds = argc > 1 ? atoi(argv[1]) : 10;
    if (rounds < 1) rounds = 1;
    const size_t bytes = 256 * (size_t)MEGA, part = bytes / size;
    struct work w = {allocate(bytes), allocate(bytes), allocate(64 * MEGA), allocate(64 * MEGA), allocate(size * sizeof(int)), allocate(size * sizeof(int))};
    memset(w.out, rank + 1, bytes);
    memset(w.in, 0, bytes);
    for (size_t i = 0; i < 64 * MEGA / sizeof(float); i++) w.values[i] = (float)(i % 100);
    for (int i = 0; i < size; i++) w.counts[i] = (int)part, w.starts[i] = (int)(i * part);

    measure("exchange", bytes, rounds, 1, exchange, &w);
    for (int i = 0; i < size; i++) {
        if (w.in[i * part] != i + 1 || w.in[(i + 1) * part - 1] != i + 1) {
            fprintf(stderr, "bare_mpi: rank %d received wrong bytes from rank %d\n", rank, i);
            MPI_Abort(MPI_COMM_WORLD, 1);
        }
    }
    measure("allreduce f32", 64 * MEGA, rounds, 1, allreduce, &w);
    measure("allreduce f64", 8, rounds, CALLS, small_allreduce, &w);
    measure("barrier", 0, rounds, CALLS, barrier, &w);
    MPI_Finalize();
    free(w.out), free(w.in), free(w.values), free(w.sums), free(w.counts), free(w.starts);
    return 0;
}
