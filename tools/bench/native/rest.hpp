// HTTP/1.1 with keep-alive and pipelining: V2 infer in JSON and binary, V1 predict.
#pragma once
#include <strings.h>

#include <charconv>
#include <cstring>
#include <string>
#include <string_view>

#include "json.hpp"
#include "model.hpp"

class Rest {
 public:
  explicit Rest(Model& model) : model_(model) {}

  // Answer every whole request at the start of `in`; false if the connection is to be closed.
  bool feed(std::string& in, std::string& out) {
    size_t done = 0;
    while (true) {
      const std::string_view rest(in.data() + done, in.size() - done);
      const size_t head = rest.find("\r\n\r\n");
      if (head == std::string_view::npos) {
        if (rest.size() > kLargestHead) return false;
        break;
      }
      size_t length = 0, json_length = 0;
      if (!lengths(rest.substr(0, head + 2), length, json_length) || length > kLargestBody) return false;
      if (rest.size() < head + 4 + length) break;
      answer(rest.substr(0, rest.find(' ', rest.find(' ') + 1)), rest.substr(head + 4, length), json_length, out);
      done += head + 4 + length;
    }
    in.erase(0, done);
    return true;
  }

 private:
  static constexpr size_t kLargestHead = 1 << 16, kLargestBody = 1 << 24;

  static bool lengths(std::string_view head, size_t& length, size_t& json_length) {
    for (size_t line = head.find('\n') + 1; line < head.size(); line = head.find('\n', line) + 1) {
      const std::string_view text = head.substr(line, head.find('\r', line) - line);
      if (!header(text, "content-length:", length) || !header(text, "inference-header-content-length:", json_length)) return false;
    }
    return json_length <= length;
  }

  // False if the line is this header and its value no number.
  static bool header(std::string_view line, std::string_view name, size_t& value) {
    if (line.size() < name.size() || strncasecmp(line.data(), name.data(), name.size())) return true;
    line.remove_prefix(name.size());
    while (!line.empty() && line.front() == ' ') line.remove_prefix(1);
    const auto [stop, error] = std::from_chars(line.data(), line.data() + line.size(), value);
    return error == std::errc() && stop == line.data() + line.size();
  }

  void answer(std::string_view target, std::string_view body, size_t json_length, std::string& out) {
    body_.clear();
    model_.rows.clear();
    if (target == "POST /v1/models/gb:predict") {
      if (!JsonReader(body).numbers("instances", model_.rows) || !model_.run()) return refuse("400 Bad Request", out);
      body_ = "{\"predictions\":[";
      pairs();
      body_ += "]}";
      return write("200 OK", "application/json", 0, out);
    }
    if (target != "POST /v2/models/gb/infer") return refuse("404 Not Found", out);
    if (json_length) return binary(body.substr(json_length), out);
    if (!JsonReader(body).numbers("data", model_.rows) || !model_.run()) return refuse("400 Bad Request", out);
    const std::string rows = std::to_string(model_.labels.size());
    body_ = "{\"model_name\":\"gb\",\"outputs\":[{\"name\":\"label\",\"shape\":[" + rows + "],\"datatype\":\"INT64\",\"data\":[";
    list(model_.labels);
    body_ += "]},{\"name\":\"probabilities\",\"shape\":[" + rows + ",2],\"datatype\":\"FP32\",\"data\":[";
    list(model_.probabilities);
    body_ += "]}]}";
    write("200 OK", "application/json", 0, out);
  }

  void binary(std::string_view raw, std::string& out) {
    if (raw.size() % sizeof(float)) return refuse("400 Bad Request", out);
    model_.rows.resize(raw.size() / sizeof(float));
    std::memcpy(model_.rows.data(), raw.data(), raw.size());
    if (!model_.run()) return refuse("400 Bad Request", out);
    const std::string rows = std::to_string(model_.labels.size());
    const size_t labels = model_.labels.size() * sizeof(int64_t), probabilities = model_.probabilities.size() * sizeof(float);
    body_ = "{\"model_name\":\"gb\",\"outputs\":[{\"name\":\"label\",\"shape\":[" + rows + "],\"datatype\":\"INT64\",\"parameters\":{\"binary_data_size\":" +
            std::to_string(labels) + "}},{\"name\":\"probabilities\",\"shape\":[" + rows +
            ",2],\"datatype\":\"FP32\",\"parameters\":{\"binary_data_size\":" + std::to_string(probabilities) + "}}]}";
    const size_t json = body_.size();
    body_.append(reinterpret_cast<const char*>(model_.labels.data()), labels);
    body_.append(reinterpret_cast<const char*>(model_.probabilities.data()), probabilities);
    write("200 OK", "application/octet-stream", json, out);
  }

  template <typename T>
  void list(const std::vector<T>& values) {
    for (size_t i = 0; i < values.size(); ++i) {
      if (i) body_ += ',';
      append(values[i]);
    }
  }

  void pairs() {
    for (size_t i = 0; i < model_.probabilities.size(); i += Model::kClasses) {
      body_ += i ? ",[" : "[";
      append(model_.probabilities[i]);
      body_ += ',';
      append(model_.probabilities[i + 1]);
      body_ += ']';
    }
  }

  template <typename T>
  void append(T value) {
    char text[32];
    body_.append(text, std::to_chars(text, text + sizeof text, value).ptr - text);
  }

  void refuse(const char* status, std::string& out) {
    body_ = "{\"error\":\"refused\"}";
    write(status, "application/json", 0, out);
  }

  void write(const char* status, const char* type, size_t json_length, std::string& out) {
    out.append("HTTP/1.1 ").append(status).append("\r\ncontent-type: ").append(type);
    if (json_length) out.append("\r\ninference-header-content-length: ").append(std::to_string(json_length));
    out.append("\r\ncontent-length: ").append(std::to_string(body_.size())).append("\r\n\r\n").append(body_);
  }

  Model& model_;
  std::string body_;
};
