// The whole engine on random weights of a model's shape (engine_run.h), for bench/gpu_check.sh: one JSON object per line as it goes;
// a case that the file holds is not measured again. People use `sextant bench engine`, which is the same code.
//   engine_bench --shape llama-8b --device cuda --out measure.jsonl [--only decode/]
// On the CPU and under the emulator it runs too ("tiny"): a program that tests itself, whose times say nothing about a GPU.
#include <fstream>
#include <iostream>

#include "bench/engine/engine_run.h"

namespace sextant::bench {
namespace {

int main_of(int argc, char** argv) {
  std::string shape = "llama-8b", device = "cuda", out, only;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    std::string* value = flag == "--shape"    ? &shape
                         : flag == "--device" ? &device
                         : flag == "--out"    ? &out
                         : flag == "--only"   ? &only
                                              : nullptr;
    if (value == nullptr || i + 1 == argc) {
      std::cerr << "usage: engine_bench [--shape llama-8b|tiny] [--device cuda|cpu|cuda-emulated] [--out FILE] [--only "
                   "PART]\n";
      return 2;
    }
    *value = argv[++i];
  }
  std::optional<EngineRunOptions> options = shape_options(shape);
  if (!options) {
    std::cerr << "engine_bench: no shape " << shape << "; there are llama-8b and tiny\n";
    return 2;
  }
  options->device = device;
  options->only = only;
  std::ifstream file(out);
  for (std::string line; std::getline(file, line);) {
    const auto record = nlohmann::json::parse(line, nullptr, false);
    if (record.is_object() && record.contains("engine_case")) {
      options->known.insert(record["engine_case"].get<std::string>());
    }
  }
  EngineRun run(*std::move(options), [&out](const nlohmann::json& result) {
    std::cerr << result.dump() << "\n";
    if (!out.empty()) std::ofstream(out, std::ios::app) << result.dump() << "\n";
  });
  if (const Status status = run.run(); !status.ok()) {
    std::cerr << "engine_bench: " << status.message() << "\n";
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace sextant::bench

int main(int argc, char** argv) { return sextant::bench::main_of(argc, argv); }
