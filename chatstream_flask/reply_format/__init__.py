"""What the text of a reply means: reasoning, content and tool calls, as the model's family writes them."""
