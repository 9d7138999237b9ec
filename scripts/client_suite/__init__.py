"""`scripts/clients`: real clients of OpenAI's API against real servers."""
