"""Decision of one step of one account: time-driven change, a usage event or a command."""
