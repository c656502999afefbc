"""scanet."""
