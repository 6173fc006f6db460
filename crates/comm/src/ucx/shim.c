// A worker of UCX whose operations end as events in a queue.

#define _POSIX_C_SOURCE 200809L

#include "shim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <ucp/api/ucp.h>

// How long the end of a group waits for the library to let go of the memory of operations that were called off.
static const double kPatience = 0.5;

// An operation on its way. All of a group are in a ring.
struct operation {
  struct operation *next;
  struct operation *previous;
  struct drc_ucx *group;
  void *request;
  uint64_t ticket;
  uint32_t kind;
};

// What the error handler of an endpoint is told.
struct peer {
  struct drc_ucx *group;
  ucp_ep_h endpoint;
  // Errors of the endpoint are noticed, so it can be closed by force.
  int noticed;
};

struct drc_ucx {
  ucp_context_h context;
  ucp_worker_h worker;
  int descriptor;
  size_t size;
  struct peer *peers;
  struct operation pending;
  // A ring of events, grown when full.
  struct drc_ucx_event *events;
  size_t capacity;
  size_t first;
  size_t count;
};

static int explain(ucs_status_t status, const char *what, char *why, size_t room) {
  snprintf(why, room, "%s: %s", what, ucs_status_string(status));
  return 1;
}

static void *allocated(void *memory) {
  if (memory == NULL) {
    fputs("deeprc-comm: out of memory\n", stderr);
    abort();
  }
  return memory;
}

static void tell(struct drc_ucx *group, struct drc_ucx_event event) {
  if (group->count == group->capacity) {
    const size_t capacity = group->capacity * 2;
    struct drc_ucx_event *events = allocated(malloc(capacity * sizeof *events));
    for (size_t i = 0; i < group->count; i++) {
      events[i] = group->events[(group->first + i) % group->capacity];
    }
    free(group->events);
    group->events = events;
    group->capacity = capacity;
    group->first = 0;
  }
  group->events[(group->first + group->count++) % group->capacity] = event;
}

static struct operation *begin(struct drc_ucx *group, uint32_t kind, uint64_t ticket) {
  struct operation *operation = allocated(malloc(sizeof *operation));
  *operation = (struct operation){&group->pending, group->pending.previous, group, NULL, ticket, kind};
  operation->previous->next = operation;
  operation->next->previous = operation;
  return operation;
}

static void end(struct operation *operation, ucs_status_t status) {
  const struct drc_ucx_event event = {operation->kind, status, operation->ticket};
  operation->previous->next = operation->next;
  operation->next->previous = operation->previous;
  tell(operation->group, event);
  free(operation);
}

static void on_sent(void *request, ucs_status_t status, void *operation) {
  end(operation, status);
  ucp_request_free(request);
}

static void on_received(void *request, ucs_status_t status, const ucp_tag_recv_info_t *info, void *operation) {
  (void)info;
  end(operation, status);
  ucp_request_free(request);
}

static void on_failure(void *of, ucp_ep_h endpoint, ucs_status_t status) {
  struct peer *peer = of;
  (void)endpoint;
  tell(peer->group, (struct drc_ucx_event){DRC_UCX_ENDED, status, (uint64_t)(peer - peer->group->peers)});
}

// Either the operation has ended, or the callback will tell.
static int began(struct operation *operation, ucs_status_ptr_t request, const char *what, char *why, size_t room) {
  if (UCS_PTR_IS_ERR(request)) {
    const ucs_status_t status = UCS_PTR_STATUS(request);
    operation->previous->next = operation->next;
    operation->next->previous = operation->previous;
    free(operation);
    return explain(status, what, why, room);
  }
  if (request == NULL) {
    end(operation, UCS_OK);
  } else {
    operation->request = request;
  }
  return 0;
}

static void let_go(struct drc_ucx *group) {
  if (group->worker) {
    ucp_worker_destroy(group->worker);
  }
  if (group->context) {
    ucp_cleanup(group->context);
  }
  free(group->peers);
  free(group->events);
  free(group);
}

struct drc_ucx *drc_ucx_open(size_t size, char *why, size_t room) {
  struct drc_ucx *group = allocated(calloc(1, sizeof *group));
  group->size = size;
  group->peers = allocated(calloc(size, sizeof *group->peers));
  group->capacity = 64;
  group->events = allocated(malloc(group->capacity * sizeof *group->events));
  group->pending.next = &group->pending;
  group->pending.previous = &group->pending;
  // The user's UCX_ variables hold, as everywhere.
  ucp_config_t *config = NULL;
  const char *what = "read its configuration";
  ucs_status_t status = ucp_config_read(NULL, NULL, &config);
  if (status == UCS_OK) {
    what = "initialise";
    const ucp_params_t params = {.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_ESTIMATED_NUM_EPS,
                                 .features = UCP_FEATURE_TAG | UCP_FEATURE_WAKEUP,
                                 .estimated_num_eps = size};
    status = ucp_init(&params, config, &group->context);
    ucp_config_release(config);
  }
  if (status == UCS_OK) {
    what = "create a worker";
    const ucp_worker_params_t params = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE, .thread_mode = UCS_THREAD_MODE_SERIALIZED};
    status = ucp_worker_create(group->context, &params, &group->worker);
  }
  if (status == UCS_OK) {
    what = "get a file descriptor to wait at";
    status = ucp_worker_get_efd(group->worker, &group->descriptor);
  }
  if (status != UCS_OK) {
    explain(status, what, why, room);
    let_go(group);
    return NULL;
  }
  return group;
}

size_t drc_ucx_address(struct drc_ucx *group, uint8_t *bytes, size_t room) {
  ucp_address_t *address;
  size_t length;
  if (ucp_worker_get_address(group->worker, &address, &length) != UCS_OK) {
    return 0;
  }
  memcpy(bytes, address, length < room ? length : room);
  ucp_worker_release_address(group->worker, address);
  return length;
}

int drc_ucx_descriptor(struct drc_ucx *group) {
  return group->descriptor;
}

int drc_ucx_connect(struct drc_ucx *group, size_t rank, const uint8_t *address, int watched, char *why, size_t room) {
  struct peer *peer = &group->peers[rank];
  peer->group = group;
  peer->noticed = !watched;
  const ucp_ep_params_t params = {
      .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER,
      .address = (const ucp_address_t *)address,
      .err_mode = watched ? UCP_ERR_HANDLING_MODE_NONE : UCP_ERR_HANDLING_MODE_PEER,
      .err_handler = {.cb = on_failure, .arg = peer}};
  const ucs_status_t status = ucp_ep_create(group->worker, &params, &peer->endpoint);
  if (status != UCS_OK) {
    peer->endpoint = NULL;
    return explain(status, "create an endpoint", why, room);
  }
  return 0;
}

int drc_ucx_send(struct drc_ucx *group, size_t rank, uint64_t tag, const uint8_t *bytes, size_t length, uint64_t ticket, char *why,
                 size_t room) {
  struct operation *operation = begin(group, DRC_UCX_SENT, ticket);
  const ucp_request_param_t param = {
      .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA, .cb.send = on_sent, .user_data = operation};
  return began(operation, ucp_tag_send_nbx(group->peers[rank].endpoint, bytes, length, tag, &param), "send", why, room);
}

int drc_ucx_receive(struct drc_ucx *group, uint64_t tag, uint64_t mask, uint8_t *bytes, size_t length, uint64_t ticket, char *why,
                    size_t room) {
  struct operation *operation = begin(group, DRC_UCX_RECEIVED, ticket);
  const ucp_request_param_t param = {
      .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA, .cb.recv = on_received, .user_data = operation};
  return began(operation, ucp_tag_recv_nbx(group->worker, bytes, length, tag, mask, &param), "receive", why, room);
}

int drc_ucx_flush(struct drc_ucx *group, uint64_t ticket, char *why, size_t room) {
  struct operation *operation = begin(group, DRC_UCX_SENT, ticket);
  const ucp_request_param_t param = {
      .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA, .cb.send = on_sent, .user_data = operation};
  return began(operation, ucp_worker_flush_nbx(group->worker, &param), "flush", why, room);
}

size_t drc_ucx_progress(struct drc_ucx *group) {
  // Each call moves some bytes of some transports.
  while (ucp_worker_progress(group->worker) != 0 && group->count == 0) {
  }
  return group->count;
}

int drc_ucx_event(struct drc_ucx *group, struct drc_ucx_event *event) {
  if (group->count == 0) {
    return 0;
  }
  *event = group->events[group->first];
  group->first = (group->first + 1) % group->capacity;
  group->count--;
  return 1;
}

int drc_ucx_arm(struct drc_ucx *group) {
  return group->count == 0 && ucp_worker_arm(group->worker) == UCS_OK;
}

void drc_ucx_signal(struct drc_ucx *group) {
  ucp_worker_signal(group->worker);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

void drc_ucx_close(struct drc_ucx *group) {
  for (struct operation *operation = group->pending.next; operation != &group->pending;) {
    // A receive that is called off may end at once, and with it the operation.
    struct operation *next = operation->next;
    if (operation->kind == DRC_UCX_RECEIVED) {
      ucp_request_cancel(group->worker, operation->request);
    }
    operation = next;
  }
  for (size_t rank = 0; rank < group->size; rank++) {
    if (group->peers[rank].endpoint && group->peers[rank].noticed) {
      const ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS, .flags = UCP_EP_CLOSE_FLAG_FORCE};
      ucs_status_ptr_t request = ucp_ep_close_nbx(group->peers[rank].endpoint, &param);
      if (request != NULL && !UCS_PTR_IS_ERR(request)) {
        ucp_request_free(request);
      }
    }
  }
  // What cannot be called off (bytes for a process that has died, on an endpoint without errors) ends with the worker.
  for (const double until = now() + kPatience; group->pending.next != &group->pending && now() < until;) {
    ucp_worker_progress(group->worker);
  }
  while (group->pending.next != &group->pending) {
    struct operation *operation = group->pending.next;
    group->pending.next = operation->next;
    operation->next->previous = &group->pending;
    // The callback may still come, from the destruction of the worker.
    operation->next = operation;
    operation->previous = operation;
  }
  let_go(group);
}
