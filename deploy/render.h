// From a plan to a bundle. Pure: the same plan and options give the same bytes.
#pragma once

#include "deploy/bundle.h"
#include "deploy/chart.h"
#include "deploy/target.h"

namespace sextant::deploy {

// All errors at once, each with the field of the plan or of the options as its param.
std::vector<Status> render(const nlohmann::ordered_json& plan, const Options& options, Bundle& bundle);

// The objects of kubernetes/base with the files that hold them, in the order of application.
std::vector<ObjectFile> object_files_of(const Target& target);

// "README.md" of the bundle: what to apply in which order, and how to go back.
std::string bundle_readme(const Target& target, const Bundle& bundle);

}  // namespace sextant::deploy
