// HTTP/2 frames: reading them off a buffer, and writing them.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace frames {

constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
enum Type : uint8_t { kData = 0, kHeaders = 1, kReset = 3, kSettings = 4, kPing = 6, kGoAway = 7, kWindowUpdate = 8, kContinuation = 9 };
enum Flag : uint8_t { kAck = 1, kEndStream = 1, kEndHeaders = 4, kPadded = 8 };

struct Frame {
  uint8_t type, flags;
  uint32_t stream;
  std::string_view payload;
};

// Take one whole frame off the front of `in`; false if there is none.
inline bool take(std::string_view& in, Frame& frame) {
  if (in.size() < 9) return false;
  const auto byte = [&](int i) { return static_cast<uint32_t>(static_cast<uint8_t>(in[i])); };
  const size_t length = byte(0) << 16 | byte(1) << 8 | byte(2);
  if (in.size() < 9 + length) return false;
  frame = {static_cast<uint8_t>(byte(3)), static_cast<uint8_t>(byte(4)),
           (byte(5) & 127) << 24 | byte(6) << 16 | byte(7) << 8 | byte(8), in.substr(9, length)};
  in.remove_prefix(9 + length);
  return true;
}

inline void number(std::string& out, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift);
}

inline void head(std::string& out, size_t length, uint8_t type, uint8_t flags, uint32_t stream) {
  out += static_cast<char>(length >> 16);
  out += static_cast<char>(length >> 8);
  out += static_cast<char>(length);
  out += static_cast<char>(type);
  out += static_cast<char>(flags);
  number(out, stream);
}

inline void write(std::string& out, uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload) {
  head(out, payload.size(), type, flags, stream);
  out.append(payload);
}

inline void window(std::string& out, uint32_t stream, uint32_t bytes) {
  head(out, 4, kWindowUpdate, 0, stream);
  number(out, bytes);
}

// A frame's payload without its padding.
inline std::string_view unpadded(const Frame& frame) {
  if (!(frame.flags & kPadded) || frame.payload.empty()) return frame.payload;
  const size_t padding = static_cast<uint8_t>(frame.payload[0]);
  return padding < frame.payload.size() ? frame.payload.substr(1, frame.payload.size() - 1 - padding) : std::string_view();
}

}  // namespace frames
