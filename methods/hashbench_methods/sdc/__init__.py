"""SDC: similarities of codes calibrated to a Beta distribution (BMVC 2023)."""

from hashbench_methods.sdc.method import (
    SDC,
    calibration_loss,
    calibration_targets,
    cosine_quantization_loss,
)

__all__ = ["SDC", "calibration_loss", "calibration_targets", "cosine_quantization_loss"]
