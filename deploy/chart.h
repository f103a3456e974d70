// The same objects as a Helm chart and as kustomize overlays. Pure.
#pragma once

#include "deploy/bundle.h"
#include "deploy/kubernetes/objects.h"

namespace sextant::deploy {

// A group of objects: one file of kubernetes/base and one template of the chart.
struct ObjectFile {
  std::string name;  // "20-workload"
  Objects objects;
};

// values.yaml has every object whole, by its key; templates only place them. An object that a user sets to null is left out.
void add_chart(const Target& target, const std::vector<ObjectFile>& files, Bundle& bundle);
// kubernetes/base/kustomization.yaml, and overlays staging (one replica, fewer limits) and production.
void add_overlays(const Target& target, const std::vector<ObjectFile>& files, Bundle& bundle);

}  // namespace sextant::deploy
