"""Hand-made networks: those included in nas, and how a front compares with them."""
