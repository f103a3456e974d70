// The shipped knowledge base as a world to plan in, and specs completed from its templates.
#pragma once

#include <gtest/gtest.h>

#include "advisor/plan/plan.h"

namespace sextant::advisor {

// Trained on every third row: each test is a process of its own, and training on all takes seconds.
inline const World& shipped_world() {
  static const std::unique_ptr<const World> world = [] {
    auto out = std::make_unique<World>();
    KnowledgeBase kb = KnowledgeBase::open(":memory:").value();
    out->version = "test";
    out->as_of = "2026-02-01";
    out->kb_revision = "1-test";
    out->snapshot = read_snapshot(kb).value();
    const std::vector<KbDocument> use_cases = kb.list(KbKind::kUseCase).value();
    const std::vector<KbDocument> models = kb.list(KbKind::kModel).value();
    for (const KbDocument& document : use_cases) out->use_cases[document.id] = document.body;
    for (const KbDocument& document : models) out->models[document.id] = document.body;
    std::vector<ServingPoint> rows;
    for (size_t i = 0; i < out->snapshot.points.size(); i += 3) rows.push_back(out->snapshot.points[i]);
    out->trained = Predictor::train(rows, out->snapshot.facts, out->snapshot.gpus).value();
    return std::unique_ptr<const World>(std::move(out));
  }();
  return *world;
}

inline Spec spec_of(const nlohmann::json& given) {
  Spec spec;
  const auto errors = read_spec_object(given, shipped_world().use_cases, spec);
  EXPECT_TRUE(errors.empty()) << errors.front().message();
  return spec;
}

}  // namespace sextant::advisor
