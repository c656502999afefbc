"""The network, one module for each section of the paper."""

from scanet.model.network import SCANet, count_parameters
from scanet.model.spatial_attention import gumbel_difference

__all__ = ["SCANet", "count_parameters", "gumbel_difference"]
