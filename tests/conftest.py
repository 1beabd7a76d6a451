"""Hypothesis profiles, chosen by HYPOTHESIS_PROFILE.

`quick` for `make check`, `full` (the default) for `make test`: the same examples in every run.
`deep` tries many more, different ones each time, and prints how to repeat a failure.
"""

import os

from hypothesis import HealthCheck, settings

pytest_plugins = ("pytester",)

_COMMON = {
    "deadline": None,
    "derandomize": True,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
settings.register_profile("quick", max_examples=2, **_COMMON)
settings.register_profile("full", max_examples=15, **_COMMON)
settings.register_profile("deep", max_examples=500, **_COMMON | {"derandomize": False})
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "full"))
