"""Purchased plans: grants, cycles, fees, subscriptions, proration, refunds, transfers."""
