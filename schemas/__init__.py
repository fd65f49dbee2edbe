"""Facts and their wire form: event types, versions, money and quantity types. No I/O, no rules."""
