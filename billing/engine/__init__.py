"""Decision of one commit of one partition, and the same engine for simulation, quotes and past balances."""
