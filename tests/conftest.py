"""Hypothesis profiles: the same examples in every run; HYPOTHESIS_PROFILE=deep tries more."""

import os

from hypothesis import HealthCheck, settings

_COMMON = {
    "deadline": None,
    "derandomize": True,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
settings.register_profile("fast", max_examples=15, **_COMMON)
settings.register_profile("deep", max_examples=500, **_COMMON | {"derandomize": False})
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))
