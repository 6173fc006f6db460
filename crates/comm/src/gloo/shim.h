// What the transport `gloo` needs of libgloo, as C. See shim.cc; `ffi.rs` declares the same.
#pragma once
#include <stddef.h>
#include <stdint.h>

extern "C" {

// Told by Gloo's own thread, `sent` also by the thread that sends. None of them may block for long.
struct drc_gloo_listener {
  void* of;
  // The next frame of a rank. The bytes are lent for the call, in which `drc_gloo_receive` may be called for this rank.
  void (*frame)(void* of, size_t rank, const uint8_t* bytes, size_t length);
  // The oldest memory given to `drc_gloo_receive` for this rank is filled.
  void (*received)(void* of, size_t rank);
  // So many of the oldest frames and bodies to this rank are with the operating system; their memory is free again.
  void (*sent)(void* of, size_t rank, size_t frames, size_t bodies);
  // The connection has ended, and everything that came over it was told.
  void (*ended)(void* of, size_t rank);
};

struct drc_gloo;

// A rank that listens, for each other rank, on the address of an interface (if that is not empty) or a numeric address.
// `patience` in milliseconds is how long a connection may take. Null, and the reason in `why`, when that cannot be.
drc_gloo* drc_gloo_open(size_t rank, size_t size, size_t frame, const char* interface, const char* address, uint64_t patience,
                        drc_gloo_listener listener, char* why, size_t room);
// Where a rank has to connect to; the number of bytes written.
size_t drc_gloo_address(drc_gloo* group, size_t rank, uint8_t* bytes, size_t room);
// These answer 0, or 1 with the reason in `why`.
int drc_gloo_connect(drc_gloo* group, size_t rank, const uint8_t* address, size_t length, char* why, size_t room);
int drc_gloo_send_frame(drc_gloo* group, size_t rank, const uint8_t* bytes, size_t length, char* why, size_t room);
int drc_gloo_send(drc_gloo* group, size_t rank, const uint8_t* bytes, size_t length, char* why, size_t room);
// Only while the listener is told of a frame of this rank. The memory is the group's until it is filled or the group ends.
int drc_gloo_receive(drc_gloo* group, size_t rank, uint8_t* bytes, size_t length, char* why, size_t room);
// Ends one connection.
void drc_gloo_hang_up(drc_gloo* group, size_t rank);
// Ends all; when it returns the listener is told nothing more and all memory is free. Not for the listener.
void drc_gloo_close(drc_gloo* group);
}
