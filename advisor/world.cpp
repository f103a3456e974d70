#include "advisor/world.h"

namespace sextant::advisor {

Result<std::unique_ptr<const World>> load_world(KnowledgeBase& kb, const WorldOptions& options) {
  auto world = std::make_unique<World>();
  world->version = options.version;
  world->as_of = options.as_of;
  ASSIGN_OR_RETURN(world->snapshot, read_snapshot(kb, options.revision));
  ASSIGN_OR_RETURN(world->kb_revision, kb.revision_name(world->snapshot.revision));
  ASSIGN_OR_RETURN(const std::vector<KbDocument> use_cases, kb.list(KbKind::kUseCase, 0, "", world->snapshot.revision));
  for (const KbDocument& document : use_cases) world->use_cases[document.id] = document.body;
  ASSIGN_OR_RETURN(const std::vector<KbDocument> models, kb.list(KbKind::kModel, 0, "", world->snapshot.revision));
  for (const KbDocument& document : models) world->models[document.id] = document.body;
  world->health = check_health(world->snapshot, options.as_of);
  // What physics forbids trains nothing.
  std::vector<ServingPoint> rows;
  for (size_t i = 0; i < world->snapshot.points.size(); ++i)
    if (world->health.quarantined.count(world->snapshot.point_ids[i]) == 0) rows.push_back(world->snapshot.points[i]);
  TrainedCache cache(options.cache_directory.value_or(default_advisor_cache()), options.version);
  ASSIGN_OR_RETURN(world->trained, Predictor::train(rows, world->snapshot.facts, world->snapshot.gpus, &cache));
  world->trained_from_cache = cache.hit();
  return std::unique_ptr<const World>(std::move(world));
}

}  // namespace sextant::advisor
