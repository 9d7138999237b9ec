"""Tool calls in the text of replies, in the syntax of each model family."""
