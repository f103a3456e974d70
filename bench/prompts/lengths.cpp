#include "bench/prompts/lengths.h"

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace sextant::bench {
namespace {

constexpr int64_t kMostTokens = int64_t{1} << 24;

bool parse_number(std::string_view text, double* value) {
  const std::string copy(text);
  char* end = nullptr;
  *value = std::strtod(copy.c_str(), &end);
  return !copy.empty() && end == copy.c_str() + copy.size() && std::isfinite(*value);
}

std::string number_text(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

Result<std::vector<int64_t>> read_values(const std::string& path, const std::string& param) {
  std::ifstream file(path);
  if (!file) return invalid_argument(param + " names a file that cannot be read: " + path, param);
  std::ostringstream text;
  text << file.rdbuf();
  std::string content = text.str();
  for (char& c : content) c = c == ',' || c == '[' || c == ']' ? ' ' : c;
  std::istringstream words(content);
  std::vector<int64_t> values;
  for (std::string word; words >> word;) {
    double value = 0;
    if (!parse_number(word, &value) || value < 1 || value > static_cast<double>(kMostTokens) ||
        value != std::floor(value)) {
      return invalid_argument(
          param + ": " + path + " must hold whole numbers from 1; '" + word.substr(0, 40) + "' is none", param);
    }
    values.push_back(static_cast<int64_t>(value));
  }
  if (values.empty()) return invalid_argument(param + ": " + path + " holds no lengths", param);
  return values;
}

}  // namespace

int64_t LengthSpec::draw(Random& random) const {
  for (int attempt = 0; attempt < 1000; ++attempt) {
    double length = mean;
    switch (kind) {
      case Kind::kFixed: return static_cast<int64_t>(mean);
      case Kind::kUniform: return min + static_cast<int64_t>(random.below(static_cast<uint64_t>(max - min + 1)));
      case Kind::kNormal: length = mean + deviation * random.normal(); break;
      case Kind::kLognormal: {
        const double variance = std::log1p(deviation * deviation / (mean * mean));
        length = std::exp(std::log(mean) - variance / 2 + std::sqrt(variance) * random.normal());
        break;
      }
      case Kind::kEmpirical: length = static_cast<double>(values[random.below(values.size())]); break;
    }
    const auto rounded = static_cast<int64_t>(std::llround(std::min(length, 1e9)));
    if (rounded >= min && rounded <= max) return rounded;
  }
  return std::min(max, std::max(min, static_cast<int64_t>(std::llround(mean))));
}

std::string LengthSpec::text() const {
  const std::string pair = "(mean " + number_text(mean) + ", sd " + number_text(deviation) + ")";
  switch (kind) {
    case Kind::kFixed: return std::to_string(static_cast<int64_t>(mean));
    case Kind::kUniform: return "uniform(" + std::to_string(min) + ".." + std::to_string(max) + ")";
    case Kind::kNormal: return "normal" + pair;
    case Kind::kLognormal: return "lognormal" + pair;
    case Kind::kEmpirical: return "empirical(" + std::to_string(values.size()) + " values)";
  }
  return "";
}

Result<LengthSpec> parse_lengths(std::string_view text, const std::string& param) {
  const std::string form = param +
                           " must be a whole number from 1, uniform:LOW,HIGH, normal:MEAN,SD, lognormal:MEAN,SD or "
                           "empirical:FILE, with ,min=N,max=N behind; got '" +
                           std::string(text) + "'";
  LengthSpec spec;
  const size_t colon = text.find(':');
  const std::string_view kind = colon == std::string_view::npos ? "fixed" : text.substr(0, colon);
  std::string_view rest = colon == std::string_view::npos ? text : text.substr(colon + 1);
  std::vector<double> numbers;
  std::string path;
  for (bool first = true; first || !rest.empty(); first = false) {
    const size_t comma = rest.find(',');
    std::string_view part = rest.substr(0, comma);
    rest.remove_prefix(comma == std::string_view::npos ? rest.size() : comma + 1);
    double value = 0;
    if (kind == "empirical" && first) {
      path = part;
    } else if (part.starts_with("min=") || part.starts_with("max=")) {
      if (!parse_number(part.substr(4), &value) || value < 1 || value > static_cast<double>(kMostTokens)) {
        return invalid_argument(form, param);
      }
      (part.starts_with("min=") ? spec.min : spec.max) = static_cast<int64_t>(value);
    } else {
      if (!parse_number(part, &value)) return invalid_argument(form, param);
      numbers.push_back(value);
    }
  }
  const auto in_range = [](double x) { return x >= 1 && x <= static_cast<double>(kMostTokens); };
  if (kind == "fixed" && numbers.size() == 1 && in_range(numbers[0]) && numbers[0] == std::floor(numbers[0])) {
    spec.mean = numbers[0];
  } else if (kind == "uniform" && numbers.size() == 2 && in_range(numbers[0]) && in_range(numbers[1]) &&
             numbers[0] <= numbers[1]) {
    spec.kind = LengthSpec::Kind::kUniform;
    spec.min = static_cast<int64_t>(numbers[0]);
    spec.max = static_cast<int64_t>(numbers[1]);
    spec.mean = (numbers[0] + numbers[1]) / 2;
  } else if ((kind == "normal" || kind == "lognormal") && numbers.size() == 2 && in_range(numbers[0]) &&
             numbers[1] >= 0) {
    spec.kind = kind == "normal" ? LengthSpec::Kind::kNormal : LengthSpec::Kind::kLognormal;
    spec.mean = numbers[0];
    spec.deviation = numbers[1];
  } else if (kind == "empirical" && numbers.empty() && !path.empty()) {
    ASSIGN_OR_RETURN(spec.values, read_values(path, param));
    spec.kind = LengthSpec::Kind::kEmpirical;
    spec.mean = 0;
    for (const int64_t value : spec.values)
      spec.mean += static_cast<double>(value) / static_cast<double>(spec.values.size());
  } else {
    return invalid_argument(form, param);
  }
  if (spec.min > spec.max) return invalid_argument(param + ": min is above max", param);
  return spec;
}

}  // namespace sextant::bench
