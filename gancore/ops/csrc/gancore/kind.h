// Types of values, as bindings name them to kernels. Includes nothing of torch.
#pragma once

namespace gancore {

enum class Kind : int { kFloat, kDouble, kBFloat16, kHalf };

}  // namespace gancore
