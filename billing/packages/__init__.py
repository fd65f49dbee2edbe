"""Plans that are bought: grants, cycles, fees, subscriptions, refunds, transfers."""
