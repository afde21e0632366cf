// Types of values, as bindings name them to kernels.
#pragma once

namespace core {

enum class Kind : int { kFloat, kDouble, kBFloat16, kHalf };

}  // namespace core
