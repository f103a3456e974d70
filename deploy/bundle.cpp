#include "deploy/bundle.h"

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "deploy/yaml.h"
#include "engine/base/check.h"

namespace sextant::deploy {

using nlohmann::ordered_json;

namespace {

constexpr const char* kMarker = ".sextant-bundle";  // the names that an earlier rendering wrote

void put_octal(std::array<char, 512>& header, size_t offset, size_t width, uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "%0*llo", static_cast<int>(width - 1), static_cast<unsigned long long>(value));
  std::copy_n(text, width - 1, header.begin() + static_cast<std::ptrdiff_t>(offset));
}

void put_entry(std::string& out, const std::string& name, const std::string& content, int mode) {
  std::array<char, 512> header{};
  // ustar: up to 100 bytes, and 155 of folders before them.
  const size_t cut = name.size() <= 100 ? std::string::npos : name.find('/', name.size() - 101);
  const std::string tail = cut == std::string::npos ? name : name.substr(cut + 1);
  const std::string head = cut == std::string::npos ? "" : name.substr(0, cut);
  CHECK(tail.size() <= 100 && head.size() <= 155) << name;
  std::copy(tail.begin(), tail.end(), header.begin());
  std::copy(head.begin(), head.end(), header.begin() + 345);
  put_octal(header, 100, 8, static_cast<uint64_t>(mode));
  put_octal(header, 108, 8, 0);
  put_octal(header, 116, 8, 0);
  put_octal(header, 124, 12, content.size());
  put_octal(header, 136, 12, 0);
  header[156] = '0';
  const std::string magic("ustar\00000", 8);
  std::copy(magic.begin(), magic.end(), header.begin() + 257);
  std::fill_n(header.begin() + 148, 8, ' ');
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  put_octal(header, 148, 7, sum);
  out.append(header.data(), header.size());
  out += content;
  out.append((512 - content.size() % 512) % 512, '\0');
}

}  // namespace

std::string BundleFile::content() const {
  if (!has_documents()) return text;
  if (name.ends_with(".json")) return documents[0].dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
  return to_yaml_stream(documents);
}

void Bundle::add(std::string name, std::vector<ordered_json> documents) {
  CHECK(!documents.empty()) << name;
  add_text(std::move(name), "");
  files_.back().documents = std::move(documents);
}

void Bundle::add_text(std::string name, std::string text, bool executable) {
  CHECK(!name.empty() && name[0] != '/' && name.find("..") == std::string::npos && find(name) == nullptr) << name;
  files_.push_back({std::move(name), {}, std::move(text), executable});
}

const BundleFile* Bundle::find(const std::string& name) const {
  for (const BundleFile& file : files_)
    if (file.name == name) return &file;
  return nullptr;
}

std::string tar_of(const Bundle& bundle, const std::string& folder) {
  std::string out;
  for (const BundleFile& file : bundle.files())
    put_entry(out, folder + "/" + file.name, file.content(), file.executable ? 0755 : 0644);
  out.append(1024, '\0');
  return out;
}

std::string single_file_of(const Bundle& bundle) {
  std::vector<ordered_json> all;
  for (const BundleFile& file : bundle.files())
    if (file.name.starts_with("kubernetes/base/") && file.name.ends_with(".yaml") &&
        !file.name.ends_with("/kustomization.yaml"))
      all.insert(all.end(), file.documents.begin(), file.documents.end());
  return to_yaml_stream(all);
}

Status write_folder(const Bundle& bundle, const std::string& folder, bool force) {
  namespace fs = std::filesystem;
  std::error_code error;
  const auto failed = [&](const std::string& name) {
    return invalid_argument(name + ": cannot be written" + (error ? ": " + error.message() : ""));
  };
  const fs::path root(folder);
  if (fs::exists(root, error) && !fs::is_directory(root, error)) return invalid_argument(folder + " is not a folder");
  const bool ours = fs::exists(root / kMarker, error);
  if (!force && !ours && fs::exists(root, error) && !fs::is_empty(root, error))
    return invalid_argument(folder + " holds files that are not of a bundle: name another folder, or say --force");
  if (fs::create_directories(root, error); error) return failed(folder);
  if (ours) {
    // What an earlier rendering wrote and this one does not would be applied with the rest.
    std::ifstream old(root / kMarker);
    for (std::string name; std::getline(old, name);) {
      const fs::path path = fs::path(name).lexically_normal();
      if (name.empty() || path.is_absolute() || *path.begin() == ".." || bundle.find(name) != nullptr) continue;
      fs::remove(root / path, error);
    }
  }
  std::string names;
  const auto write = [&](const std::string& name, const std::string& content, bool executable) {
    const fs::path path = root / name;
    if (fs::create_directories(path.parent_path(), error); error) return failed(path.string());
    const fs::path part = path.string() + ".part";
    std::ofstream file(part, std::ios::binary | std::ios::trunc);
    file << content;
    file.close();
    if (!file) return failed(path.string());
    if (executable)
      fs::permissions(part, fs::perms::owner_exec | fs::perms::group_exec | fs::perms::others_exec,
                      fs::perm_options::add, error);
    if (fs::rename(part, path, error); error) return failed(path.string());
    return ok_status();
  };
  for (const BundleFile& file : bundle.files()) names += file.name + "\n";
  // First, so that an interrupted rendering is known for ours.
  if (Status status = write(kMarker, names, false); !status.ok()) return status;
  for (const BundleFile& file : bundle.files())
    if (Status status = write(file.name, file.content(), file.executable); !status.ok()) return status;
  return ok_status();
}

}  // namespace sextant::deploy
