// A bundle: what is rendered from a plan, as files in the order in which a reader should meet them. A file is a list of
// structures, which are serialised here and nowhere else, or plain text. Pure but for the writing at the end; any thread.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/base/result.h"

namespace sextant::deploy {

struct BundleFile {
  std::string name;  // relative, '/' between folders: "kubernetes/base/workload.yaml"
  std::vector<nlohmann::ordered_json> documents;
  std::string text;  // when there are no documents
  bool executable = false;

  bool has_documents() const { return !documents.empty(); }
  // As its name says: ".json" one document as JSON, otherwise documents as a YAML stream; or the text.
  std::string content() const;
};

class Bundle {
 public:
  // Names must be new, relative and without "..": CHECKed, because no name comes from input.
  void add(std::string name, std::vector<nlohmann::ordered_json> documents);
  void add_text(std::string name, std::string text, bool executable = false);

  const std::vector<BundleFile>& files() const { return files_; }
  const BundleFile* find(const std::string& name) const;
  // What the user should know: assumptions and things that are theirs to do. Shown on stderr and in the README.
  std::vector<std::string> notes;

 private:
  std::vector<BundleFile> files_;
};

// A ustar archive, the same bytes for the same bundle: no times, no owners. All files below `folder`.
std::string tar_of(const Bundle& bundle, const std::string& folder);
// Every Kubernetes object of kubernetes/base in one stream, in the order of application.
std::string single_file_of(const Bundle& bundle);
// Each file complete or absent; what else is in the folder stays. Refuses a folder that holds files of another origin.
Status write_folder(const Bundle& bundle, const std::string& folder, bool force);

}  // namespace sextant::deploy
