"""Delivery of account events to webhooks: signed HTTP requests, retried for about three days."""
