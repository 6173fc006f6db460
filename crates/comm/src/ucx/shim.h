// What the transport `ucx` needs of libucp, as C without callbacks. See shim.c; `ffi.rs` declares the same.
// All functions but `drc_ucx_signal` are for one thread at a time.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct drc_ucx;

enum drc_ucx_kind { DRC_UCX_SENT = 1, DRC_UCX_RECEIVED = 2, DRC_UCX_ENDED = 3 };

// Something that has ended.
struct drc_ucx_event {
  // One of the kinds.
  uint32_t kind;
  // 0 when it succeeded.
  int32_t status;
  // Of the call that began it; for DRC_UCX_ENDED the rank whose connection has failed.
  uint64_t ticket;
};

// A worker that can reach `size` ranks. Null, and the reason in `why`, when that cannot be.
struct drc_ucx *drc_ucx_open(size_t size, char *why, size_t room);
// The worker's address for other processes; its length, which may be above `room`.
size_t drc_ucx_address(struct drc_ucx *group, uint8_t *bytes, size_t room);
// The file descriptor that becomes readable when an armed worker has something to do.
int drc_ucx_descriptor(struct drc_ucx *group);
// These answer 0, or 1 with the reason in `why`. Of a rank whose death is noticed otherwise (`watched`), errors need not be: UCX's
// shared memory is only for those.
int drc_ucx_connect(struct drc_ucx *group, size_t rank, const uint8_t *address, int watched, char *why, size_t room);
int drc_ucx_send(struct drc_ucx *group, size_t rank, uint64_t tag, const uint8_t *bytes, size_t length, uint64_t ticket, char *why,
                 size_t room);
int drc_ucx_receive(struct drc_ucx *group, uint64_t tag, uint64_t mask, uint8_t *bytes, size_t length, uint64_t ticket, char *why,
                    size_t room);
// Has everything that was sent leave this process; then an event DRC_UCX_SENT with the ticket.
int drc_ucx_flush(struct drc_ucx *group, uint64_t ticket, char *why, size_t room);
// Moves bytes; how many events there are now.
size_t drc_ucx_progress(struct drc_ucx *group);
// Takes the oldest event; 0 when there is none.
int drc_ucx_event(struct drc_ucx *group, struct drc_ucx_event *event);
// Before a wait at the descriptor: 1 when there is nothing to do, 0 when there is, so that `drc_ucx_progress` is to be called.
int drc_ucx_arm(struct drc_ucx *group);
// Makes the descriptor readable. For any thread.
void drc_ucx_signal(struct drc_ucx *group);
// Ends everything; when it returns all memory is free.
void drc_ucx_close(struct drc_ucx *group);
