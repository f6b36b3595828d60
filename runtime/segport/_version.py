"""The version, in the one place that pyproject.toml, the commands and the contract read."""

__version__ = "0.1.0"
