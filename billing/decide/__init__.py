"""Decision of one step of one account: the passing of time, a usage event, a command."""
