// Messages between two ranks over Gloo's TCP pairs, told to a listener as they come instead of waited for.
//
// Gloo's own way to wait, `UnboundBuffer::waitRecv`, does not suit a transport that promises an error for every rank that
// dies: a wait that times out closes all connections of the group; of a connection that breaks in the middle of a message
// the waiter learns nothing (`Pair::signalException` tells the pending operations, and the one under way is none of those);
// and an exception on Gloo's thread ends the process. So the classes below look at the same completions and state changes
// on Gloo's thread itself, right after it has handled the events of a connection: no further thread, no time-outs, and all
// exceptions caught.
//
// Two slots per connection: frames of bounded length, for which receives are always posted, and bodies, for which the
// listener posts receives as frames announce them. Gloo keeps the order of the messages in each slot.

#include "shim.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gloo/transport/tcp/address.h>
#include <gloo/transport/tcp/context.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/tcp/pair.h>
#include <gloo/transport/tcp/unbound_buffer.h>

namespace {

namespace tcp = gloo::transport::tcp;

constexpr uint64_t kFrames = 0;
constexpr uint64_t kBodies = 1;
// Frames that a rank may send before the receiver's thread has to run once.
constexpr size_t kPosted = 8;
// Gloo gives a connection five times the time that it calls its timeout.
constexpr uint64_t kConnectFactor = 5;
// How long Gloo's thread pauses between two turns while somebody waits for its next one.
constexpr unsigned kTurnMicroseconds = 20;

// Memory of one message, with its completions to be looked at rather than waited for.
class Memory final : public tcp::UnboundBuffer {
 public:
  using tcp::UnboundBuffer::UnboundBuffer;

  bool received() { return take(recvCompletions_); }
  bool sent() { return take(sendCompletions_); }

 private:
  bool take(int& completions) {
    std::lock_guard<std::mutex> lock(m_);
    if (completions == 0) {
      return false;
    }
    completions--;
    return true;
  }
};

// What a message is sent from. A frame is sent from a copy.
struct Outgoing {
  std::vector<uint8_t> copy;
  std::unique_ptr<Memory> memory;
};

// Turns Gloo's thread once, or as long as that is wanted: to let go of a descriptor, Gloo waits for its thread's next turn,
// which otherwise comes after up to 10 ms, for each connection.
class Crank final : public tcp::Handler {
 public:
  explicit Crank(std::function<void()> onTurn) : onTurn_(std::move(onTurn)), fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (fd_ == -1) {
      throw std::runtime_error(std::string("eventfd: ") + strerror(errno));
    }
  }

  ~Crank() {
    close(fd_);
  }

  int fd() const {
    return fd_;
  }

  void once() {
    const uint64_t one = 1;
    // Fails only when the counter is full, and then the thread turns as well.
    (void)!write(fd_, &one, sizeof one);
  }

  // From now on, or no more.
  void turn(bool wanted) {
    wanted_ += wanted ? 1 : -1;
    once();
  }

  void handleEvents(int) override {
    thread_ = std::this_thread::get_id();
    turns_++;
    if (wanted_ > 0) {
      usleep(kTurnMicroseconds);
    } else {
      uint64_t count;
      (void)!read(fd_, &count, sizeof count);
    }
    onTurn_();
  }

  // Whether this is Gloo's thread; known after its first turn.
  bool onThread() const {
    return std::this_thread::get_id() == thread_;
  }

  // Until the thread has begun and ended a turn; only while it turns.
  void wait() const {
    for (const uint64_t before = turns_; turns_ < before + 2;) {
      usleep(kTurnMicroseconds);
    }
  }

 private:
  const std::function<void()> onTurn_;
  const int fd_;
  std::atomic<int> wanted_{0};
  std::atomic<uint64_t> turns_{0};
  std::atomic<std::thread::id> thread_{};
};

// The time in which the crank turns.
class Turning {
 public:
  explicit Turning(Crank& crank) : crank_(crank) {
    crank_.turn(true);
  }

  ~Turning() {
    crank_.turn(false);
  }

 private:
  Crank& crank_;
};

class Connection final : public tcp::Pair {
 public:
  Connection(tcp::Context* context, tcp::Device* device, size_t rank, std::chrono::milliseconds timeout, const drc_gloo_listener& listener,
             Crank& crank)
      : tcp::Pair(context, device, static_cast<int>(rank), timeout), rank_(rank), listener_(listener), crank_(crank) {
    notInherited();
  }

  // Gets the memory for frames; after `connect`.
  void open(const std::shared_ptr<tcp::Context>& context, size_t frame) {
    std::lock_guard<std::mutex> lock(receiving_);
    context_ = context;
    for (size_t i = 0; i < kPosted; i++) {
      frames_.emplace_back();
      Outgoing& posted = frames_.back();
      posted.copy.resize(frame);
      posted.memory = std::make_unique<Memory>(context, posted.copy.data(), frame);
      tcp::Pair::recv(posted.memory.get(), kFrames, 0, frame);
    }
  }

  bool ended() const {
    return ended_;
  }

  void send(uint64_t slot, const uint8_t* bytes, size_t length) {
    {
      std::lock_guard<std::mutex> ordered(order_);
      Outgoing outgoing;
      auto* data = const_cast<uint8_t*>(bytes);
      if (slot == kFrames) {
        outgoing.copy.assign(bytes, bytes + length);
        data = outgoing.copy.data();
      }
      outgoing.memory = std::make_unique<Memory>(context_, data, length);
      Memory* memory = outgoing.memory.get();
      {
        std::lock_guard<std::mutex> lock(sending_);
        (slot == kFrames ? framesOut_ : bodiesOut_).push_back(std::move(outgoing));
      }
      // The memory may be gone when this returns: Gloo's thread may have seen it sent.
      tcp::Pair::send(memory, slot, 0, length);
    }
    sweep();
  }

  // Called by `frame` of the listener, hence with `receiving_` held.
  void receive(uint8_t* bytes, size_t length) {
    bodies_.push_back(std::make_unique<Memory>(context_, bytes, length));
    tcp::Pair::recv(bodies_.back().get(), kBodies, 0, length);
  }

  void handleEvents(int events) override {
    try {
      tcp::Pair::handleEvents(events);
    } catch (const std::exception& error) {
      breakOff(error.what());
    }
    settle();
  }

  // On Gloo's thread: what other threads may not do, and what Gloo does not call for.
  void turn() {
    if (hangUp_ && !ended_) {
      std::unique_lock<std::mutex> lock(m_, std::try_to_lock);
      if (!lock) {
        // Who holds it may itself wait for this thread's next turn.
        crank_.once();
      } else if (state_ != CLOSED) {
        changeState(CLOSED);
      }
    }
    if (ended_) {
      settle();
    }
  }

  // Lets go of all memory; after `hangUp`, when Gloo's thread calls no more.
  void clear() {
    frames_.clear();
    bodies_.clear();
    framesOut_.clear();
    bodiesOut_.clear();
    context_.reset();
  }

  // Has the connection ended; what is with the operating system is still delivered.
  void hangUp() {
    hangUp_ = true;
    crank_.once();
  }

 protected:
  // With `m_` held.
  void changeState(state next) noexcept override {
    if (next == CLOSED && !crank_.onThread()) {
      // Gloo's way waits for the next turn of its thread, with `m_` held, which that thread may be waiting for in `settle`.
      hangUp();
      return;
    }
    tcp::Pair::changeState(next);
    if (next == CONNECTED) {
      notInherited();
    }
    if (next == CLOSED) {
      ended_ = true;
    }
  }

 private:
  // A program started by this process must not keep the connection open after this process has died.
  void notInherited() {
    if (fd_ != -1) {
      fcntl(fd_, F_SETFD, FD_CLOEXEC);
    }
  }

  void breakOff(const std::string& why) {
    try {
      signalExceptionExternal(why);
    } catch (const std::exception&) {
      // Nothing that a pair with an error could still be told.
    }
  }

  // Tells the listener what has happened.
  void settle() {
    std::lock_guard<std::mutex> lock(receiving_);
    const bool ended = ended_;
    // Before the frames: one of them may say that the rank, which has what was sent, has left.
    sweep();
    while (!frames_.empty() && frames_.front().memory->received()) {
      Outgoing frame = std::move(frames_.front());
      frames_.pop_front();
      listener_.frame(listener_.of, rank_, frame.copy.data(), frame.copy.size());
      frames_.push_back(std::move(frame));
      Outgoing& posted = frames_.back();
      try {
        tcp::Pair::recv(posted.memory.get(), kFrames, 0, posted.copy.size());
      } catch (const std::exception& error) {
        breakOff(error.what());
      }
    }
    while (!bodies_.empty() && bodies_.front()->received()) {
      bodies_.pop_front();
      listener_.received(listener_.of, rank_);
    }
    if (ended && !told_) {
      told_ = true;
      listener_.ended(listener_.of, rank_);
    }
  }

  // Lets go of what was sent.
  void sweep() {
    std::vector<Outgoing> frames;
    std::vector<Outgoing> bodies;
    {
      std::lock_guard<std::mutex> lock(sending_);
      sweep(framesOut_, frames);
      sweep(bodiesOut_, bodies);
    }
    if (!frames.empty() || !bodies.empty()) {
      const size_t counts[] = {frames.size(), bodies.size()};
      // Before the listener hears of it: then Gloo has let go of the memory.
      frames.clear();
      bodies.clear();
      listener_.sent(listener_.of, rank_, counts[0], counts[1]);
    }
  }

  static void sweep(std::deque<Outgoing>& from, std::vector<Outgoing>& to) {
    while (!from.empty() && from.front().memory->sent()) {
      to.push_back(std::move(from.front()));
      from.pop_front();
    }
  }

  const size_t rank_;
  const drc_gloo_listener& listener_;
  Crank& crank_;
  std::shared_ptr<tcp::Context> context_;
  std::atomic<bool> hangUp_{false};
  std::atomic<bool> ended_{false};
  bool told_ = false;
  // Held while the listener is told of what was received.
  std::mutex receiving_;
  std::deque<Outgoing> frames_;
  std::deque<std::unique_ptr<Memory>> bodies_;
  // Held for a whole send: the queues have the order in which Gloo sends. Then `sending_` for the queues themselves.
  std::mutex order_;
  std::mutex sending_;
  std::deque<Outgoing> framesOut_;
  std::deque<Outgoing> bodiesOut_;
};

class Mesh final : public tcp::Context {
 public:
  Mesh(std::shared_ptr<tcp::Device> device, size_t rank, size_t size, uint64_t patience, const drc_gloo_listener& listener, Crank& crank)
      : tcp::Context(std::move(device), static_cast<int>(rank), static_cast<int>(size)) {
    // A year is beyond every patience, and far from overflow.
    const uint64_t year = 365ull * 24 * 3600 * 1000;
    setTimeout(std::chrono::milliseconds(std::min(patience, year) / kConnectFactor + 1));
    for (size_t other = 0; other < size; other++) {
      if (other != rank) {
        pairs_[other] = std::make_unique<Connection>(this, device_.get(), other, getTimeout(), listener, crank);
      }
    }
  }

  Connection& to(size_t rank) {
    return static_cast<Connection&>(*pairs_.at(rank));
  }

  template <typename Call>
  void each(Call call) {
    for (auto& pair : pairs_) {
      if (pair) {
        call(static_cast<Connection&>(*pair));
      }
    }
  }
};

void explain(const std::exception& error, char* why, size_t room) {
  const std::string text = error.what();
  const size_t length = std::min(text.size(), room - 1);
  memcpy(why, text.data(), length);
  why[length] = 0;
}

// libtorch has a Gloo of its own, of another version and with the same names. If the loader has put that in front, the classes above are
// mixed with it, and the process ends in the first connection.
void checkLibrary() {
  for (const char* name : {"_ZN4gloo9transport3tcp13UnboundBuffer8waitRecvEPiNSt6chrono8durationIlSt5ratioILl1ELl1000EEEE",
                           "_ZN4gloo9transport3tcp4Pair4recvEv"}) {
    Dl_info found;
    void* address = dlsym(RTLD_DEFAULT, name);
    if (address != nullptr && dladdr(address, &found) != 0 && strstr(found.dli_fname, "libgloo") == nullptr) {
      throw std::runtime_error(std::string("this program uses the Gloo inside ") + found.dli_fname +
                               " instead of libgloo\nhint: use another transport in a program with libtorch, for example ucx or shm");
    }
  }
}

template <typename Call>
int guarded(char* why, size_t room, Call call) {
  try {
    call();
    return 0;
  } catch (const std::exception& error) {
    explain(error, why, room);
    return 1;
  }
}

}  // namespace

struct drc_gloo {
  drc_gloo(size_t frame, const drc_gloo_listener& listener) : frame(frame), listener(listener) {}

  const size_t frame;
  const drc_gloo_listener listener;
  // Whether the mesh is complete.
  std::atomic<bool> complete{false};
  Crank crank{[this] {
    if (complete) {
      mesh->each([](Connection& connection) { connection.turn(); });
    }
  }};
  std::shared_ptr<Mesh> mesh;
  std::shared_ptr<tcp::Device> device;

  void send(size_t rank, uint64_t slot, const uint8_t* bytes, size_t length) {
    try {
      mesh->to(rank).send(slot, bytes, length);
    } catch (const std::exception&) {
      // The listener has to hear that the connection ended.
      crank.once();
      throw;
    }
  }
};

drc_gloo* drc_gloo_open(size_t rank, size_t size, size_t frame, const char* interface, const char* address, uint64_t patience,
                        drc_gloo_listener listener, char* why, size_t room) {
  std::unique_ptr<drc_gloo> group;
  const int failed = guarded(why, room, [&] {
    checkLibrary();
    tcp::attr attr;
    attr.iface = interface;
    attr.hostname = address;
    group = std::make_unique<drc_gloo>(frame, listener);
    group->device = std::dynamic_pointer_cast<tcp::Device>(tcp::CreateDevice(attr));
    if (!group->device) {
      throw std::runtime_error("Gloo's device is not one for TCP");
    }
    Turning turning(group->crank);
    group->device->registerDescriptor(group->crank.fd(), EPOLLIN, &group->crank);
    group->crank.wait();
    group->mesh = std::make_shared<Mesh>(group->device, rank, size, patience, group->listener, group->crank);
    group->complete = true;
  });
  if (failed != 0 && group) {
    drc_gloo_close(group.release());
  }
  return group.release();
}

size_t drc_gloo_address(drc_gloo* group, size_t rank, uint8_t* bytes, size_t room) {
  size_t length = 0;
  char why[1];
  guarded(why, sizeof why, [&] {
    const std::vector<char> address = group->mesh->to(rank).address().bytes();
    length = std::min(address.size(), room);
    memcpy(bytes, address.data(), length);
  });
  return length;
}

int drc_gloo_connect(drc_gloo* group, size_t rank, const uint8_t* address, size_t length, char* why, size_t room) {
  return guarded(why, room, [&] {
    Turning turning(group->crank);
    Connection& connection = group->mesh->to(rank);
    static_cast<gloo::transport::Pair&>(connection).connect(std::vector<char>(address, address + length));
    if (connection.ended()) {
      throw std::runtime_error("the connection was closed");
    }
    connection.open(group->mesh, group->frame);
  });
}

int drc_gloo_send_frame(drc_gloo* group, size_t rank, const uint8_t* bytes, size_t length, char* why, size_t room) {
  return guarded(why, room, [&] { group->send(rank, kFrames, bytes, length); });
}

int drc_gloo_send(drc_gloo* group, size_t rank, const uint8_t* bytes, size_t length, char* why, size_t room) {
  return guarded(why, room, [&] { group->send(rank, kBodies, bytes, length); });
}

int drc_gloo_receive(drc_gloo* group, size_t rank, uint8_t* bytes, size_t length, char* why, size_t room) {
  return guarded(why, room, [&] { group->mesh->to(rank).receive(bytes, length); });
}

void drc_gloo_hang_up(drc_gloo* group, size_t rank) {
  char why[1];
  guarded(why, sizeof why, [&] {
    group->mesh->to(rank).hangUp();
  });
}

void drc_gloo_close(drc_gloo* group) {
  char why[1];
  guarded(why, sizeof why, [&] {
    // Until Gloo's thread has ended: it looks for its end between two turns.
    group->crank.turn(true);
    if (group->complete) {
      group->mesh->each([](Connection& connection) { connection.hangUp(); });
      group->mesh->each([&](Connection& connection) {
        while (!connection.ended()) {
          group->crank.wait();
        }
      });
      group->complete = false;
      group->crank.wait();
      group->mesh->each([](Connection& connection) { connection.clear(); });
    }
  });
  group->mesh.reset();
  group->device.reset();
  delete group;
}
