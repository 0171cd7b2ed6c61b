"""SPQ: Self-supervised Product Quantization (ICCV 2021), with cross-quantized contrastive learning."""

from hashbench.method.product import assign_codewords
from hashbench_methods.spq.method import SPQ, cross_quantized_contrastive_loss, soft_quantize

__all__ = ["SPQ", "assign_codewords", "cross_quantized_contrastive_loss", "soft_quantize"]
