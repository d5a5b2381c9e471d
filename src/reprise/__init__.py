"""reprise: four machine-learning papers re-run, and their claims judged with numbers."""

__version__ = "0.1.0"
