"""Base classes and shared parts of methods, and templates for new ones."""
