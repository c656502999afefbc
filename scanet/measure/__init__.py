"""What is measured on trained networks, one module for each of the notebooks that measure."""
