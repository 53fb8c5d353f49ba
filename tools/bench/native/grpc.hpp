// gRPC's ModelInfer over bare HTTP/2 frames: where the ceiling of any gRPC server on this machine is, and nothing to serve with.
// Every stream is taken for a ModelInfer, so headers are not decoded (the table is of size 0, there is no state to keep);
// the peer's flow control is not minded, for answers are small; bounds are those of the buffers.
#pragma once
#include <cstring>
#include <string>
#include <string_view>
#include <unordered_map>

#include "frames.hpp"
#include "model.hpp"

// Protocol buffers' wire format.
class Fields {
 public:
  explicit Fields(std::string_view message) : rest_(message) {}

  // The next field of length-delimited kind; other kinds are passed over. False at the end, or where the message is broken.
  bool next(uint32_t& number, std::string_view& value) {
    uint64_t tag, length;
    while (!rest_.empty()) {
      if (!varint(tag)) return false;
      if ((tag & 7) == 0) {
        if (!varint(length)) return false;
        continue;
      }
      if ((tag & 7) != 2 || !varint(length) || length > rest_.size()) return false;
      number = static_cast<uint32_t>(tag >> 3);
      value = rest_.substr(0, length);
      rest_.remove_prefix(length);
      return true;
    }
    return false;
  }

 private:
  bool varint(uint64_t& value) {
    value = 0;
    for (int shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const uint8_t byte = static_cast<uint8_t>(rest_.front());
      rest_.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 127) << shift;
      if (byte < 128) return true;
    }
    return false;
  }

  std::string_view rest_;
};

class Grpc {
 public:
  explicit Grpc(Model& model) : model_(model) {}

  static void greet(std::string& out) {
    std::string settings("\0\1\0\0\0\0\0\3\0\0\0\x80\0\4\0\x10\0\0", 18);  // no header table, 128 streams, windows of 1 MiB
    frames::write(out, frames::kSettings, 0, 0, settings);
    frames::window(out, 0, 1 << 30);
  }

  // Answer every whole request in `in`; false if the connection is to be closed.
  bool feed(std::string& in, std::string& out) {
    std::string_view rest = in;
    if (!greeted_) {
      if (rest.size() < frames::kPreface.size()) return true;
      if (rest.substr(0, frames::kPreface.size()) != frames::kPreface) return false;
      rest.remove_prefix(frames::kPreface.size());
      greeted_ = true;
    }
    frames::Frame frame;
    while (frames::take(rest, frame))
      if (!handle(frame, out)) return false;
    in.erase(0, in.size() - rest.size());
    return true;
  }

 private:
  static constexpr size_t kLargestBody = 1 << 20;
  static constexpr uint32_t kWindowStep = 1 << 28;

  bool handle(const frames::Frame& frame, std::string& out) {
    switch (frame.type) {
      case frames::kData: return data(frame, out);
      case frames::kSettings:
        if (!(frame.flags & frames::kAck)) frames::write(out, frames::kSettings, frames::kAck, 0, {});
        return true;
      case frames::kPing:
        if (!(frame.flags & frames::kAck)) frames::write(out, frames::kPing, frames::kAck, 0, frame.payload);
        return true;
      case frames::kReset: bodies_.erase(frame.stream); return true;
      case frames::kGoAway: return false;
      default: return true;
    }
  }

  bool data(const frames::Frame& frame, std::string& out) {
    received_ += frame.payload.size();
    if (received_ > kWindowStep) {
      frames::window(out, 0, received_);
      received_ = 0;
    }
    const std::string_view part = frames::unpadded(frame);
    const auto kept = bodies_.find(frame.stream);
    if (kept == bodies_.end() && (frame.flags & frames::kEndStream)) {
      answer(frame.stream, part, out);  // whole in one frame, as nearly all are
      return true;
    }
    std::string& body = kept == bodies_.end() ? bodies_[frame.stream] : kept->second;
    body.append(part);
    if (body.size() > kLargestBody) return false;
    if (frame.flags & frames::kEndStream) {
      answer(frame.stream, body, out);
      bodies_.erase(frame.stream);
    }
    return true;
  }

  void answer(uint32_t stream, std::string_view body, std::string& out) {
    static constexpr std::string_view kHeaders("\x88\x0f\x10\x10" "application/grpc", 20);
    static constexpr std::string_view kOk("\0\x0bgrpc-status\x01" "0", 15), kInvalid("\0\x0bgrpc-status\x01" "3", 15);
    frames::write(out, frames::kHeaders, frames::kEndHeaders, stream, kHeaders);
    const bool ran = decode(body) && model_.run();
    if (ran) {
      encode();
      frames::head(out, message_.size() + 5, frames::kData, 0, stream);
      out += '\0';
      frames::number(out, static_cast<uint32_t>(message_.size()));
      out.append(message_);
    }
    frames::write(out, frames::kHeaders, frames::kEndHeaders | frames::kEndStream, stream, ran ? kOk : kInvalid);
  }

  // ModelInferRequest: raw_input_contents is field 7; the one input needs no name.
  bool decode(std::string_view body) {
    model_.rows.clear();
    if (body.size() < 5 || body[0]) return false;
    Fields fields(body.substr(5));
    uint32_t number;
    std::string_view value;
    while (fields.next(number, value)) {
      if (number != 7) continue;
      if (value.size() % sizeof(float)) return false;
      model_.rows.resize(value.size() / sizeof(float));
      std::memcpy(model_.rows.data(), value.data(), value.size());
    }
    return true;
  }

  // ModelInferResponse: model_name 1, outputs 5 of {name 1, datatype 2, shape 3}, raw_output_contents 6.
  void encode() {
    std::string rows, tensor;
    varint(rows, model_.labels.size());
    message_.clear();
    field(message_, 1, "gb");
    field(tensor, 1, "label");
    field(tensor, 2, "INT64");
    field(tensor, 3, rows);
    field(message_, 5, tensor);
    tensor.clear();
    field(tensor, 1, "probabilities");
    field(tensor, 2, "FP32");
    field(tensor, 3, rows + '\2');
    field(message_, 5, tensor);
    field(message_, 6, {reinterpret_cast<const char*>(model_.labels.data()), model_.labels.size() * sizeof(int64_t)});
    field(message_, 6, {reinterpret_cast<const char*>(model_.probabilities.data()), model_.probabilities.size() * sizeof(float)});
  }

  static void field(std::string& out, uint32_t number, std::string_view value) {
    varint(out, number << 3 | 2);
    varint(out, value.size());
    out.append(value);
  }

  static void varint(std::string& out, uint64_t value) {
    for (; value > 127; value >>= 7) out += static_cast<char>((value & 127) | 128);
    out += static_cast<char>(value);
  }

  Model& model_;
  std::string message_;
  std::unordered_map<uint32_t, std::string> bodies_;
  uint32_t received_ = 0;
  bool greeted_ = false;
};
