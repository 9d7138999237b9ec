"""A support chat that looks up and cancels orders of the customer who is logged in, and of nobody else.

    CHAT_MODEL=path/of/a/model flask --app chatstream_flask.examples.orders run

    curl -c jar localhost:5000/signup --json '{"name": "lucy", "password": "correct horse"}'
    curl -N -b jar localhost:5000/chat_stream --json '{"user_input": "Where is my order 1001?"}'

The page at http://127.0.0.1:5000/ asks before an order is cancelled. The login is in password_login.py.
"""

import os
import secrets
from typing import Any

from flask import Flask
from flask_login import current_user
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, select, update

from chatstream_flask import ChatStream, ReplyContext, demo_model
from chatstream_flask.examples.password_login import add_login

key = Column("number", Integer, primary_key=True)
orders = Table("orders", MetaData(), key, Column("customer_id", Integer), Column("status", String))


def create_app(url: str = "sqlite:///orders.db", **options: Any) -> Flask:
    """Return the app; `options` are arguments of ChatStream in place of a model."""
    app = Flask(__name__, instance_path=os.path.abspath("instance"))
    app.config.update(SECRET_KEY=secrets.token_hex(), SESSION_COOKIE_SAMESITE="Lax")
    engine = create_engine(url)
    orders.metadata.create_all(engine)
    add_login(app, engine)
    model = os.environ.get("CHAT_MODEL", demo_model.PATH)
    chat_stream = ChatStream(**options) if options else ChatStream.from_pretrained(model)
    chat_stream.append_apis(app, {"all": True})

    @chat_stream.before_reply
    def only_customers(reply: ReplyContext) -> None:
        if not current_user.is_authenticated:
            reply.refuse("Please log in first.")

    def mine(number: int) -> Any:  # every statement has this condition, whatever the model asks for
        return (orders.c.number == number) & (orders.c.customer_id == int(current_user.get_id()))

    @chat_stream.tool
    def order_status(number: int) -> str:
        """Return the status of an order of the customer."""
        with engine.connect() as connection:
            status = connection.execute(select(orders.c.status).where(mine(number))).scalar()
        return status or "The customer has no order with this number."

    @chat_stream.tool(confirm=True)
    def cancel_order(number: int) -> str:
        """Cancel an order of the customer."""
        with engine.begin() as connection:
            found = connection.execute(update(orders).where(mine(number)).values(status="cancelled"))
        return "It is cancelled." if found.rowcount else "The customer has no order with this number."

    return app
