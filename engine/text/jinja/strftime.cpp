// strftime as glibc has it, in the C locale and in UTC: the process's locale and time zone must not change a
// prompt.
#include <algorithm>
#include <array>

#include "engine/text/jinja/formatting.h"

namespace sextant::jinja {
namespace {

constexpr std::array<std::string_view, 7> kDays = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                                   "Thursday", "Friday", "Saturday"};
constexpr std::array<std::string_view, 12> kMonths = {"January",   "February", "March",    "April",
                                                      "May",       "June",     "July",     "August",
                                                      "September", "October",  "November", "December"};

bool is_leap(int64_t year) { return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0); }

struct Moment {
  int64_t unix_s = 0;
  int64_t year = 1970;
  int month = 0;     // 0..11
  int day = 1;       // 1..31
  int year_day = 0;  // 0..365
  int week_day = 4;  // Sunday is 0
  int hour = 0;
  int minute = 0;
  int second = 0;
};

Moment moment_of(int64_t unix_s) {
  constexpr int64_t kDaySeconds = 86400;
  Moment m;
  // Years 0001 to 9999, as Python's datetime; a clock beyond that is broken.
  m.unix_s = std::clamp<int64_t>(unix_s, -62135596800, 253402300799);
  int64_t days = m.unix_s / kDaySeconds;
  int64_t second = m.unix_s % kDaySeconds;
  if (second < 0) {
    second += kDaySeconds;
    --days;
  }
  m.hour = static_cast<int>(second / 3600);
  m.minute = static_cast<int>(second / 60 % 60);
  m.second = static_cast<int>(second % 60);
  m.week_day = static_cast<int>(((days + 4) % 7 + 7) % 7);
  // Days since 0000-03-01, so that the leap day ends a year.
  const int64_t shifted = days + 719468;
  const int64_t era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
  const int64_t day_of_era = shifted - era * 146097;
  const int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
  const int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const int64_t shifted_month = (5 * day_of_year + 2) / 153;
  m.day = static_cast<int>(day_of_year - (153 * shifted_month + 2) / 5) + 1;
  m.month = static_cast<int>(shifted_month < 10 ? shifted_month + 2 : shifted_month - 10);
  m.year = year_of_era + era * 400 + (m.month <= 1 ? 1 : 0);
  constexpr std::array<int, 12> kBefore = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
  m.year_day = kBefore[m.month] + m.day - 1 + (m.month > 1 && is_leap(m.year) ? 1 : 0);
  return m;
}

// ISO 8601: week 1 holds the year's first Thursday.
std::pair<int64_t, int> iso_week(const Moment& m) {
  const int monday_based = (m.week_day + 6) % 7;
  const int week = (m.year_day - monday_based + 10) / 7;
  const auto weeks_in = [](int64_t year) {
    const auto dec31 = [](int64_t y) { return (y + y / 4 - y / 100 + y / 400) % 7; };
    return dec31(year) == 4 || dec31(year - 1) == 3 ? 53 : 52;
  };
  if (week < 1) return {m.year - 1, weeks_in(m.year - 1)};
  if (week > weeks_in(m.year)) return {m.year + 1, 1};
  return {m.year, week};
}

// `flag`: '-' no padding, '_' spaces, '0' zeros, or 0 for the conversion's own.
std::string number(int64_t value, size_t width, char padding, char flag) {
  std::string digits = std::to_string(value);
  if (flag == '-') return digits;
  if (flag == '_') padding = ' ';
  if (flag == '0') padding = '0';
  if (digits.size() < width) digits.insert(0, width - digits.size(), padding);
  return digits;
}

int hour12(int hour) { return hour % 12 == 0 ? 12 : hour % 12; }

std::string convert(const Moment& m, char type, char flag) {
  const auto join = [&](std::initializer_list<char> types, char separator) {
    std::string out;
    for (const char t : types) {
      if (!out.empty()) out += separator;
      out += convert(m, t, 0);
    }
    return out;
  };
  switch (type) {
    case 'Y': return std::to_string(m.year);
    case 'C': return number(m.year / 100, 2, '0', flag);
    case 'y': return number(m.year % 100, 2, '0', flag);
    case 'G': return std::to_string(iso_week(m).first);
    case 'g': return number(iso_week(m).first % 100, 2, '0', flag);
    case 'V': return number(iso_week(m).second, 2, '0', flag);
    case 'm': return number(m.month + 1, 2, '0', flag);
    case 'd': return number(m.day, 2, '0', flag);
    case 'e': return number(m.day, 2, ' ', flag);
    case 'H': return number(m.hour, 2, '0', flag);
    case 'k': return number(m.hour, 2, ' ', flag);
    case 'I': return number(hour12(m.hour), 2, '0', flag);
    case 'l': return number(hour12(m.hour), 2, ' ', flag);
    case 'M': return number(m.minute, 2, '0', flag);
    case 'S': return number(m.second, 2, '0', flag);
    case 'f': return "000000";
    case 'j': return number(m.year_day + 1, 3, '0', flag);
    case 'u': return std::to_string(m.week_day == 0 ? 7 : m.week_day);
    case 'w': return std::to_string(m.week_day);
    case 'U': return number((m.year_day + 7 - m.week_day) / 7, 2, '0', flag);
    case 'W': return number((m.year_day + 7 - (m.week_day + 6) % 7) / 7, 2, '0', flag);
    case 's': return std::to_string(m.unix_s);
    case 'A': return std::string(kDays[m.week_day]);
    case 'a': return std::string(kDays[m.week_day].substr(0, 3));
    case 'B': return std::string(kMonths[m.month]);
    case 'b':
    case 'h': return std::string(kMonths[m.month].substr(0, 3));
    case 'p': return m.hour < 12 ? "AM" : "PM";
    case 'P': return m.hour < 12 ? "am" : "pm";
    case 'D':
    case 'x': return join({'m', 'd', 'y'}, '/');
    case 'F': return join({'Y', 'm', 'd'}, '-');
    case 'R': return join({'H', 'M'}, ':');
    case 'T':
    case 'X': return join({'H', 'M', 'S'}, ':');
    case 'r': return join({'I', 'M', 'S'}, ':') + " " + convert(m, 'p', 0);
    case 'c': return join({'a', 'b', 'e', 'T', 'Y'}, ' ');
    case 'z':
    case 'Z': return "";  // datetime.now() knows no zone
    case 'n': return "\n";
    case 't': return "\t";
    case '%': return "%";
    default: return std::string("%") + (flag == 0 ? "" : std::string(1, flag)) + type;
  }
}

}  // namespace

std::string format_time(Runtime& runtime, std::string_view format, int64_t unix_s) {
  const Moment moment = moment_of(unix_s);
  std::string out;
  for (size_t i = 0; i < format.size();) {
    const size_t percent = std::min(format.find('%', i), format.size());
    runtime.append(out, format.substr(i, percent - i));
    if (percent == format.size()) break;
    i = percent + 1;
    char flag = 0;
    while (i < format.size() && (format[i] == '-' || format[i] == '_' || format[i] == '0' || format[i] == '^')) {
      flag = format[i++];
    }
    if (i == format.size()) {
      runtime.append(out, format.substr(percent));
      break;
    }
    std::string piece = convert(moment, format[i++], flag == '^' ? '\0' : flag);
    if (flag == '^') {
      for (char& c : piece) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
    }
    runtime.append(out, piece);
  }
  return out;
}

}  // namespace sextant::jinja
