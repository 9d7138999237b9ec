"""`scripts/bench`: the speed of this project, compared with other servers and with the machine's limits."""
