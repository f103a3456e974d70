// What a tenant may be called. Pure.
#pragma once

#include <string_view>

namespace sextant {

bool is_tenant_name(std::string_view name);  // 1 to 64 letters, digits, '.', '_' or '-'

}  // namespace sextant
