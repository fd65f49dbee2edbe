"""The engine that decides one commit of one partition; simulation, quotes and past balances use it too."""
