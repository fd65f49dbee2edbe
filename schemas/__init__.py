"""Events and commands in their wire form: types, versions, money and quantity types. No I/O, no rules."""
