"""From a dataset of real and fake videos to face crops, split without leaks."""
