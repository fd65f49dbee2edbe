"""The demonstration: traffic through the real stack, a worker killed on the way, and a check of the outcome.

The emitters count what they send. The checks compare these counts with the database and the topics, and never ask the
pipeline itself.
"""
