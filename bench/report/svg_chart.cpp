#include "bench/report/svg_chart.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "bench/report/text_report.h"

namespace sextant::bench {
namespace {

constexpr double kWidth = 560, kHeight = 300, kLeft = 76, kRight = 14, kTop = 12, kBottom = 44;
constexpr size_t kMostPoints = 800;

// 1, 2, 2.5 or 5 times a power of ten: about `wanted` steps to `top`.
double round_step(double top, int wanted) {
  const double rough = top / wanted;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 2.5, 5.0}) {
    if (factor * power >= rough * 0.999) return factor * power;
  }
  return 10 * power;
}

std::string coordinate(double value) {
  char text[24];
  std::snprintf(text, sizeof text, "%.1f", value);
  return text;
}

std::string tick_text(double value) {
  if (value == 0) return "0";
  if (std::fabs(value) >= 10000) return short_number(value / 1000) + "k";
  return short_number(value);
}

}  // namespace

std::string html_escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string chart_html(const Chart& chart) {
  double x_low = std::numeric_limits<double>::infinity(), x_high = -x_low, y_high = 0;
  const auto drawable = [&](const std::pair<double, double>& p) {
    return std::isfinite(p.first) && std::isfinite(p.second) && (!chart.log_x || p.first > 0);
  };
  for (const ChartSeries& series : chart.series) {
    for (const auto& p : series.points) {
      if (!drawable(p)) continue;
      x_low = std::min(x_low, p.first), x_high = std::max(x_high, p.first), y_high = std::max(y_high, p.second);
    }
  }
  if (!std::isfinite(x_low)) return "";
  if (chart.y_limit > 0 && chart.y_limit < 4 * y_high) y_high = std::max(y_high, chart.y_limit * 1.05);
  if (y_high <= 0) y_high = 1;
  const double y_step = round_step(y_high, 5);
  const double y_top = std::ceil(y_high / y_step - 1e-9) * y_step;
  double x_begin = chart.log_x ? std::floor(std::log10(x_low)) : 0;
  double x_end = chart.log_x ? std::ceil(std::log10(x_high)) : x_high;
  if (!chart.log_x && x_low < 0) x_begin = x_low;
  if (x_end <= x_begin) x_end = x_begin + 1;
  const auto x_at = [&](double x) {
    return kLeft + ((chart.log_x ? std::log10(x) : x) - x_begin) / (x_end - x_begin) * (kWidth - kLeft - kRight);
  };
  const auto y_at = [&](double y) { return kHeight - kBottom - y / y_top * (kHeight - kTop - kBottom); };

  std::string out = "<figure><figcaption>" + html_escaped(chart.title) + "</figcaption>\n<svg viewBox=\"0 0 " +
                    coordinate(kWidth) + " " + coordinate(kHeight) + "\" role=\"img\" aria-label=\"" +
                    html_escaped(chart.title) + "\">\n";
  for (double y = 0; y <= y_top + y_step / 2; y += y_step) {
    out += "<line class=\"grid\" x1=\"" + coordinate(kLeft) + "\" x2=\"" + coordinate(kWidth - kRight) + "\" y1=\"" +
           coordinate(y_at(y)) + "\" y2=\"" + coordinate(y_at(y)) +
           "\"/><text class=\"tick\" text-anchor=\"end\" x=\"" + coordinate(kLeft - 6) + "\" y=\"" +
           coordinate(y_at(y) + 4) + "\">" + tick_text(y) + "</text>\n";
  }
  const double x_step = chart.log_x ? 1 : round_step(x_end - x_begin, 6);
  for (double x = chart.log_x ? x_begin : std::ceil(x_begin / x_step) * x_step; x <= x_end + x_step * 1e-6;
       x += x_step) {
    const double value = chart.log_x ? std::pow(10, x) : x;
    out += "<text class=\"tick\" text-anchor=\"middle\" x=\"" + coordinate(x_at(value)) + "\" y=\"" +
           coordinate(kHeight - kBottom + 16) + "\">" + tick_text(value) + "</text>\n";
  }
  out += "<text class=\"label\" text-anchor=\"middle\" x=\"" + coordinate((kLeft + kWidth - kRight) / 2) + "\" y=\"" +
         coordinate(kHeight - 8) + "\">" + html_escaped(chart.x_label) +
         "</text>\n<text class=\"label\" text-anchor=\"middle\" " + "transform=\"translate(14," +
         coordinate((kHeight - kBottom + kTop) / 2) + ") rotate(-90)\">" + html_escaped(chart.y_label) + "</text>\n";
  if (chart.y_limit > 0 && chart.y_limit <= y_top) {
    out += "<line class=\"limit\" x1=\"" + coordinate(kLeft) + "\" x2=\"" + coordinate(kWidth - kRight) + "\" y1=\"" +
           coordinate(y_at(chart.y_limit)) + "\" y2=\"" + coordinate(y_at(chart.y_limit)) +
           "\"/><text class=\"tick\" x=\"" + coordinate(kLeft + 4) + "\" y=\"" + coordinate(y_at(chart.y_limit) - 4) +
           "\">" + html_escaped(chart.y_limit_name) + "</text>\n";
  }
  for (size_t i = 0; i < chart.series.size(); ++i) {
    const ChartSeries& series = chart.series[i];
    const std::string colour = "c" + std::to_string(i % 6);
    const size_t stride = std::max<size_t>(1, (series.points.size() + kMostPoints - 1) / kMostPoints);
    std::string path, dots;
    bool pen_down = false;
    double last_y = 0;
    for (size_t k = 0; k < series.points.size(); k += stride) {
      const auto& p = series.points[k];
      if (!drawable(p)) {
        pen_down = false;
        continue;
      }
      const std::string x = coordinate(x_at(p.first)), y = coordinate(y_at(p.second));
      if (pen_down && chart.step) path += "L" + x + " " + coordinate(last_y);
      path += (pen_down ? "L" : "M") + x + " " + y;
      pen_down = true;
      last_y = y_at(p.second);
      if (series.dots || (!chart.step && series.points.size() <= 40)) {
        dots += "<circle class=\"" + colour + "\" cx=\"" + x + "\" cy=\"" + y + "\" r=\"" +
                (series.dots && series.points.size() > 100 ? "1.6" : "3") + "\"><title>" + html_escaped(series.name) +
                ": " + short_number(p.second) + " at " + short_number(p.first) + "</title></circle>";
      }
    }
    if (!series.dots) out += "<path class=\"" + colour + "\" d=\"" + path + "\"/>\n";
    out += dots + "\n";
  }
  out += "</svg>\n";
  if (chart.series.size() > 1) {
    out += "<p class=\"legend\">";
    for (size_t i = 0; i < chart.series.size(); ++i) {
      out += "<span class=\"k" + std::to_string(i % 6) + "\">" + html_escaped(chart.series[i].name) + "</span> ";
    }
    out += "</p>\n";
  }
  return out + "</figure>\n";
}

}  // namespace sextant::bench
