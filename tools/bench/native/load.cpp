// Open-loop load over HTTP/1.1: requests leave at a fixed rate whatever the server does, and wait from the moment they should
// have left, so that a server that stalls is charged for everybody it kept waiting.
// load PORT REQUESTS CONNECTIONS RATE SECONDS: prints "RESULT requests duration_us p50_us p99_us errors".
// REQUESTS is a file of raw requests, each after its length in bytes and a newline; they are sent one after the other.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr int64_t kLongestWaitUs = 5'000'000;  // for answers that are still out at the end

int64_t now_us() {
  using namespace std::chrono;
  return duration_cast<microseconds>(steady_clock::now().time_since_epoch()).count();
}

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

std::vector<std::string> read_requests(const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<std::string> requests;
  for (std::string size; std::getline(file, size);) {
    requests.emplace_back(std::stoul(size), '\0');
    file.read(requests.back().data(), static_cast<std::streamsize>(requests.back().size()));
  }
  if (requests.empty()) fail("load: no requests");
  return requests;
}

int connect_to(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address)) fail("load: connect");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return fd;
}

// Bytes of the whole answer at the start of `in`, 0 if it is not there yet; `ok` tells whether it is one of success.
size_t answer_size(std::string_view in, bool& ok) {
  const size_t head = in.find("\r\n\r\n");
  if (head == std::string_view::npos) return 0;
  size_t length = 0;
  for (size_t line = in.find('\n') + 1; line < head; line = in.find('\n', line) + 1)
    if (!strncasecmp(in.data() + line, "content-length:", 15)) length = std::strtoul(in.data() + line + 15, nullptr, 10);
  ok = in.substr(0, 12) == "HTTP/1.1 200";
  return in.size() < head + 4 + length ? 0 : head + 4 + length;
}

struct Connection {
  int fd;
  int64_t due_us = 0;  // when the request that is out should have left
  std::string in;
};

class Load {
 public:
  Load(int port, std::vector<std::string> requests, int connections, double rate)
      : requests_(std::move(requests)), rate_(rate), poll_(epoll_create1(EPOLL_CLOEXEC)) {
    connections_.resize(static_cast<size_t>(connections));
    for (size_t i = 0; i < connections_.size(); ++i) {
      connections_[i].fd = connect_to(port);
      idle_.push_back(i);
      epoll_event event{};
      event.events = EPOLLIN;
      event.data.u64 = i;
      if (epoll_ctl(poll_, EPOLL_CTL_ADD, connections_[i].fd, &event)) fail("load: epoll");
    }
  }

  void run(double seconds) {
    const auto total = static_cast<int64_t>(rate_ * seconds);
    const int64_t start_us = now_us();
    const auto due_us = [&](int64_t number) { return start_us + static_cast<int64_t>(static_cast<double>(number) * 1e6 / rate_); };
    int64_t next = 0;
    epoll_event events[64];
    while (next < total || idle_.size() + lost_ < connections_.size()) {
      const int64_t at_us = now_us();
      if (at_us > due_us(total) + kLongestWaitUs || lost_ == connections_.size()) break;
      for (; next < total && due_us(next) <= at_us && !idle_.empty(); ++next) send_next(next, due_us(next));
      const int ready = epoll_wait(poll_, events, 64, 0);  // it has its CPU to itself, and sleeping would be late
      for (int i = 0; i < ready; ++i) receive(events[i].data.u64);
    }
    const auto out = static_cast<int64_t>(connections_.size() - idle_.size() - lost_);
    report(now_us() - start_us, out + (total - next));
  }

 private:
  void send_next(int64_t number, int64_t due_us) {
    Connection& connection = connections_[idle_.back()];
    idle_.pop_back();
    const std::string& request = requests_[static_cast<size_t>(number) % requests_.size()];
    connection.due_us = due_us;
    for (size_t sent = 0; sent < request.size();) {
      const ssize_t count = send(connection.fd, request.data() + sent, request.size() - sent, MSG_NOSIGNAL);
      if (count < 0) fail("load: send");
      sent += static_cast<size_t>(count);
    }
  }

  void receive(size_t number) {
    Connection& connection = connections_[number];
    const ssize_t count = recv(connection.fd, buffer_, sizeof buffer_, 0);
    if (count <= 0) {
      ++errors_, ++lost_;
      close(connection.fd);
      return;
    }
    connection.in.append(buffer_, static_cast<size_t>(count));
    bool ok = false;
    if (const size_t size = answer_size(connection.in, ok)) {
      connection.in.erase(0, size);
      errors_ += !ok;
      waits_us_.push_back(now_us() - connection.due_us);
      idle_.push_back(number);
    }
  }

  void report(int64_t duration_us, int64_t unanswered) {
    std::sort(waits_us_.begin(), waits_us_.end());
    const auto at = [&](double share) {
      return waits_us_.empty() ? int64_t{0} : waits_us_[static_cast<size_t>(share * static_cast<double>(waits_us_.size() - 1))];
    };
    std::printf("RESULT %zu %lld %lld %lld %lld\n", waits_us_.size(), static_cast<long long>(duration_us),
                static_cast<long long>(at(0.5)), static_cast<long long>(at(0.99)), static_cast<long long>(errors_ + unanswered));
  }

  std::vector<std::string> requests_;
  double rate_;
  int poll_;
  std::vector<Connection> connections_;
  std::vector<size_t> idle_;
  std::vector<int64_t> waits_us_;
  size_t lost_ = 0;
  int64_t errors_ = 0;
  char buffer_[1 << 16];
};

}  // namespace

int main(int count, char** arguments) {
  if (count != 6) {
    std::fprintf(stderr, "usage: load PORT REQUESTS CONNECTIONS RATE SECONDS\n");
    return 2;
  }
  Load(std::atoi(arguments[1]), read_requests(arguments[2]), std::atoi(arguments[3]), std::atof(arguments[4])).run(std::atof(arguments[5]));
}
