#include "advisor/embedded.h"

#include <utility>

// SEXTANT_ADVISOR_DATA is the folder; the build says which files this object depends on.
#define SEXTANT_EMBED(symbol, file)                                                                                   \
  __asm__(".section .rodata\n.global " #symbol "\n.balign 16\n" #symbol ":\n.incbin \"" SEXTANT_ADVISOR_DATA "/" file \
          "\"\n.global " #symbol "_end\n" #symbol "_end:\n.byte 0\n.previous\n");                                     \
  extern "C" const char symbol[];                                                                                     \
  extern "C" const char symbol##_end[]

SEXTANT_EMBED(sextant_data_measured, "measured_serving.csv");
SEXTANT_EMBED(sextant_data_models, "model_facts.csv");
SEXTANT_EMBED(sextant_data_gpus, "gpu_profiles.csv");
SEXTANT_EMBED(sextant_data_aliases, "gpu_aliases.csv");
SEXTANT_EMBED(sextant_data_prices, "cloud_prices.csv");
SEXTANT_EMBED(sextant_data_kernel, "kernel.json");
SEXTANT_EMBED(sextant_data_use_cases, "use_cases.json");

namespace sextant::advisor {

std::string_view embedded_file(std::string_view name) {
  const auto view = [](const char* begin, const char* end) {
    return std::string_view(begin, static_cast<size_t>(end - begin));
  };
  if (name == "measured_serving.csv") return view(sextant_data_measured, sextant_data_measured_end);
  if (name == "model_facts.csv") return view(sextant_data_models, sextant_data_models_end);
  if (name == "gpu_profiles.csv") return view(sextant_data_gpus, sextant_data_gpus_end);
  if (name == "gpu_aliases.csv") return view(sextant_data_aliases, sextant_data_aliases_end);
  if (name == "cloud_prices.csv") return view(sextant_data_prices, sextant_data_prices_end);
  if (name == "kernel.json") return view(sextant_data_kernel, sextant_data_kernel_end);
  if (name == "use_cases.json") return view(sextant_data_use_cases, sextant_data_use_cases_end);
  return {};
}

}  // namespace sextant::advisor
