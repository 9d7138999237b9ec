"""Japanese translations of the package's log messages, for `CHATSTREAM_LOCALE = "ja"`.

Error codes and the names of fields stay English.
"""

from __future__ import annotations

import logging
from weakref import WeakKeyDictionary

MESSAGES = {
    "%r could not be continued": "%r を続けられませんでした",
    "the %s hook %s failed": "%s のフック %s が失敗しました",
    "the engine at %s failed: %s": "%s のエンジンが失敗しました: %s",
    "the engine at %s is not used until it answers again": ("%s のエンジンは、再び応答するまで使いません"),
    "the engine at %s is used": "%s のエンジンを使います",
    "the engine at %s is not used: %s": "%s のエンジンは使いません: %s",
    "the engine at %s refused a request: %s": "%s のエンジンがリクエストを拒否しました: %s",
    "the stream of %r failed": "%r のストリームが失敗しました",
    "the list of engines stays as it was: %s": "エンジンの一覧は元のままです: %s",
    "a check of the engines failed; it goes on": "エンジンの確認に失敗しました。続行します",
    "%d generation threads did not end within %s s": "生成スレッド %d 本が %s 秒以内に終わりませんでした",
    "%d replies may finish, for up to %g s; a second signal ends them": (
        "応答 %d 件の終了を最大 %g 秒待ちます。もう一度シグナルを送るとすぐに終了します"
    ),
    "%r %s; its %d replies end%s": "%r: %s。実行中の応答 %d 件を終了します%s",
    "%r computed a test prompt; the failures before it are those of requests": (
        "%r は試験用のプロンプトを計算できました。その前の失敗はリクエスト側の問題です"
    ),
    "%r died": "%r が異常終了しました",
    "%s is slow on this processor, but float32 would take %.0f MiB more": (
        "このプロセッサでは %s の計算が遅く、float32 にするとメモリがさらに %.0f MiB 必要です"
    ),
    "the float32 weights of %s are rounded to bfloat16, which is faster here: --dtype float32 keeps them": (
        "%s の float32 の重みは、ここで速い bfloat16 に丸めて使います。--dtype float32 で元のままになります"
    ),
    "%s is slow on this processor: the model is computed in float32": (
        "このプロセッサでは %s の計算が遅いため、モデルを float32 で計算します"
    ),
    "the chat template of %s ends its turns with %s, which is no end token of the model's generation config: "
    "it ends replies from now on": (
        "%s のチャットテンプレートは発言を %s で終えますが、モデルの generation config の終了トークンでは"
        "ありません。"
        "今後はこれで応答を終えます"
    ),
    "%r runs again; it was replaced and ends": "%r が再び動きましたが、取り替え済みのため終了します",
    "KV cache: %s on %s, %.1f MiB free before": "KV キャッシュ: %s (%s)、確保前の空き %.1f MiB",
    "a grammar became too costly in mid-reply: %s": "応答の途中で文法の処理が重くなりすぎました: %s",
    "log messages of all apps in this process are now in %r, no longer in %r: set CHATSTREAM_LOCALE to the "
    "same value in all of them": (
        "このプロセスの全アプリのログの言語が %r になります (これまでは %r)。"
        "CHATSTREAM_LOCALE をすべてのアプリで同じ値にしてください"
    ),
    "a grammar could not be validated: %s": "文法を検証できませんでした: %s",
    "a lease could not be renewed: %s": "リースを更新できませんでした: %s",
    "a lease could not be released; it is tried again until the lease expires in %g s: %s": (
        "リースを解放できませんでした。%g 秒後に失効するまで再試行します: %s"
    ),
    "a reply does not follow its response template: %s": ("応答がその応答テンプレートに従っていません: %s"),
    "SECRET_KEY has fewer than %d characters; who guesses it can forge every session of the app": (
        "SECRET_KEY が %d 文字未満です。推測されると、アプリのどのセッションも偽造されます"
    ),
    "a wrong admin key from %s": "%s から誤った管理キーが送られました",
    "a request came over plain http, but the session cookie has the Secure attribute, and browsers "
    "send it over https only: behind an https proxy use werkzeug's ProxyFix; for plain http on your "
    "own machine set CHATSTREAM_COOKIE_SECURE (or your app's SESSION_COOKIE_SECURE) to False": (
        "暗号化されない http でリクエストを受けましたが、セッションのクッキーには Secure 属性があり、"
        "ブラウザーは https でしか送りません。https のプロキシの後ろでは werkzeug の ProxyFix を"
        "使ってください。自分のマシンでの http なら CHATSTREAM_COOKIE_SECURE (アプリ自身のセッションなら "
        "SESSION_COOKIE_SECURE) を False にしてください"
    ),
    "a request failed": "リクエストが失敗しました",
    "a request failed: %s": "リクエストが失敗しました: %s",
    "the sessions of %r were changed after init_app, which has chosen the store of conversations by them: "
    "call Session(app), or set session_interface, before ChatStream(app=app)": (
        "%r のセッションが init_app の後に変更されました。"
        "会話の保存先は init_app がセッションを見て決めたものです。"
        "ChatStream(app=app) より前に Session(app) を呼ぶか session_interface を設定してください"
    ),
    "SECRET_KEY of %r was set after init_app, which therefore gave the app server-side sessions of its own: "
    "set it before ChatStream(app=app)": (
        "%r の SECRET_KEY が init_app の後に設定されました。"
        "そのため init_app はサーバー側セッションを用意しました。"
        "ChatStream(app=app) より前に設定してください"
    ),
    "this waitress does not let replies finish when it is stopped: start the app with "
    "chatstream_flask.serving.waitress_server.serve() or `flask chatstream serve`, which do": (
        "この waitress は停止時に応答の終了を待ちません。待たせるには "
        "chatstream_flask.serving.waitress_server.serve() か `flask chatstream serve` で起動してください"
    ),
    "a test prompt failed too": "試験用のプロンプトも失敗しました",
    "a session could not be written: %s": "セッションを書き込めませんでした: %s",
    "a session or conversation file is damaged, was moved to %s and begins anew: %s": (
        "セッションまたは会話のファイルが壊れているため、%s に移し、新しく始めます: %s"
    ),
    "the end of a conversation file is damaged and was moved to %s: %s": (
        "会話のファイルの末尾が壊れているため、その部分を %s に移しました: %s"
    ),
    "%s cannot be locked (%s): let one process only use it": (
        "%s をロックできません (%s)。1 つのプロセスだけで使ってください"
    ),
    "chats begin when the previous worker has finished its replies": (
        "前のワーカーが応答を終えてからチャットを始めます"
    ),
    "%d expired or exceeding sessions and conversations were removed": (
        "期限切れまたは上限を超えたセッションと会話を %d 件削除しました"
    ),
    "CHATSTREAM_STORE_MAX_CONVERSATIONS or CHATSTREAM_STORE_MAX_BYTES was exceeded: the %d least "
    "recently used sessions and conversations were removed before they expired": (
        "CHATSTREAM_STORE_MAX_CONVERSATIONS または CHATSTREAM_STORE_MAX_BYTES を超えたため、"
        "最後の利用が最も古いセッションと会話を %d 件、期限前に削除しました"
    ),
    "expired conversations could not be removed and are tried again later: %s": (
        "期限切れの会話を削除できませんでした。後でもう一度試みます: %s"
    ),
    "a step of %r failed; its %d replies end": "%r のステップが失敗し、応答 %d 件を終了します",
    "feedback: %s %s": "フィードバック: %s %s",
    "gunicorn has threads=%d, but up to %d running and waiting replies hold one each, and so do "
    "their further readers: set threads=%d, or start `%s`": (
        "gunicorn は threads=%d ですが、実行中と待機中の応答が最大 %d 件、1 件につき 1 スレッドを使い、"
        "同じ応答を読むほかの接続も同じです。threads=%d とするか `%s` で起動してください"
    ),
    "gunicorn's reload loads the model again after each change: turn it off in production": (
        "gunicorn の reload は変更のたびにモデルを読み込み直します。本番では使わないでください"
    ),
    "a step cannot be captured as a CUDA graph; its operations are launched one by one": (
        "ステップを CUDA グラフとして記録できません。演算を 1 つずつ起動します"
    ),
    "Triton kernels, which would be faster, are not used: %s": "より速い Triton カーネルを使えません: %s",
    "%.1f MiB of weights are served as they are packed in %s": (
        "重み %.1f MiB を、%s に圧縮されたまま使います"
    ),
    "%.1f MiB of weights are served in 4 or 8 bits, as they are in %s": (
        "重み %.1f MiB を、%s にある 4 ビットまたは 8 ビットのまま使います"
    ),
    "the weights of %s are unpacked: %s": "%s の重みを展開して使います: %s",
    "weights are rounded to %s: %.1f MiB instead of %.1f MiB": (
        "重みを %s に丸めます: %.1f MiB（丸める前は %.1f MiB）"
    ),
    "the compiled decoder is older than its source and is not used: run scripts/install": (
        "コンパイル済みデコーダーがソースより古いため使いません。scripts/install を実行してください"
    ),
    "the compiled decoder is not used: %s": "コンパイル済みデコーダーは使いません: %s",
    "the %s forward pass is not used: %s": "%s 方式の forward は使いません: %s",
    "nothing can be generated any more: %s": "これ以上生成できません: %s",
    "prefill of %r failed": "%r のプリフィルが失敗しました",
    "served by %r on %s": "%r で提供します (%s)",
    "the callback of %r failed": "%r のコールバックが失敗しました",
    "%r failed": "%r が失敗しました",
    "CHATSTREAM_SHARED_REDIS is not set: limits, turns and running replies are those of this server alone, "
    "whatever other servers use its store": (
        "CHATSTREAM_SHARED_REDIS が設定されていません。制限、順番、実行中の応答はこのサーバーだけのものです"
        "(他のサーバーが同じストアを使っていても共有されません)"
    ),
    "the Redis that the servers share can be reached again": (
        "サーバー間で共有する Redis に再び接続できました"
    ),
    "the Redis that the servers share cannot be reached at the moment: %s": (
        "サーバー間で共有する Redis に接続できません: %s"
    ),
    "the last text of %r failed": "%r の最後のテキストが失敗しました",
    "a turn was stored, but not entered into its owner's list: %s": (
        "やり取りは保存しましたが、会話の一覧には登録できませんでした: %s"
    ),
    "the reply of %r could not be stored and is tried again for %g s: %s": (
        "%r の応答を保存できませんでした。%g 秒間再試行します: %s"
    ),
    "the reply of %r could not be stored": "%r の応答を保存できませんでした",
    "the text decoder or the grammar of %r failed": "%r のテキストデコーダーまたは文法が失敗しました",
    "the text of %r failed": "%r のテキストが失敗しました",
    "a check of the watchdog failed; it goes on": "監視スレッドで異常が起きましたが、監視を続けます",
    "waitress needs %s for up to %d running and waiting replies; `flask chatstream serve` sets all": (
        "waitress には %s が必要です(実行中と待機中の応答 最大 %d 件)。"
        "`flask chatstream serve` ならすべて設定されます"
    ),
}


_LANGUAGES: WeakKeyDictionary[logging.Logger, str] = WeakKeyDictionary()


class JapaneseFilter(logging.Filter):
    """Filter that translates the messages it knows and leaves all others as they are."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.msg, str):
            record.msg = MESSAGES.get(record.msg, record.msg)
        return True


def set_log_language(logger: logging.Logger, locale: str) -> None:
    """Set the language of the logger's messages; of several ChatStreams in a process the last one counts."""
    if _LANGUAGES.get(logger, locale) != locale:
        logger.warning(
            "log messages of all apps in this process are now in %r, no longer in %r: set CHATSTREAM_LOCALE "
            "to the same value in all of them",
            *(locale, _LANGUAGES[logger]),
        )
    _LANGUAGES[logger] = locale
    for known in [known for known in logger.filters if isinstance(known, JapaneseFilter)]:
        logger.removeFilter(known)
    if locale == "ja":
        logger.addFilter(JapaneseFilter())
