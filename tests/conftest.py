"""How properties are tested: on the same examples in every run, without a clock.

So a failure is one of what was changed, and not of chance or of a busy machine. `HYPOTHESIS_PROFILE=random` looks for
new examples; what it finds becomes an `@example`.
"""

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
