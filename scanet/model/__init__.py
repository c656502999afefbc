"""The network, one module for each section of the paper."""

from scanet.model.network import SCANet
from scanet.model.spatial_attention import gumbel_difference

__all__ = ["SCANet", "gumbel_difference"]
