"""Hand-made networks: those that come with nas, and how a front compares with them."""
