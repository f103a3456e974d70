// What other files need to know of the autoscalers. Pure.
#pragma once

#include "deploy/kubernetes/objects.h"

namespace sextant::deploy {

struct ReplicaRange {
  int64_t least, most;  // of the workload that is scaled
};
ReplicaRange replica_range_of(const Target& target);

// The triggers of a ScaledObject: queue, and GPUs where there are some.
Object keda_triggers(const Target& target);

// Values of prometheus-community's chart prometheus-adapter: the custom metrics that the HPA asks for.
Object adapter_values(const Target& target);

}  // namespace sextant::deploy
