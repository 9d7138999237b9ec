"""Servers: an app to serve, waitress and gunicorn sized for its chats, and an orderly end."""
