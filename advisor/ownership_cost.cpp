#include "advisor/ownership_cost.h"

#include <cmath>
#include <cstdio>

namespace sextant::advisor {

Result<OwnershipCost> ownership_cost(const OwnershipInputs& in) {
  struct Range {
    const char* name;
    double value;
    double low;
    double high;
  };
  const Range ranges[] = {{"num_gpus", in.num_gpus, 1, 1e6},
                          {"power_w_per_gpu", in.power_w_per_gpu, 0, 1e5},
                          {"host_power_w", in.host_power_w, 0, 1e9},
                          {"usd_per_kwh", in.usd_per_kwh, 0, 100},
                          {"pue", in.pue, 1, 10},
                          {"rack_usd_per_month", in.rack_usd_per_month, 0, 1e9},
                          {"staff_usd_per_month", in.staff_usd_per_month, 0, 1e9},
                          {"purchase_usd_per_gpu", in.purchase_usd_per_gpu, 0, 1e7},
                          {"server_usd", in.server_usd, 0, 1e12},
                          {"residual_usd", in.residual_usd, 0, 1e12},
                          {"amortization_months", in.amortization_months, 1, 600},
                          {"annual_discount_rate", in.annual_discount_rate, 0, 1},
                          {"rental_usd_per_gpu_hour", in.rental_usd_per_gpu_hour.value_or(0), 0, 1e5}};
  for (const Range& r : ranges) {
    if (r.value >= r.low && r.value <= r.high) continue;
    char text[120];
    std::snprintf(text, sizeof text, "%s is %g; it must be from %g to %g", r.name, r.value, r.low, r.high);
    return invalid_argument(text, r.name);
  }
  OwnershipCost out;
  const double kilowatts = (in.num_gpus * in.power_w_per_gpu + in.host_power_w) / 1000 * in.pue;
  out.power_usd_per_month = kilowatts * kHoursPerMonth * in.usd_per_kwh;
  out.operation_usd_per_month = out.power_usd_per_month + in.rack_usd_per_month + in.staff_usd_per_month;
  out.capital_usd = in.num_gpus * in.purchase_usd_per_gpu + in.server_usd;
  if (in.residual_usd > out.capital_usd)
    return invalid_argument("residual_usd is more than what was bought", "residual_usd");
  // Level payments of the value lost, and interest on it (annuity); without a rate, value lost / months.
  const double monthly = std::pow(1 + in.annual_discount_rate, 1.0 / 12) - 1;
  const double n = in.amortization_months;
  if (monthly > 0) {
    const double present = out.capital_usd - in.residual_usd * std::pow(1 + monthly, -n);
    out.capital_usd_per_month = present * monthly / (1 - std::pow(1 + monthly, -n));
  } else {
    out.capital_usd_per_month = (out.capital_usd - in.residual_usd) / n;
  }
  out.purchase_usd_per_month = out.capital_usd_per_month + out.operation_usd_per_month;
  if (in.rental_usd_per_gpu_hour) {
    out.rental_usd_per_month = *in.rental_usd_per_gpu_hour * in.num_gpus * kHoursPerMonth;
    const double saved = *out.rental_usd_per_month - out.operation_usd_per_month;
    if (saved > 0) out.break_even_months = out.capital_usd / saved;
    if (*out.rental_usd_per_month > 0)
      out.break_even_utilization = out.purchase_usd_per_month / *out.rental_usd_per_month;
  }
  return out;
}

}  // namespace sextant::advisor
