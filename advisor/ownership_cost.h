// What GPUs cost: rented by the hour, owned, or bought; and when buying pays. One definition of a month: 730 hours. Every
// input that the user did not give is 0 here and shown as such. Pure; any thread.
#pragma once

#include <optional>

#include "engine/base/result.h"

namespace sextant::advisor {

inline constexpr double kHoursPerMonth = 730;

struct OwnershipInputs {
  double num_gpus = 0;
  double power_w_per_gpu = 0;
  double host_power_w = 0;  // of the rest of the servers, all together
  double usd_per_kwh = 0;
  double pue = 1.3;  // all power of the site / power of the machines
  double rack_usd_per_month = 0;
  double staff_usd_per_month = 0;
  double purchase_usd_per_gpu = 0;
  double server_usd = 0;  // servers, network, installation
  double residual_usd = 0;
  double amortization_months = 36;
  double annual_discount_rate = 0;  // of the money bound: 0.08 is 8%
  std::optional<double> rental_usd_per_gpu_hour;
};

struct OwnershipCost {
  double power_usd_per_month = 0;
  double operation_usd_per_month = 0;  // power, rack, staff
  double capital_usd = 0;
  double capital_usd_per_month = 0;
  double purchase_usd_per_month = 0;  // capital and operation
  std::optional<double> rental_usd_per_month;
  // Months of rent saved that pay for the purchase; nothing when renting costs no more than operating.
  std::optional<double> break_even_months;
  // Share of hours in use above which buying is cheaper than renting by the hour; above 1: never.
  std::optional<double> break_even_utilization;

  // Buying pays within the horizon at that use.
  bool buy(double horizon_months, double utilization) const {
    return break_even_months && break_even_utilization && horizon_months > *break_even_months &&
           utilization >= *break_even_utilization;
  }
};

// Errors name the input out of its range.
Result<OwnershipCost> ownership_cost(const OwnershipInputs& inputs);

}  // namespace sextant::advisor
