// The model: one session of ONNX Runtime's C API, one thread, buffers that are kept from run to run.
#pragma once
#include <onnxruntime_c_api.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

class Model {
 public:
  static constexpr int64_t kFeatures = 10, kClasses = 2;

  explicit Model(const char* path) : api_(OrtGetApiBase()->GetApi(ORT_API_VERSION)) {
    if (!api_) fail("the library is older than its header");
    OrtSessionOptions* options = nullptr;
    check(api_->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "native", &env_));
    check(api_->CreateSessionOptions(&options));
    check(api_->SetIntraOpNumThreads(options, 1));
    check(api_->SetInterOpNumThreads(options, 1));
    check(api_->CreateSession(env_, path, options, &session_));
    api_->ReleaseSessionOptions(options);
    check(api_->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory_));
  }

  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  ~Model() {
    api_->ReleaseMemoryInfo(memory_);
    api_->ReleaseSession(session_);
    api_->ReleaseEnv(env_);
  }

  // Rows to run, [n * kFeatures]: filled by whoever decodes a request, cleared by nobody but them.
  std::vector<float> rows;
  // What the last run answered: [n] and [n * kClasses].
  std::vector<int64_t> labels;
  std::vector<float> probabilities;

  // Run the rows; false if there are none, or not whole ones.
  bool run() {
    if (rows.empty() || rows.size() % kFeatures) return false;
    const int64_t n = static_cast<int64_t>(rows.size()) / kFeatures;
    labels.resize(n);
    probabilities.resize(n * kClasses);
    const int64_t input_shape[] = {n, kFeatures}, label_shape[] = {n}, probability_shape[] = {n, kClasses};
    OrtValue *input = nullptr, *outputs[2] = {nullptr, nullptr};
    check(api_->CreateTensorWithDataAsOrtValue(memory_, rows.data(), rows.size() * sizeof(float), input_shape, 2,
                                               ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &input));
    check(api_->CreateTensorWithDataAsOrtValue(memory_, labels.data(), labels.size() * sizeof(int64_t), label_shape, 1,
                                               ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, &outputs[0]));
    check(api_->CreateTensorWithDataAsOrtValue(memory_, probabilities.data(), probabilities.size() * sizeof(float),
                                               probability_shape, 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &outputs[1]));
    static const char* const input_names[] = {"input"};
    static const char* const output_names[] = {"label", "probabilities"};
    check(api_->Run(session_, nullptr, input_names, &input, 1, output_names, 2, outputs));
    api_->ReleaseValue(input);
    api_->ReleaseValue(outputs[0]);
    api_->ReleaseValue(outputs[1]);
    return true;
  }

 private:
  [[noreturn]] static void fail(const char* why) {
    std::fprintf(stderr, "native: %s\n", why);
    std::exit(1);
  }

  void check(OrtStatus* status) {
    if (status) fail(api_->GetErrorMessage(status));
  }

  const OrtApi* api_;
  OrtEnv* env_ = nullptr;
  OrtSession* session_ = nullptr;
  OrtMemoryInfo* memory_ = nullptr;
};
