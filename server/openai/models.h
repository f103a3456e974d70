// /v1/models: what is served, as OpenAI lists it. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/result.h"
#include "server/openai/prepare.h"

namespace sextant::openai {

struct ModelListing {
  std::string root;  // what --model named
  int64_t created_unix_s = 0;
};

std::string render_models(const ServedModel& model, const ModelListing& listing);
// kNotFound for a name that is not served.
Result<std::string> render_model(std::string_view name, const ServedModel& model, const ModelListing& listing);

}  // namespace sextant::openai
