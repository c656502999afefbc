"""The network, one module for each section of the paper."""

from scanet.model.network import SCANet
from scanet.model.spatial_attention import UnroundedConv2d, gumbel_difference

__all__ = ["SCANet", "UnroundedConv2d", "gumbel_difference"]
