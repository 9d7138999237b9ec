"""Users with passwords, for accounts.py; an app that has users keeps its own login.

What a real site needs besides: a limit on attempts, and help for those who forgot their password.
"""

import secrets
from http import HTTPStatus

from flask import Blueprint, Flask, Response, abort, jsonify, request
from flask_login import LoginManager, UserMixin, login_required, login_user, logout_user
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, insert, select
from sqlalchemy.exc import IntegrityError
from werkzeug.security import check_password_hash, generate_password_hash

users = Table(
    "accounts_user",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("password_hash", String(200), nullable=False),
)


class User(UserMixin):
    """A logged-in user."""

    def __init__(self, user_id: int) -> None:
        self.id = user_id


def add_login(app: Flask, engine: Engine) -> None:
    """Add POST /signup and /login, both with `{"name", "password"}`, and POST /logout."""
    app.extensions["password_login"] = engine
    users.metadata.create_all(engine)
    login_manager = LoginManager(app)
    blueprint = Blueprint("login", __name__)
    no_hash = generate_password_hash(secrets.token_hex())  # an unknown name takes as long as a known one

    @login_manager.user_loader
    def load(user_id: str) -> User | None:
        with engine.connect() as connection:
            row = connection.execute(select(users.c.id).where(users.c.id == int(user_id))).first()
        return User(row.id) if row else None

    @blueprint.post("/signup")
    def signup() -> Response:
        name, password = field("name"), field("password", min_len=8)
        values = {"name": name, "password_hash": generate_password_hash(password)}
        try:
            with engine.begin() as connection:
                row = connection.execute(insert(users).values(values).returning(users.c.id)).one()
        except IntegrityError:
            abort(HTTPStatus.CONFLICT, "this name is taken")
        login_user(User(row.id))
        return jsonify(name=name)

    @blueprint.post("/login")
    def login() -> Response:
        name, password = field("name"), field("password")
        with engine.connect() as connection:
            row = connection.execute(select(users).where(users.c.name == name)).first()
        if not check_password_hash(row.password_hash if row else no_hash, password) or row is None:
            abort(HTTPStatus.FORBIDDEN, "name or password is wrong")
        login_user(User(row.id))
        return jsonify(name=name)

    @blueprint.post("/logout")
    @login_required
    def logout() -> Response:
        logout_user()
        return jsonify(success=True)

    app.register_blueprint(blueprint)


def field(name: str, min_len: int = 1) -> str:
    """Return a field of the JSON body, which a form on another site cannot send."""
    body = request.get_json()
    value = body.get(name) if isinstance(body, dict) else None
    if not (isinstance(value, str) and min_len <= len(value) <= 200 and value.isprintable()):
        abort(HTTPStatus.BAD_REQUEST, f"{name} must be a text of {min_len} to 200 characters")
    return value
