"""The contenders' own processes: each file is one way to generate, and imports only what that way needs."""
