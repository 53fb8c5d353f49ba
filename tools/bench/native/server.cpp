// The ceiling: one thread, epoll, the same ONNX Runtime library and session as everybody's, nothing else a server does.
// native MODEL.onnx HTTP_PORT GRPC_PORT: listens on loopback until it is ended.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "grpc.hpp"
#include "model.hpp"
#include "rest.hpp"

namespace {

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

int listen_on(int port) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) || listen(listener, 1024)) fail("native: listen");
  return listener;
}

struct Connection {
  std::string in, out;
  std::optional<Grpc> grpc;  // none for REST
  bool waits_to_write = false;
};

class Server {
 public:
  Server(Model& model, int http_port, int grpc_port)
      : model_(model), rest_(model), http_(listen_on(http_port)), grpc_(listen_on(grpc_port)), poll_(epoll_create1(EPOLL_CLOEXEC)) {
    watch(http_, EPOLLIN, EPOLL_CTL_ADD);
    watch(grpc_, EPOLLIN, EPOLL_CTL_ADD);
  }

  [[noreturn]] void run() {
    epoll_event events[256];
    while (true) {
      const int ready = epoll_wait(poll_, events, 256, -1);
      for (int i = 0; i < ready; ++i) handle(events[i].data.fd, events[i].events);
    }
  }

 private:
  void handle(int fd, uint32_t events) {
    if (fd == http_ || fd == grpc_) return accept_from(fd);
    Connection& connection = *connections_[fd];
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !read(fd, connection)) return end(fd);
    if (!connection.out.empty() && !write(fd, connection)) return end(fd);
  }

  void accept_from(int listener) {
    const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
    if (fd < 0) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    auto& connection = connections_[fd] = std::make_unique<Connection>();
    if (listener == grpc_) {
      connection->grpc.emplace(model_);
      Grpc::greet(connection->out);
    }
    watch(fd, EPOLLIN, EPOLL_CTL_ADD);
    if (!connection->out.empty() && !write(fd, *connection)) end(fd);
  }

  bool read(int fd, Connection& connection) {
    const ssize_t count = recv(fd, buffer_, sizeof buffer_, 0);
    if (count < 0) return errno == EAGAIN || errno == EINTR;
    if (count == 0) return false;
    connection.in.append(buffer_, static_cast<size_t>(count));
    return connection.grpc ? connection.grpc->feed(connection.in, connection.out) : rest_.feed(connection.in, connection.out);
  }

  bool write(int fd, Connection& connection) {
    const ssize_t count = send(fd, connection.out.data(), connection.out.size(), MSG_NOSIGNAL);
    if (count < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (count > 0) connection.out.erase(0, static_cast<size_t>(count));
    if (connection.waits_to_write == connection.out.empty()) {
      connection.waits_to_write = !connection.out.empty();
      watch(fd, connection.waits_to_write ? EPOLLIN | EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
    }
    return true;
  }

  void end(int fd) {
    connections_.erase(fd);
    close(fd);
  }

  void watch(int fd, uint32_t events, int how) {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    if (epoll_ctl(poll_, how, fd, &event)) fail("native: epoll");
  }

  Model& model_;
  Rest rest_;
  int http_, grpc_, poll_;
  std::unordered_map<int, std::unique_ptr<Connection>> connections_;
  char buffer_[1 << 18];
};

}  // namespace

int main(int count, char** arguments) {
  if (count != 4) {
    std::fprintf(stderr, "usage: native MODEL.onnx HTTP_PORT GRPC_PORT\n");
    return 2;
  }
  Model model(arguments[1]);
  std::make_unique<Server>(model, std::atoi(arguments[2]), std::atoi(arguments[3]))->run();
}
