"""What is measured, and how: ratios within one run, with conditions. Started by ``tokenbill bench``."""
