"""archsmith finds the architecture that a trained model should have had."""

__version__ = "0.1.0"
