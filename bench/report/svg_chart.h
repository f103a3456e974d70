// Charts as inline SVG, coloured by the page's CSS variables. Lines, dots and a legend; axes from 0 with round ticks. Pure.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace sextant::bench {

struct ChartSeries {
  std::string name;
  std::vector<std::pair<double, double>> points;  // by x; what is not finite breaks the line
  bool dots = false;                              // marks and no line
};

struct Chart {
  std::string title, x_label, y_label;
  std::vector<ChartSeries> series;
  bool log_x = false;  // base 10; points at x <= 0 are left out
  bool step = false;   // the value holds until the next point
  double y_limit = 0;  // a dashed line across, where above 0
  std::string y_limit_name;
};

// A <figure>; an empty string where no point can be drawn.
std::string chart_html(const Chart& chart);

std::string html_escaped(const std::string& text);

}  // namespace sextant::bench
