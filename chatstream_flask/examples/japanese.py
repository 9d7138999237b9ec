"""日本語の店舗サポート: よくある質問から答え、電話番号を伏せ、扱わない話題は断ります。

    CHAT_MODEL=モデルのフォルダ flask --app chatstream_flask.examples.japanese run

http://127.0.0.1:5000/ を開いて質問してください。CHAT_MODEL がなければ付属の小さなモデルが動きますが、
読んだ内容を使って答えるには小さすぎます。
"""  # noqa: D400 - 日本語の句点で終わる

import os
import re
import sqlite3
from typing import Any

from flask import Flask

from chatstream_flask import ChatStream, ReplyContext, demo_model

FAQ = [
    ("営業時間", "平日は午前十時から午後八時まで、土曜日と日曜日は午後六時まで営業しています。"),
    ("返品と交換", "お買い上げから十四日以内で未使用の商品は、領収書があれば返品や交換ができます。"),
    ("配送料", "五千円以上のお買い物は配送料が無料です。それ以外は全国一律五百円です。"),
]
PHONE = re.compile(r"0\d{1,4}[-ー]\d{1,4}[-ー]\d{3,4}")
BEST = "SELECT title, text FROM faq WHERE faq MATCH ? ORDER BY rank LIMIT 2"
PAGE = {"language": "ja", "title": "お店のサポート", "examples": ["営業時間を教えて", "配送料はいくら？"]}


def create_app(**options: Any) -> Flask:
    """アプリを返す。`options` はモデルの代わりに使う ChatStream の引数。"""  # noqa: D400
    app = Flask(__name__, instance_path=os.path.abspath("instance"))
    app.config.update(CHATSTREAM_COOKIE_SECURE=False, CHATSTREAM_LOCALE="ja")  # 自分の機械で http で試すため
    database = sqlite3.connect(":memory:", check_same_thread=False)
    database.execute("CREATE VIRTUAL TABLE faq USING fts5(title, text, tokenize='trigram')")  # 三文字ずつ
    database.executemany("INSERT INTO faq VALUES (?, ?)", FAQ)
    model = os.environ.get("CHAT_MODEL", demo_model.PATH)
    chat_stream = ChatStream(**options) if options else ChatStream.from_pretrained(model)
    chat_stream.append_apis(app, {"all": True, "web_ui_params": PAGE})

    @chat_stream.before_reply
    def look_up(reply: ReplyContext) -> None:
        question = re.sub(r"[\s\"]", "", reply.user_input)
        if "他店" in question:
            reply.refuse("他店についてはお答えできません。")
        parts = [f'"{question[i : i + 3]}"' for i in range(len(question) - 2)]
        for title, text in database.execute(BEST, [" OR ".join(parts)]).fetchall() if parts else ():
            reply.add_source(title, text)
        reply.add_context("上の説明だけをもとに、店員としてていねいに短く答えてください。")

    @chat_stream.on_text
    def mask(reply: ReplyContext, text: str) -> str:
        return PHONE.sub("（電話番号）", text)

    return app
