"""CroVCA: codes that are aligned across views, with a large coding rate (2025)."""

from hashbench_methods.crovca.method import CroVCA, alignment_loss, coding_rate

__all__ = ["CroVCA", "alignment_loss", "coding_rate"]
