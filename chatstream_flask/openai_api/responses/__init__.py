"""POST /v1/responses: conversations that the server remembers, in OpenAI's format."""
