"""How long a server that is not heard of counts as alive."""

NODE_TTL_SEC = 5.0
