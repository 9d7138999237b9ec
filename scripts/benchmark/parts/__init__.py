"""The parts of a run: each file measures one thing (`measure`) and shows it (`shown`)."""
