"""The smallest app: one conversation for each visitor.

    flask --app chatstream_flask.examples.simple run

    curl -N -b jar -c jar localhost:5000/chat_stream --json '{"user_input": "Hello!"}'

`flask --app chatstream_flask.examples.simple chatstream serve` serves it under waitress, on port 3000.
"""

import os

from flask import Flask, Response, request

from chatstream_flask import ChatStream, demo_model

app = Flask(__name__, instance_path=os.path.abspath("instance"))  # conversations are kept below it
app.config["CHATSTREAM_COOKIE_SECURE"] = False  # only for plain http on your own machine
chat_stream = ChatStream.from_pretrained(demo_model.PATH, app=app)


@app.post("/chat_stream")
def chat() -> Response:
    return chat_stream.handle_chat_stream_request(request)
