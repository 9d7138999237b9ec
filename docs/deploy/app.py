"""The app of docs/operations.md: page, APIs and health of one model, behind one front server.

Its settings (CHATSTREAM_* with FLASK_ before it) and the model come from the environment. With
CHATSTREAM_ENGINE_URLS other servers have the model, and MODEL is the folder or hub id of its tokenizer.
"""

import os

from werkzeug.middleware.proxy_fix import ProxyFix

from chatstream_flask import ChatStream, demo_model
from chatstream_flask.serving.app import create_app

chat_stream = ChatStream.from_pretrained(
    os.environ.get("MODEL", demo_model.PATH),
    engine=os.environ.get("CHATSTREAM_ENGINE_URLS"),
    num_of_concurrent_executions=int(os.environ.get("NUM_OF_CONCURRENT_EXECUTIONS", "2")),
    max_queue_size=int(os.environ.get("MAX_QUEUE_SIZE", "5")),
    too_many_request_as_http_error=True,
)
app = create_app(chat_stream, {"SESSION_COOKIE_NAME": "chat_session"})  # nginx.conf goes by it
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)  # of exactly one front server
