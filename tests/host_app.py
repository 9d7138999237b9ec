"""A Flask app with many extensions and no chat, as teams run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, Response, redirect, render_template_string, request, session, url_for
from flask_compress import Compress
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user, logout_user
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect, FlaskForm
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import QueuePool
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response as WerkzeugResponse
from wtforms import StringField

POOL_TIMEOUT_SEC = 2.0  # whoever waits longer for the one connection fails

View = str | dict[str, Any] | list[Any] | WerkzeugResponse | tuple[str, int]


class Base(DeclarativeBase): ...


db = SQLAlchemy(model_class=Base)
csrf = CSRFProtect()
compress = Compress()
login_manager = LoginManager()
login_manager.login_view = "pages.login"
pages = Blueprint("pages", __name__)
api = Blueprint("api", __name__, url_prefix="/api")


class User(UserMixin, db.Model):  # type: ignore[name-defined]
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    num_visits: Mapped[int] = mapped_column(default=0)


class LoginForm(FlaskForm):
    name = StringField()


def create_app(folder: Path, add_chat: Callable[[Flask], None] | None = None, **config: Any) -> Flask:
    """Make the app; `add_chat` makes all changes that a chat needs."""
    app = Flask("host", instance_path=str(folder), root_path=str(Path(__file__).parent))
    app.config.from_mapping(
        SECRET_KEY="the host's",
        SESSION_COOKIE_NAME="host",
        SESSION_COOKIE_SAMESITE="Strict",
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{folder}/host.db",
        SQLALCHEMY_ENGINE_OPTIONS={
            "poolclass": QueuePool,
            "pool_size": 1,
            "max_overflow": 0,
            "pool_timeout": POOL_TIMEOUT_SEC,
        },
    )
    app.config.from_mapping(config)
    app.wsgi_app = ProxyFix(app.wsgi_app, x_host=1, x_prefix=1)  # type: ignore[method-assign]
    for extension in (db, csrf, compress, login_manager):
        extension.init_app(app)
    app.register_blueprint(pages)
    app.register_blueprint(api)
    app.before_request(note_visit)
    app.after_request(add_header)
    app.register_error_handler(Exception, apologize)
    if add_chat is not None:
        add_chat(app)
    with app.app_context():
        db.create_all()
        db.session.add(User(name="aki"))
        db.session.commit()
    return app


@login_manager.user_loader
def load_user(user_id: str) -> User | None:
    return db.session.get(User, int(user_id))


def note_visit() -> None:
    """Each request takes the connection before its view, and keeps it until its context ends."""
    if current_user.is_authenticated:
        current_user.num_visits += 1
        db.session.flush()
    db.session.execute(select(User.id))


def add_header(response: Response) -> Response:
    response.headers["X-Host"] = "still here"
    return response


def apologize(error: Exception) -> HTTPException | tuple[str, int]:
    return error if isinstance(error, HTTPException) else (f"we are sorry: {error}", 500)


@pages.get("/")
def index() -> View:
    return render_template_string("<h1>Shop</h1>{% for i in range(500) %}<p>tea {{ i }}</p>{% endfor %}")


@pages.route("/login", methods=["GET", "POST"])
def login() -> View:
    form = LoginForm()
    if form.validate_on_submit():
        login_user(db.session.scalars(select(User).where(User.name == form.name.data)).one())
        return redirect(url_for("pages.profile", _external=True))
    return render_template_string("<form method=post>{{ form.csrf_token }}{{ form.name }}</form>", form=form)


@pages.post("/logout")
def logout() -> View:
    logout_user()
    return redirect("/")


@pages.get("/profile")
@login_required
def profile() -> View:
    db.session.commit()
    return f"{current_user.name}, visit {current_user.num_visits}"


@pages.post("/buy/<item>")
def buy(item: str) -> View:
    session["cart"] = [*session.get("cart", []), item]
    return f"{len(session['cart'])} in the cart"


@pages.get("/download")
def download() -> View:
    def lines() -> Iterator[str]:
        for number in range(500):
            yield f"line {number}\n"

    return Response(lines(), content_type="text/csv")


@pages.get("/boom")
def boom() -> View:
    raise RuntimeError("boom")


@api.get("/users")
def users() -> View:
    return [user.name for user in db.session.scalars(select(User))]


@api.post("/echo")
def echo() -> View:
    return {"you": request.get_json(), "at": url_for("api.echo", _external=True)}
