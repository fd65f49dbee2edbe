"""The demonstration: real traffic through the real stack, a worker killed on the way, and an audit of the outcome.

The emitters know what they sent; the checks ask database and topics, and never the pipeline, whether it arrived.
"""
