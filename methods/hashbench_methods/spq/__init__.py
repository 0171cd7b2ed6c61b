"""SPQ: Self-supervised Product Quantization (ICCV 2021), with cross-quantized contrastive learning."""

from hashbench_methods.spq.method import (
    SPQ,
    assign_codewords,
    cross_quantized_contrastive_loss,
    soft_quantize,
)

__all__ = ["SPQ", "assign_codewords", "cross_quantized_contrastive_loss", "soft_quantize"]
