"""Properties are checked without a stop-watch: the machine may be busy."""

import hypothesis

hypothesis.settings.register_profile("calm", deadline=None)
hypothesis.settings.load_profile("calm")
