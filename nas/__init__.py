"""Neural architecture search for tiny image classifiers under a hard parameter cap."""

__version__ = "0.1.0"
