// As much of JSON as V1 and V2 requests need: the numbers under one name, everything else checked for its form and passed over.
#pragma once
#include <charconv>
#include <cstring>
#include <string_view>
#include <vector>

class JsonReader {
 public:
  explicit JsonReader(std::string_view text) : at_(text.data()), end_(text.data() + text.size()) {}

  // Append the numbers under the first member called `name`, at any depth; false if the text is broken or has none.
  bool numbers(std::string_view name, std::vector<float>& into) {
    name_ = name;
    into_ = &into;
    return value(0) && (space(), at_ == end_) && found_;
  }

 private:
  static constexpr int kDeepest = 32;

  bool value(int depth) {
    space();
    if (at_ == end_ || depth > kDeepest) return false;
    switch (*at_) {
      case '{': return object(depth);
      case '[': return array(depth);
      case '"': { std::string_view ignored; return string(ignored); }
      case 't': return word("true");
      case 'f': return word("false");
      case 'n': return word("null");
      default: { float ignored; return number(ignored); }
    }
  }

  bool object(int depth) {
    ++at_;
    if (take('}')) return true;
    do {
      std::string_view key;
      space();
      if (!string(key) || !take(':')) return false;
      if (!found_ && key == name_) {
        space();
        if (!numeric(depth + 1)) return false;
        found_ = true;
      } else if (!value(depth + 1)) {
        return false;
      }
    } while (take(','));
    return take('}');
  }

  bool array(int depth) {
    ++at_;
    if (take(']')) return true;
    do {
      if (!value(depth + 1)) return false;
    } while (take(','));
    return take(']');
  }

  // An array of numbers, or of such arrays.
  bool numeric(int depth) {
    if (depth > kDeepest || at_ == end_ || *at_ != '[') return false;
    ++at_;
    if (take(']')) return true;
    do {
      space();
      if (at_ != end_ && *at_ == '[') {
        if (!numeric(depth + 1)) return false;
      } else {
        float found;
        if (!number(found)) return false;
        into_->push_back(found);
      }
    } while (take(','));
    return take(']');
  }

  bool number(float& into) {
    const auto [stop, error] = std::from_chars(at_, end_, into);
    if (error != std::errc() || !(at_ < end_ && (*at_ == '-' || (*at_ >= '0' && *at_ <= '9')))) return false;
    at_ = stop;
    return true;
  }

  bool string(std::string_view& into) {
    if (at_ == end_ || *at_ != '"') return false;
    const char* start = ++at_;
    for (; at_ < end_; ++at_) {
      if (*at_ == '\\') {
        ++at_;
      } else if (*at_ == '"') {
        into = {start, static_cast<size_t>(at_ - start)};
        ++at_;
        return true;
      }
    }
    return false;
  }

  bool word(std::string_view expected) {
    if (static_cast<size_t>(end_ - at_) < expected.size() || std::memcmp(at_, expected.data(), expected.size())) return false;
    at_ += expected.size();
    return true;
  }

  bool take(char expected) {
    space();
    if (at_ == end_ || *at_ != expected) return false;
    ++at_;
    return true;
  }

  void space() {
    while (at_ < end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
  }

  const char *at_, *end_;
  std::string_view name_;
  std::vector<float>* into_ = nullptr;
  bool found_ = false;
};
