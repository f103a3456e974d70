#include "engine/format/hub.h"

#include <openssl/sha.h>
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "engine/format/json_file.h"
#include "engine/format/printable.h"
#include "engine/format/safetensors.h"

namespace sextant {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr size_t kMaxListingBytes = size_t{32} << 20;
constexpr size_t kMaxFiles = 20000;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  std::string text = value ? value : "";
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
  return text;
}

bool is_id_part(std::string_view part) {
  return !part.empty() && part.size() <= 96 && std::isalnum(static_cast<unsigned char>(part[0])) &&
         part.find("..") == std::string_view::npos && part.find("--") == std::string_view::npos &&
         std::all_of(part.begin(), part.end(),
                     [](unsigned char c) { return c < 0x80 && (std::isalnum(c) || c == '-' || c == '_' || c == '.'); });
}

bool is_revision(std::string_view revision) {
  return !revision.empty() && revision.size() <= 128 && revision.find("..") == std::string_view::npos &&
         revision.front() != '/' && revision.back() != '/' &&
         std::all_of(revision.begin(), revision.end(), [](unsigned char c) {
           return c < 0x80 && (std::isalnum(c) || c == '-' || c == '_' || c == '.' || c == '/');
         });
}

bool is_sha256(const std::string& text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(),
                                          [](unsigned char c) { return std::isdigit(c) || (c >= 'a' && c <= 'f'); });
}

Status make_directories(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) {
    return Status(StatusCode::kInvalidArgument, path.string() + ": cannot create the directory: " + error.message() +
                                                    "; SEXTANT_CACHE names another place");
  }
  return ok_status();
}

struct Listing {
  std::string commit;
  std::vector<HubFile> files;
};

Result<Listing> parse_listing(const std::string& text, const std::string& url) {
  JsonLimits limits;
  limits.max_bytes = kMaxListingBytes;
  ASSIGN_OR_RETURN(const Json json, parse_json(text, shown_url(url), limits));
  const auto bad = [&](const std::string& what) { return data_loss(shown_url(url) + ": " + what); };
  if (!json.is_object()) return bad("the answer is no JSON object; is this a Hugging Face Hub?");
  Listing listing;
  const auto commit = json.find("sha");
  if (commit == json.end() || !commit->is_string() || !is_revision(commit->get_ref<const std::string&>()) ||
      commit->get_ref<const std::string&>().find('/') != std::string::npos) {
    return bad("sha, the commit, is missing or malformed");
  }
  listing.commit = commit->get<std::string>();
  const auto siblings = json.find("siblings");
  if (siblings == json.end() || !siblings->is_array() || siblings->size() > kMaxFiles) {
    return bad("siblings, the list of files, is missing, malformed or too long");
  }
  for (const Json& entry : *siblings) {
    const auto name = entry.is_object() ? entry.find("rfilename") : entry.end();
    if (!entry.is_object() || name == entry.end() || !name->is_string())
      return bad("a file in siblings has no rfilename");
    HubFile file;
    file.name = name->get<std::string>();
    if (const auto size = entry.find("size"); size != entry.end() && size->is_number_unsigned()) {
      file.num_bytes = size->get<uint64_t>();
    }
    if (const auto lfs = entry.find("lfs"); lfs != entry.end() && lfs->is_object()) {
      const auto sha256 = lfs->find("sha256");
      if (sha256 != lfs->end() && sha256->is_string() && is_sha256(sha256->get_ref<const std::string&>())) {
        file.sha256 = sha256->get<std::string>();
      }
      if (const auto size = lfs->find("size"); size != lfs->end() && size->is_number_unsigned()) {
        file.num_bytes = size->get<uint64_t>();
      }
    }
    listing.files.push_back(std::move(file));
  }
  return listing;
}

// A file of this name and size was verified before it got its name.
bool is_complete(const fs::path& path, const std::optional<uint64_t>& num_bytes) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return false;
  return !num_bytes || fs::file_size(path, error) == *num_bytes;
}

Result<FileLock> lock_directory(const fs::path& directory, const PullOptions& options) {
  RETURN_IF_ERROR(make_directories(directory));
  return FileLock::acquire((directory / ".lock").string(), options.transfer.cancelled, [&] {
    if (options.message) options.message("waiting for another pull of the same model to end");
  });
}

std::string url_path_of(const std::string& name) {
  std::string path;
  size_t begin = 0;
  while (begin <= name.size()) {
    const size_t end = std::min(name.find('/', begin), name.size());
    path += "/" + url_escape(std::string_view(name).substr(begin, end - begin));
    begin = end + 1;
  }
  return path;
}

Result<PullResult> pull_repository(const HubId& id, const PullOptions& options, const TransferOptions& transfer) {
  const std::string listing_url =
      options.endpoint + "/api/models/" + id.repository() + "/revision/" + url_escape(id.revision) + "?blobs=true";
  ASSIGN_OR_RETURN(const std::string text, download_text(listing_url, kMaxListingBytes, id.repository(), transfer));
  ASSIGN_OR_RETURN(const Listing listing, parse_listing(text, listing_url));
  ASSIGN_OR_RETURN(const std::vector<HubFile> files,
                   select_model_files(listing.files, options.include, id.repository()));

  const fs::path directory = fs::path(options.cache_directory) / "hub" / (id.owner + "--" + id.name) / listing.commit;
  ASSIGN_OR_RETURN(const FileLock lock, lock_directory(directory, options));
  PullResult result;
  result.revision = listing.commit;
  std::optional<uint64_t> total = 0;
  for (const HubFile& file : files) {
    if (!file.num_bytes || (total && *file.num_bytes > UINT64_MAX - *total)) total.reset();
    if (total) *total += *file.num_bytes;
  }
  for (const HubFile& file : files) {
    const fs::path path = directory / file.name;
    RETURN_IF_ERROR(make_directories(path.parent_path()));
    result.files.push_back(file.name);
    const auto report = [&](uint64_t bytes_done) {
      if (options.progress) options.progress({file.name, result.num_bytes + bytes_done, total});
    };
    if (is_complete(path, file.num_bytes)) {
      std::error_code error;
      result.num_bytes += fs::file_size(path, error);
      report(0);
      continue;
    }
    DownloadRequest request;
    // By commit: what the list said is what is fetched, though the branch moves on meanwhile.
    request.url = options.endpoint + "/" + id.repository() + "/resolve/" + listing.commit + url_path_of(file.name);
    request.path = path.string();
    request.expected_bytes = file.num_bytes;
    request.expected_sha256 = file.sha256;
    request.subject = id.repository();
    request.progress = [&](uint64_t bytes_done, std::optional<uint64_t>) { report(bytes_done); };
    ASSIGN_OR_RETURN(const DownloadResult downloaded, download_file(request, transfer));
    result.num_bytes += downloaded.num_bytes;
    result.num_bytes_received += downloaded.num_bytes_received;
  }
  result.path = directory.string();
  if (files.size() == 1 && files[0].name.ends_with(".gguf")) result.path += "/" + files[0].name;
  return result;
}

Result<PullResult> pull_url(const std::string& url, const PullOptions& options, const TransferOptions& transfer) {
  const std::string name = url_file_name(url);
  if (!is_safe_relative_path(name) || name.find('/') != std::string::npos) {
    return invalid_argument(shown_url(url) + ": the URL does not end in the name of a file");
  }
  // One folder per URL, so that two files of one name do not meet.
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(url.data()), url.size(), digest);
  std::string folder;
  for (int i = 0; i < 8; ++i) {
    static constexpr char kHex[] = "0123456789abcdef";
    folder += {kHex[digest[i] >> 4], kHex[digest[i] & 15]};
  }
  const fs::path directory = fs::path(options.cache_directory) / "url" / folder;
  ASSIGN_OR_RETURN(const FileLock lock, lock_directory(directory, options));
  PullResult result;
  result.files = {name};
  result.path = (directory / name).string();
  if (is_complete(result.path, std::nullopt)) {
    std::error_code error;
    result.num_bytes = fs::file_size(result.path, error);
    if (options.progress) options.progress({name, result.num_bytes, result.num_bytes});
    return result;
  }
  DownloadRequest request;
  request.url = url;
  request.path = result.path;
  request.progress = [&](uint64_t bytes_done, std::optional<uint64_t> total) {
    if (options.progress) options.progress({name, bytes_done, total});
  };
  ASSIGN_OR_RETURN(const DownloadResult downloaded, download_file(request, transfer));
  result.num_bytes = downloaded.num_bytes;
  result.num_bytes_received = downloaded.num_bytes_received;
  return result;
}

}  // namespace

std::optional<HubId> parse_hub_id(std::string_view text) {
  HubId id;
  if (const size_t at = text.find('@'); at != std::string_view::npos) {
    id.revision = std::string(text.substr(at + 1));
    text = text.substr(0, at);
  }
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  id.owner = std::string(text.substr(0, slash));
  id.name = std::string(text.substr(slash + 1));
  if (!is_id_part(id.owner) || !is_id_part(id.name) || !is_revision(id.revision)) return std::nullopt;
  return id;
}

Result<PullOptions> pull_options_from_environment() {
  PullOptions options;
  if (const std::string endpoint = environment("HF_ENDPOINT"); !endpoint.empty()) options.endpoint = endpoint;
  options.token = environment("HF_TOKEN");
  if (const std::string cache = environment("SEXTANT_CACHE"); !cache.empty()) {
    options.cache_directory = cache;
  } else if (const std::string xdg = environment("XDG_CACHE_HOME"); !xdg.empty()) {
    options.cache_directory = xdg + "/sextant";
  } else if (const std::string home = environment("HOME"); !home.empty()) {
    options.cache_directory = home + "/.cache/sextant";
  } else {
    return invalid_argument("no place for the cache: set SEXTANT_CACHE, XDG_CACHE_HOME or HOME");
  }
  return options;
}

Result<PullResult> pull(const std::string& what, const PullOptions& given) {
  PullOptions options = given;
  while (options.endpoint.ends_with('/')) options.endpoint.pop_back();
  if (url_origin(options.endpoint).empty()) {
    return invalid_argument("HF_ENDPOINT " + printable(shown_url(options.endpoint)) + " is no http or https URL");
  }
  TransferOptions transfer = options.transfer;
  transfer.token = options.token;
  transfer.token_origin = options.endpoint;
  if (what.find("://") != std::string::npos) {
    if (url_origin(what).empty()) return invalid_argument(printable(shown_url(what)) + " is no http or https URL");
    return pull_url(what, options, transfer);
  }
  const std::optional<HubId> id = parse_hub_id(what);
  if (!id) {
    return invalid_argument(printable(what) +
                            " is neither a repository of the Hugging Face Hub (owner/name or "
                            "owner/name@revision) nor an http or https URL");
  }
  return pull_repository(*id, options, transfer);
}

}  // namespace sextant
