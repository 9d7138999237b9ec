"""`scripts/bench`: how fast this project is, beside others and beside what the machine can do at all."""
