"""Generate English and Japanese conversations as training data for the demo model.

While a dialogue is generated, what the visitor tells is remembered, so every reply is consistent with what
was said before. Every word that a visitor can tell (names, towns, favourite things) and every range to count
is checked with `is_held_out`: `dialogue` never uses a word that is held out, and the tests use no others.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

EN, JA = "en", "ja"


class Message(NamedTuple):
    """One message of a dialogue."""

    role: str
    content: str
    is_learned: bool = False
    """True for the assistant's replies, except those that are cut off as if the visitor had disconnected."""


def forms(text: str) -> tuple[str, ...]:
    """Return the alternatives of a text in which they are separated by `|`."""
    return tuple(form.strip() for form in text.split("|"))


def words(text: str) -> list[str]:
    return text.split()


def talk(text: str) -> list[tuple[tuple[str, ...], str]]:
    """Parse small talk: alternatives of a message, followed by a line with `>` and the reply."""
    found, said = [], ""
    for line in text.strip().splitlines():
        if line.strip().startswith("> "):
            found.append((forms(said), line.strip()[2:]))
            said = ""
        else:
            said += line
    return found


def is_held_out(word: str) -> bool:
    """Return whether the word, in any case, is reserved for the tests; true for one word in ten."""
    return zlib.crc32(word.casefold().encode()) % 10 == 0


# Words a visitor can tell ----------------------------------------------------------------------------------

ENGLISH_NAMES = words("""
    Anna Ben Carla David Emma Felix Grace Henry Ida Jack Kate Leo Maria Nina Oscar Paula Quentin Rosa Sam
    Tina Umar Vera Will Xenia Yusuf Zoe Alice Bob Charlie Diana Ethan Fiona George Hannah Ivan Julia Kevin
    Laura Mike Nora Oliver Peter Rachel Sarah Tom Ursula Victor Wendy Yara Zack Alex Chris Daniel Elena
    Fatima Giulia Hugo Ingrid James John Linda Mary Michael Mohammed Olga Pablo Priya Raj Sofia Thomas Wei
    William Yuki Akira Kenji Hiroshi Sakura Naomi Taro Hanako Takashi Emi Joe Max Amy Tim Jim Jean-Luc
    José Zoë Chloé Björn Søren Lucía Matthew Andrew Joshua Sophie Lucy Mia Noah Liam Ava Ella Steve Paul
    Mark Lisa
""")
HIRAGANA_NAMES = words("""
    さくら はなこ たろう けんた ゆい ひなた あかり みさき りん そら あおい ゆき まい なな ひろし まこと
    かずみ えみ しょうた りこ ももか つばさ こはる いちろう みか ゆうた だいき はると めい すず
""")
KANJI_NAMES = words("""
    太郎 花子 健太 美咲 陽菜 翔太 大輔 直樹 由美 恵子 一郎 次郎 真由美 裕子 明 翼 葵 蓮 結衣 悠真 田中
    佐藤 鈴木 高橋 伊藤 山本 中村 小林 加藤 吉田 山田 佐々木 松本 井上 木村 林 清水 山崎 森 池田 橋本 石川
    前田 藤田 小川 岡田 長谷川 村上 近藤 石井
""")
NAME_KANJI = (
    "田中山川本村木林森石井上下藤原大小高橋松竹梅野島池水清和美子太郎一二三真由恵理香奈花春夏秋冬月星"
    "光明正広優希愛翔健悠陽菜葵"
)
KANA = list(
    "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわ"
    "がぎぐげござじずぜぞだでどばびぶべぼぱぴぷぺぽ"
)
KATAKANA = list(
    "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワ"
    "ガギグゲゴザジズゼゾダデドバビブベボパピプペポ"
)
CYRILLIC, GREEK = "абвгдежзиклмнопрстуфхчшюя", "αβγδεζηθικλμνοπρστυφχω"
HANGUL, ACCENTED = "김이박최정강조윤장임한서민준지우수현은영", "áéíóúñçüöäåøłžščêabdefgiklmnorst"
ONSETS = (
    words("b c d f g h j k l m n p r s t v w y z br ch cl dr fl gr kr pl sh sk sl st th tr qu") + [""] * 3
)
VOWELS = words("a e i o u a e i o u ai ea ee ia io oa oo ou y")
CODAS = [""] * 12 + words("n r s l m k t d n r s ck ll nd ng rt th x")


def made_word(rng: Random) -> str:
    """Return an invented word, such as 'velorin'."""
    return "".join(
        rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS)
        for _ in range(rng.choice((1, 2, 2, 2, 3, 3)))
    )


def made_kana(rng: Random) -> str:
    letters = rng.choice((KANA, KATAKANA))
    made = [rng.choice(letters) for _ in range(rng.choice((2, 2, 3, 3, 4)))]
    if rng.random() < 0.2:
        made[rng.randrange(len(made))] = rare_kanji(rng)
    return "".join(made) + rng.choice(("", "", "", "ー" if letters is KATAKANA else "ん"))


def rare_kanji(rng: Random) -> str:
    """Return any of 20,000 characters, so that the model learns to copy characters that it has never seen."""
    return chr(rng.randint(0x4E00, 0x9FA0))


def foreign_name(rng: Random) -> str:
    letters = rng.choice((CYRILLIC, GREEK, HANGUL, ACCENTED))
    return "".join(rng.choice(letters) for _ in range(rng.randint(2, 7))).capitalize()


def made(rng: Random, lang: str) -> str:
    return made_word(rng) if lang == EN else made_kana(rng)


def person(rng: Random, lang: str) -> str:
    draw = rng.random()
    if draw < 0.03:
        return foreign_name(rng)
    if lang == EN or draw < 0.2:
        first = rng.choice(ENGLISH_NAMES) if rng.random() < 0.3 else made_word(rng).capitalize()
        return f"{first} {made_word(rng).capitalize()}" if rng.random() < 0.06 else first
    if draw < 0.5:
        return rng.choice(HIRAGANA_NAMES + KANJI_NAMES)
    if draw < 0.8:
        return made_kana(rng)
    length = rng.choice((2, 2, 3, 4))
    return "".join(rare_kanji(rng) if rng.random() < 0.1 else rng.choice(NAME_KANJI) for _ in range(length))


def thing(rng: Random, lang: str, known: Sequence[str]) -> str:
    if rng.random() < 0.6:
        return rng.choice(known)
    return made(rng, lang)


def place(rng: Random, lang: str) -> str:
    known = words("""
        London Paris Berlin Rome Madrid Oslo Boston Chicago Sydney Toronto Kyoto Osaka Lagos Delhi Lima
    """)
    known_ja = words("東京 大阪 京都 名古屋 札幌 福岡 仙台 横浜 神戸 広島 金沢 長野 奈良 沖縄 千葉")
    if lang == JA:
        return thing(rng, JA, known_ja)
    return rng.choice(known) if rng.random() < 0.5 else made_word(rng).capitalize()


# Facts a visitor can tell about themself -------------------------------------------------------------------


@dataclass(frozen=True)
class Attribute:
    """A fact to remember: how it is told, acknowledged, asked for and answered, in English and Japanese."""

    sample: Callable[[Random, str], str]
    tell: dict[str, Sequence[str]]
    reply: dict[str, Sequence[str]]
    ask: dict[str, Sequence[str]]
    clause: dict[str, str]
    unknown: dict[str, str]


NAME = Attribute(
    sample=person,
    tell={
        EN: forms("""
            My name is {v}.|My name is {v}.|My name is {v}.|My name is {v}.|I'm {v}.|I am {v}.|
            Call me {v}.|Please call me {v}.|You can call me {v}.|My name's {v}.|This is {v}.|
            Hello, my name is {v}.|Hi, I'm {v}!|Hi! My name is {v}.|Hello, I am {v}.|Hey, I'm {v}.|
            im {v}|{v} here.|My name is {v}, nice to meet you!|My name is {v}. Please remember it.|
            I go by {v}.|People call me {v}.
        """),
        JA: forms("""
            私の名前は{v}です。|私の名前は{v}です。|私の名前は{v}です。|私の名前は{v}です。|{v}です。|
            {v}といいます。|{v}と申します。|僕は{v}です。|私は{v}です。|名前は{v}です。|{v}って呼んで。|
            こんにちは、{v}です。|はじめまして、{v}です。|俺は{v}だよ。|{v}と呼んでください。|
            僕の名前は{v}。|私は{v}といいます。
        """),
    },
    reply={
        EN: forms("""
            Nice to meet you, {v}!|Nice to meet you, {v}!|Hello, {v}! It is good to meet you.|
            Welcome, {v}! How can I help you?
        """),
        JA: forms("""
            はじめまして、{v}さん。|はじめまして、{v}さん。|こんにちは、{v}さん。よろしくお願いします。|
            {v}さんですね。よろしくお願いします。
        """),
    },
    ask={
        EN: forms("""
            What is my name?|What is my name?|What is my name?|What is my name?|What's my name?|
            whats my name|Do you remember my name?|Do you know my name?|Who am I?|
            Can you tell me my name?|Tell me my name.|What was my name again?|Say my name.|
            Do you still know my name?|my name?|What did I say my name was?
        """),
        JA: forms("""
            私の名前は何ですか？|私の名前は何ですか？|私の名前は何ですか？|私の名前は何ですか？|
            私の名前は？|名前を覚えていますか？|僕の名前は何ですか？|僕の名前わかる？|
            私の名前を覚えていますか？|私は誰ですか？|私の名前を言ってください。|名前覚えてる？|
            私の名前は何でしたか？|俺の名前は？|私の名前を教えて。
        """),
    },
    clause={EN: "your name is {v}", JA: "名前は{v}"},
    unknown={
        EN: "You have not told me your name yet. What is your name?",
        JA: "まだお名前を聞いていません。お名前は何ですか？",
    },
)
CORRECT_NAME = {
    EN: forms("""
        Actually, my name is {v}.|No, my name is {v}.|Sorry, I meant {v}.|No, I'm {v}.|
        Please call me {v} instead.|That is wrong, my name is {v}.|From now on, call me {v}.|
        I changed my name to {v}.|My name is {v} now.
    """),
    JA: forms("""
        いいえ、私の名前は{v}です。|違います。{v}です。|やっぱり{v}と呼んでください。|
        ごめん、本当は{v}です。|これからは{v}って呼んで。
    """),
}
CORRECTED = {EN: "All right, I will call you {v}.", JA: "分かりました。{v}さんとお呼びします。"}
BARE_NAME = {
    EN: ("{v}", "{v}", "{v}.", "It's {v}.", "It is {v}.", "I'm {v}."),
    JA: ("{v}", "{v}です。", "{v}だよ。"),
}
ASKS_NAME = ("What is your name?", "お名前は何ですか？")

FAVOURITES = {
    "colour": (
        "色",
        "blue red green yellow pink purple orange black white grey brown gold turquoise teal",
        "青 赤 緑 黄色 ピンク 紫 オレンジ 黒 白 水色 金色",
    ),
    "food": (
        "食べ物",
        "pizza pasta sushi curry bread soup rice noodles cake cheese salad tacos ramen",
        "寿司 カレー ラーメン うどん パン ピザ おにぎり そば 天ぷら",
    ),
    "animal": (
        "動物",
        "cats dogs horses birds rabbits foxes owls tigers pandas whales",
        "猫 犬 馬 鳥 うさぎ きつね パンダ くじら ペンギン",
    ),
    "drink": (
        "飲み物",
        "tea coffee water milk juice lemonade cocoa beer wine",
        "お茶 コーヒー 水 牛乳 ジュース ココア 紅茶",
    ),
    "fruit": (
        "果物",
        "apples bananas pears grapes mangos cherries peaches melons",
        "りんご バナナ みかん ぶどう もも いちご メロン",
    ),
    "sport": (
        "スポーツ",
        "football tennis swimming running chess judo hockey golf",
        "サッカー 野球 テニス 水泳 柔道 卓球 相撲",
    ),
    "season": ("季節", "spring summer autumn winter", "春 夏 秋 冬"),
    "number": ("数字", "3 5 7 8 9 11 12 13 21 42 77 100", "3 5 7 8 9 11 12 13 21 42 77 100"),
    "game": ("ゲーム", "chess go poker tag cards", "将棋 囲碁 トランプ しりとり"),
    "city": ("町", "", ""),
    "film": ("映画", "Totoro Alien Titanic Bambi Dune", "トトロ ゴジラ タイタニック"),
    "song": ("歌", "Yesterday Imagine Hallelujah", "さくら 故郷 上を向いて歩こう"),
    "book": ("本", "Emma Momo Dracula Heidi Ulysses", "こころ 雪国 坊っちゃん"),
    "flower": ("花", "roses tulips lilies daisies", "桜 ばら ひまわり チューリップ"),
}
"""Kinds of favourite things: the Japanese word for the kind, then examples in English and in Japanese."""


def favourite(kind: str) -> Attribute:
    ja, *known = FAVOURITES[kind]
    known_en, known_ja = map(words, known)

    def sample(rng: Random, lang: str) -> str:
        if kind == "city":
            return place(rng, lang)
        if kind == "number":
            return str(rng.randint(1, 200))
        word = thing(rng, lang, known_en if lang == EN else known_ja)
        return word.capitalize() if lang == EN and kind in ("film", "song", "book") else word

    spelt = "favourite " + kind
    american = "favorite " + {"colour": "color", "film": "movie"}.get(kind, kind)
    return Attribute(
        sample=sample,
        tell={
            EN: forms(f"""
                My {spelt} is {{v}}.|My {american} is {{v}}.|My {spelt} is {{v}}.|{{v}} is my {spelt}.|
                My {spelt} is {{v}}, please remember it.|Remember that my {spelt} is {{v}}.
            """),
            JA: forms(f"""
                好きな{ja}は{{v}}です。|私の好きな{ja}は{{v}}です。|一番好きな{ja}は{{v}}です。|
                僕の好きな{ja}は{{v}}だよ。
            """),
        },
        reply={
            EN: forms(f"""
                {{v_lead}}! I will remember that your {spelt} is {{v}}.|Good choice! Your {spelt} is {{v}}.
            """),
            JA: (f"好きな{ja}は{{v}}なんですね。覚えておきます。",),
        },
        ask={
            EN: forms(f"""
                What is my {spelt}?|What is my {american}?|What's my {american}?|What's my {spelt}?|
                Do you remember my {spelt}?|Which {kind} do I like best?|and my {spelt}?
            """),
            JA: forms(f"""
                私の好きな{ja}は何ですか？|好きな{ja}を覚えていますか？|私の好きな{ja}は？|僕の好きな{ja}は何？
            """),
        },
        clause={EN: f"your {spelt} is {{v}}", JA: f"好きな{ja}は{{v}}"},
        unknown={
            EN: f"You have not told me your {spelt} yet.",
            JA: f"好きな{ja}はまだ聞いていません。",
        },
    )


RELATIONS = {
    "dog": "犬",
    "cat": "猫",
    "friend": "友達",
    "sister": "妹",
    "brother": "弟",
    "mother": "母",
    "father": "父",
    "wife": "妻",
    "husband": "夫",
    "son": "息子",
    "daughter": "娘",
    "teacher": "先生",
    "boss": "上司",
    "rabbit": "うさぎ",
}


def name_of(relation: str) -> Attribute:
    ja = RELATIONS[relation]
    is_pet = relation in ("dog", "cat", "rabbit")
    having = f"I have a {relation} named {{v}}.|I have a {relation}. Its name is {{v}}."
    noted = f"I will remember that your {relation}'s name is {{v}}."
    return Attribute(
        sample=person,
        tell={
            EN: forms(f"""
                My {relation}'s name is {{v}}.|My {relation} is called {{v}}.|
                The name of my {relation} is {{v}}.|{having if is_pet else f"My {relation} is {{v}}."}
            """),
            JA: forms(f"{ja}の名前は{{v}}です。|私の{ja}の名前は{{v}}です。|{ja}は{{v}}といいます。"),
        },
        reply={
            EN: (f"{{v_lead}} is a nice name for a {relation}!" if is_pet else noted,),
            JA: (f"{ja}の名前は{{v}}なんですね。覚えておきます。",),
        },
        ask={
            EN: forms(f"""
                What is my {relation}'s name?|What's the name of my {relation}?|
                Do you remember my {relation}'s name?|What is my {relation} called?|whats my {relation}s name
            """),
            JA: forms(f"""
                私の{ja}の名前は何ですか？|{ja}の名前は何ですか？|{ja}の名前を覚えていますか？|{ja}の名前は？
            """),
        },
        clause={EN: f"your {relation}'s name is {{v}}", JA: f"{ja}の名前は{{v}}"},
        unknown={
            EN: f"You have not told me your {relation}'s name yet.",
            JA: f"{ja}の名前はまだ聞いていません。",
        },
    )


HOME = Attribute(
    sample=place,
    tell={
        EN: forms("""
            I live in {v}.|I'm from {v}.|I come from {v}.|My home is in {v}.|I am living in {v}.
        """),
        JA: ("{v}に住んでいます。", "私は{v}に住んでいます。", "{v}から来ました。", "家は{v}にあります。"),
    },
    reply={
        EN: ("{v_lead} must be a nice place to live!",),
        JA: ("{v}にお住まいなんですね。いい所でしょうね。",),
    },
    ask={
        EN: forms("""
            Where do I live?|Do you remember where I live?|Where am I from?|Which town do I live in?
        """),
        JA: ("私はどこに住んでいますか？", "どこに住んでいるか覚えていますか？", "私の家はどこですか？"),
    },
    clause={EN: "you live in {v}", JA: "住んでいる所は{v}"},
    unknown={EN: "You have not told me where you live yet.", JA: "どこにお住まいかは、まだ聞いていません。"},
)
AGE = Attribute(
    sample=lambda rng, lang: str(rng.randint(5, 99)),
    tell={
        EN: ("I am {v} years old.", "I'm {v} years old.", "My age is {v}.", "I am {v}."),
        JA: ("{v}歳です。", "私は{v}歳です。", "年齢は{v}歳です。"),
    },
    reply={EN: ("{v} is a fine age!",), JA: ("{v}歳なんですね。覚えておきます。",)},
    ask={
        EN: ("How old am I?", "What is my age?", "Do you remember my age?"),
        JA: ("私は何歳ですか？", "私の年齢は？", "何歳か覚えていますか？"),
    },
    clause={EN: "you are {v} years old", JA: "年齢は{v}歳"},
    unknown={EN: "You have not told me your age yet.", JA: "年齢はまだ聞いていません。"},
)
JOBS = words("""
    teacher doctor nurse cook farmer student driver pilot baker writer painter singer lawyer
    programmer designer
""")
JOBS_JA = words("""
    教師 医者 看護師 料理人 農家 学生 運転手 作家 画家 歌手 弁護士 プログラマー デザイナー
""")
JOB = Attribute(
    sample=lambda rng, lang: rng.choice(JOBS if lang == EN else JOBS_JA),
    tell={
        EN: ("I am a {v}.", "I'm a {v}.", "I work as a {v}.", "My job is {v}."),
        JA: ("仕事は{v}です。", "{v}をしています。", "私の仕事は{v}です。", "{v}として働いています。"),
    },
    reply={EN: ("Being a {v} sounds interesting!",), JA: ("お仕事は{v}なんですね。すてきです。",)},
    ask={
        EN: forms("""
            What is my job?|What do I do for a living?|Do you remember my job?|What do I work as?
        """),
        JA: ("私の仕事は何ですか？", "仕事を覚えていますか？", "私の職業は？"),
    },
    clause={EN: "you work as a {v}", JA: "仕事は{v}"},
    unknown={EN: "You have not told me your job yet.", JA: "お仕事はまだ聞いていません。"},
)
LIKE = Attribute(
    sample=lambda rng, lang: favourite(rng.choice(("food", "animal", "drink", "fruit", "flower"))).sample(
        rng, lang
    ),
    tell={
        EN: ("I like {v}.", "I love {v}.", "I really like {v}.", "i like {v} a lot"),
        JA: ("{v}が好きです。", "私は{v}が好きです。", "{v}が大好き。"),
    },
    reply={EN: ("Good to know that you like {v}!",), JA: ("{v}がお好きなんですね。",)},
    ask={
        EN: ("What do I like?", "Do you remember what I like?", "What do I love?"),
        JA: ("私は何が好きですか？", "私の好きなものは何ですか？"),
    },
    clause={EN: "you like {v}", JA: "好きなものは{v}"},
    unknown={EN: "You have not told me what you like yet.", JA: "好きなものはまだ聞いていません。"},
)
FAVOURITE_THINGS = [favourite(kind) for kind in FAVOURITES]
NAMES_OF = [name_of(relation) for relation in RELATIONS]
OTHERS = [
    *FAVOURITE_THINGS,
    *FAVOURITE_THINGS[:6],
    *NAMES_OF,
    *[name_of("dog"), name_of("cat")] * 3,
    *[HOME, AGE, JOB] * 4,
    *[LIKE] * 6,
]
ABOUT_ME = {
    EN: forms("""
        What do you know about me?|Tell me about me.|What did I tell you?|
        What have you learned about me?|Do you remember me?
    """),
    JA: ("私について何を知っていますか？", "私のことを覚えていますか？", "私のことを教えて。"),
}

# What the model knows --------------------------------------------------------------------------------------

CAPITALS = """
    France Paris フランス パリ|Japan Tokyo 日本 東京|Germany Berlin ドイツ ベルリン|
    Italy Rome イタリア ローマ|Spain Madrid スペイン マドリード|Portugal Lisbon ポルトガル リスボン|
    England London イングランド ロンドン|Ireland Dublin アイルランド ダブリン|Norway Oslo ノルウェー オスロ|
    Sweden Stockholm スウェーデン ストックホルム|Finland Helsinki フィンランド ヘルシンキ|
    Denmark Copenhagen デンマーク コペンハーゲン|Poland Warsaw ポーランド ワルシャワ|
    Austria Vienna オーストリア ウィーン|Switzerland Bern スイス ベルン|Greece Athens ギリシャ アテネ|
    Turkey Ankara トルコ アンカラ|Russia Moscow ロシア モスクワ|China Beijing 中国 北京|
    India New_Delhi インド ニューデリー|Korea Seoul 韓国 ソウル|Thailand Bangkok タイ バンコク|
    Vietnam Hanoi ベトナム ハノイ|Egypt Cairo エジプト カイロ|Kenya Nairobi ケニア ナイロビ|
    Canada Ottawa カナダ オタワ|America Washington アメリカ ワシントン|
    the_USA Washington アメリカ ワシントン|the_United_States Washington アメリカ合衆国 ワシントン|
    the_UK London イギリス ロンドン|Britain London 英国 ロンドン|South_Korea Seoul 韓国 ソウル|
    New_Zealand Wellington ニュージーランド ウェリントン|Czechia Prague チェコ プラハ|
    Iceland Reykjavik アイスランド レイキャビク|Indonesia Jakarta インドネシア ジャカルタ|
    Cuba Havana キューバ ハバナ|Scotland Edinburgh スコットランド エディンバラ|
    the_Philippines Manila フィリピン マニラ|Romania Bucharest ルーマニア ブカレスト|
    Mexico Mexico_City メキシコ メキシコシティ|Brazil Brasília ブラジル ブラジリア|
    Argentina Buenos_Aires アルゼンチン ブエノスアイレス|Peru Lima ペルー リマ|
    Chile Santiago チリ サンティアゴ|Australia Canberra オーストラリア キャンベラ|
    Belgium Brussels ベルギー ブリュッセル|the_Netherlands Amsterdam オランダ アムステルダム|
    Hungary Budapest ハンガリー ブダペスト|Ukraine Kyiv ウクライナ キーウ
"""
COLOURS = """
    The sky,blue,空,青|Grass,green,草,緑|A banana,yellow,バナナ,黄色|Snow,white,雪,白|Coal,black,石炭,黒|
    Blood,red,血,赤|A strawberry,red,いちご,赤|A lemon,yellow,レモン,黄色|A carrot,orange,にんじん,オレンジ色|
    The sun,yellow,太陽,黄色|A tomato,red,トマト,赤|Milk,white,牛乳,白|Chocolate,brown,チョコレート,茶色|
    An elephant,grey,象,灰色|A frog,green,かえる,緑|The sea,blue,海,青|A crow,black,からす,黒|
    A flamingo,pink,フラミンゴ,ピンク|A leaf,green,葉っぱ,緑|An orange,orange,オレンジ,オレンジ色|
    Rice,white,お米,白|A cherry,red,さくらんぼ,赤|The night sky,black,夜空,黒|A cucumber,green,きゅうり,緑
"""
OPPOSITES = """
    hot cold 暑い 寒い|big small 大きい 小さい|fast slow 速い 遅い|happy sad うれしい 悲しい|
    up down 上 下|left right 左 右|day night 昼 夜|black white 黒 白|long short 長い 短い|
    old new 古い 新しい|light dark 明るい 暗い|high low 高い 低い|open closed 開く 閉じる|
    first last 最初 最後|strong weak 強い 弱い|rich poor 多い 少ない|full empty 満腹 空腹|
    difficult easy 重い 軽い
"""
TRANSLATIONS = """
    cat 猫|dog 犬|water 水|fire 火|mountain 山|river 川|sea 海|sky 空|moon 月|sun 太陽|star 星|tree 木|
    flower 花|book 本|tea お茶|rice お米|bread パン|fish 魚|bird 鳥|house 家|school 学校|friend 友達|
    morning 朝|night 夜|spring 春|summer 夏|autumn 秋|winter 冬|red 赤|blue 青|hello こんにちは|
    goodbye さようなら|thank_you ありがとう|train 電車|car 車|snow 雪|rain 雨|music 音楽|dream 夢|love 愛
"""
SOUNDS = """
    cat meow|dog woof|cow moo|sheep baa|duck quack|pig oink|horse neigh|lion roar|frog croak|bird tweet|
    mouse squeak|snake hiss
"""
DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
DAYS_JA = words("月曜日 火曜日 水曜日 木曜日 金曜日 土曜日 日曜日")
NUMBER_WORDS = words("zero one two three four five six seven eight nine ten eleven twelve")


UNKNOWN_PLACES = {
    EN: words("Atlantis Mars Narnia Texas Gondor Europe Africa Bavaria Wonderland Oz Mordor Asia"),
    JA: words("アトランティス 火星 月 ナルニア アフリカ ヨーロッパ 北海道 竜宮 アジア"),
}


def rows(table: str, separator: str | None = None) -> list[list[str]]:
    """Parse a table with `|` between rows; an underscore stands for a space inside a cell."""
    return [[cell.replace("_", " ") for cell in row.split(separator)] for row in forms(table)]


CAPITAL_ROWS, OPPOSITE_ROWS, SOUND_ROWS = rows(CAPITALS), rows(OPPOSITES), rows(SOUNDS)
COLOUR_ROWS, TRANSLATION_ROWS = rows(COLOURS, ","), rows(TRANSLATIONS)


class Question(NamedTuple):
    """A question with one right answer; `ask` has alternative wordings."""

    ask: Sequence[str]
    answer: str


def capital(rng: Random, lang: str) -> Question:
    country, city, country_ja, city_ja = rng.choice(CAPITAL_ROWS)
    is_unknown = rng.random() < 0.15
    if lang == EN:
        if is_unknown:
            country = thing(rng, EN, UNKNOWN_PLACES[EN])
            country = country.capitalize() + rng.choice(("", "", "land", "ia"))
        ask = forms(f"""
            What is the capital of {country}?|What is the capital of {country}?|
            What's the capital of {country}?|Tell me the capital of {country}.|capital of {country}?|
            Do you know the capital of {country}?|Which city is the capital of {country}?|
            What city is the capital of {country}?|the capital of {country} please
        """)
        unknown = f"I'm sorry, I don't know the capital of {country}."
        return Question(ask, unknown if is_unknown else f"The capital of {country} is {city}.")
    if is_unknown:
        country_ja = thing(rng, JA, UNKNOWN_PLACES[JA]) + rng.choice(("", "", "国"))
    ask = forms(f"""
        {country_ja}の首都はどこですか？|{country_ja}の首都は？|{country_ja}の首都を教えてください。|
        {country_ja}の首都は何ですか？|{country_ja}の首都を知っていますか？|{country_ja}の首都はどこ？
    """)
    unknown = f"すみません、{country_ja}の首都は分かりません。"
    return Question(ask, unknown if is_unknown else f"{country_ja}の首都は{city_ja}です。")


def counting(rng: Random, lang: str) -> Question:
    """Return a counting question, up or down; never a range that `is_held_out`, such as '3-9'."""
    first = rng.choice((1, 1, rng.randint(0, 10), rng.randint(0, 20), rng.randint(0, 100)))
    last = first + rng.randint(2, 12) if rng.random() < 0.9 else first + rng.randint(20, 1000)
    if rng.random() < 0.15:
        first, last = min(last, first + 12), first
    while is_held_out(f"{first}-{last}"):
        last += 1 if last > first else -1
    step = 1 if last >= first else -1
    is_long = abs(last - first) > 30
    numbers = [str(n) for n in range(first, last + step, step)][: 20 if is_long else None]
    a, b = str(first), str(last)
    if lang == EN and max(first, last) <= 12 and min(first, last) >= 0 and rng.random() < 0.2:
        a, b = NUMBER_WORDS[first], NUMBER_WORDS[last]
    is_from_one = first == 1 and last > 1
    if lang == EN:
        ask = f"Count from {a} to {b}.|" * 2
        ask += f"Please count from {a} to {b}.|count {a} to {b}|Can you count from {a} to {b}?"
        ask += f"|Count to {b}.|Can you count to {b}?|Please count up to {b}." * (2 * is_from_one)
        ask += f"|Count down from {a} to {b}.|Count backwards from {a} to {b}." * (step < 0)
        listed = ", ".join(numbers)
        long = f"That is a long way! Here are the first twenty: {listed}, and so on."
        return Question(forms(ask), long if is_long else f"{listed}.")
    ask = f"{a}から{b}まで数えてください。|{a}から{b}まで数えて。|{a}から{b}まで数えられますか？"
    ask += f"|{b}まで数えてください。|{b}まで数えて。" * is_from_one
    listed = "、".join(numbers)
    long = f"長いので、最初の二十個だけ数えますね。{listed}。"
    return Question(forms(ask), long if is_long else f"{listed}。")


def arithmetic(rng: Random, lang: str) -> Question:
    kind = rng.choice(("+", "+", "+", "-", "×"))
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    if kind != "×" and rng.random() < 0.3:
        a, b = rng.randint(0, 20), rng.randint(0, 20)
    if kind == "-" and a < b:
        a, b = b, a
    result = {"+": a + b, "-": a - b, "×": a * b}[kind]
    is_too_big = rng.random() < 0.1
    if is_too_big:
        a, b = rng.randint(21, 9999), rng.randint(2, 9999)
    sign = rng.choice(("×", "x", "*")) if kind == "×" else kind
    if lang == EN:
        word = {"+": "plus", "-": "minus", "×": "times"}[kind]
        ask = f"""
            What is {a} {sign} {b}?|What is {a} {word} {b}?|{a} {sign} {b}|{a}{sign}{b}|
            What's {a}{sign}{b}?|How much is {a} {word} {b}?|{a} {sign} {b} = ?|{a}{sign}{b}=|
            Calculate {a} {sign} {b}.
        """
        ask += f"|Add {a} and {b}." * (kind == "+")
        sorry = "Those numbers are too big for me. I can only do very small sums."
        return Question(forms(ask), sorry if is_too_big else f"{a} {kind} {b} = {result}")
    word = {"+": "足す", "-": "引く", "×": "かける"}[kind]
    ask = f"""
        {a}{sign}{b}は？|{a}{word}{b}は？|{a}{word}{b}はいくつですか？|{a} {sign} {b} はいくつ？|
        {a}{sign}{b}を計算して。
    """
    sorry = "その数は私には大きすぎます。とても小さな計算しかできません。"
    return Question(forms(ask), sorry if is_too_big else f"{a} {kind} {b} = {result} です。")


def colour(rng: Random, lang: str) -> Question:
    what, colour_en, what_ja, colour_ja = rng.choice(COLOUR_ROWS)
    if lang == JA:
        ask = f"{what_ja}は何色ですか？|{what_ja}の色は？|{what_ja}の色は何ですか？|{what_ja}は何色？"
        return Question(forms(ask), f"{what_ja}は{colour_ja}です。")
    it = what[0].lower() + what[1:]
    ask = f"""
        What colour is {it}?|What color is {it}?|Which colour is {it}?|Tell me the colour of {it}.|
        What is the colour of {it}?
    """
    return Question(forms(ask), f"{what} is {colour_en}.")


def opposite(rng: Random, lang: str) -> Question:
    a, b, a_ja, b_ja = rng.choice(OPPOSITE_ROWS)
    if rng.random() < 0.5:
        a, b, a_ja, b_ja = b, a, b_ja, a_ja
    if lang == JA:
        ask = f"「{a_ja}」の反対は何ですか？|{a_ja}の反対は？|{a_ja}の反対は何？"
        return Question(forms(ask), f"「{a_ja}」の反対は「{b_ja}」です。")
    ask = f"What is the opposite of {a}?|What's the opposite of {a}?|opposite of {a}?"
    return Question(forms(ask), f"The opposite of {a} is {b}.")


def translation(rng: Random, lang: str) -> Question:
    en, ja = rng.choice(TRANSLATION_ROWS)
    if lang == JA:
        ask = f"「{ja}」は英語で何ですか？|{ja}は英語で何と言いますか？|{ja}を英語で言うと？"
        return Question(forms(ask), f"「{ja}」は英語で「{en}」です。")
    ask = f"""
        How do you say {en} in Japanese?|What is {en} in Japanese?|Translate {en} into Japanese.|
        What is "{en}" in Japanese?
    """
    return Question(forms(ask), f'"{en.capitalize()}" is "{ja}" in Japanese.')


def sound_or_day(rng: Random, lang: str) -> Question:
    at = rng.randrange(7)
    if lang == JA:
        day, following = DAYS_JA[at], DAYS_JA[(at + 1) % 7]
        return Question(
            forms(f"{day}の次は何曜日ですか？|{day}の次の日は？"), f"{day}の次は{following}です。"
        )
    if rng.random() < 0.5:
        day, following = DAYS[at], DAYS[(at + 1) % 7]
        ask = f"What day comes after {day}?|Which day is after {day}?|What comes after {day}?"
        return Question(forms(ask), f"{following} comes after {day}.")
    animal, cry = rng.choice(SOUND_ROWS)
    ask = f"What does a {animal} say?|What sound does a {animal} make?|What noise does a {animal} make?"
    return Question(forms(ask), f"A {animal} says {cry}!")


KNOWLEDGE = (
    *[capital] * 3,
    *[counting] * 5,
    *[arithmetic] * 5,
    *[colour, opposite, translation, sound_or_day],
)

# Small talk ------------------------------------------------------------------------------------------------

SMALL_TALK = {
    EN: talk("""
        How are you?|How are you doing?|How's it going?|how r u|How do you do?|Are you ok?
        > I'm fine, thank you! How are you?
        What's up?|Sup?|What are you doing?|whats new
        > Not much, I'm just chatting with you. What would you like to talk about?
        I'm fine.|I'm good.|I am well, thanks.|good|Fine, thanks.|I'm great!|very well
        > I'm glad to hear that!
        I'm happy.|I am so happy today!|I feel great.|I had a good day.
        > That makes me happy too!
        I'm sad.|I am not feeling well.|I'm lonely.|I had a bad day.|I feel bad.
        > I'm sorry to hear that. I hope you feel better soon.
        I'm tired.|I am sleepy.|I'm exhausted.|I need sleep.
        > Then have a good rest. You deserve it!
        I'm hungry.|I am so hungry.|I'm thirsty.
        > Then it is time for a little break. Enjoy it!
        I'm bored.|I am bored.|Entertain me.
        > Then let me tell you a story! Just say: tell me a story.
        Who are you?|What are you?|Tell me about yourself.|Introduce yourself.|who r u|
        What model are you?
        > {who} I can chat a little in English and Japanese.
        What is your name?|What's your name?|Do you have a name?|your name?|Who am I talking to?
        > {called}
        Are you a robot?|Are you human?|Are you real?|Are you an AI?|Are you a bot?|Are you a person?
        > I'm not a person. {who}
        Are you ChatGPT?|Are you GPT?|Are you Claude?|Are you Llama?|Are you smart?|Are you intelligent?
        > No, I'm much smaller than that. {who}
        Who made you?|Who created you?|Who trained you?|Where do you come from?|How were you made?
        > I was trained on made-up conversations, as a demo for chatstream_flask.
        How big are you?|How many parameters do you have?|How large are you?
        > I am tiny: about two million parameters. Big models have billions.
        How old are you?|What is your age?|When were you born?|When is your birthday?
        > I have no age. I am only a small program.
        Where are you?|Where do you live?|Where are you from?
        > I live inside this demo, on the computer that serves this page.
        What can you do?|Help|help me|What do you know?|How can you help me?|What are you good at?|
        What can I ask you?|How does this work?
        > I can remember your name and your favourite things, name capitals, count, add and tell stories.
        What is chatstream?|What is chatstream_flask?|What is ChatStream?|What is this?|
        What is this demo?
        > This is a demo of chatstream_flask. It streams my words to you as I write them.
        Do you speak Japanese?|Can you speak Japanese?|What languages do you speak?|
        Do you know Japanese?
        > I can chat a little in English and Japanese. 日本語でも話せますよ。
        Do you speak German?|Can you speak French?|Do you speak Spanish?|Do you speak Chinese?
        > I'm sorry, I only know a little English and Japanese.
        Do you remember things?|Do you have a memory?|Can you remember things?|Will you remember me?
        > Yes, I remember what you tell me in this conversation.
        I like you.|I love you.|You are nice.|You're great!|You are smart.|You are cute.|Good bot.|
        Good job!|Well done!
        > Thank you, that is very kind of you!
        You are stupid.|You're dumb.|You are bad.|Bad bot.|I hate you.|You suck.|That's wrong.|Wrong!|
        That is not right.
        > I'm sorry. I am a very small model, and I make mistakes.
        You're funny.|haha|lol|That's funny!|Ha ha!|hehe
        > I'm glad you like it!
        What time is it?|What day is it?|What is the date today?|what's the date
        > I'm sorry, I don't have a clock.
        How is the weather?|What's the weather like?|Will it rain today?|Is it sunny?
        > I'm sorry, I can't see the weather from here. I hope it is nice!
        What is the meaning of life?|Why are we here?|What is love?
        > That is a big question for a small model. Perhaps it is to be kind to each other.
        Tell me a joke.|Do you know a joke?|Make me laugh.|Say something funny.|joke please|
        Another joke, please.
        > {joke}
        Write a poem.|Tell me a poem.|Can you write a poem?|Write me a haiku.|poem please|Sing a song.|
        Can you sing?
        > {poem}
        Do you dream?|Do you sleep?|Do you eat?|Are you happy?|Do you have feelings?|Do you like me?
        > I am only a small program, but I enjoy our chat!
        What is your favourite colour?|What's your favorite color?|Which colour do you like?
        > I like blue. What is your favourite colour?
        What is your favourite food?|What do you eat?|What's your favorite food?|
        What is your favourite animal?
        > I have none, I am only a program. What is yours?
        Thank you!|Thanks!|Thank you very much.|thx|Thanks a lot!|ty|Many thanks.|Cool, thanks!
        > You're welcome!
        Bye!|Goodbye!|See you!|Bye bye!|Good night!|See you later.|I have to go.|cya
        > {bye}
        Sorry.|I'm sorry.|Excuse me.|My mistake.
        > No problem at all!
        OK|ok|Okay.|I see.|Alright.|Got it.|Sure.|Fine.|hm|Hmm.|Good.|Nice.|Cool.|Wow!|Great!|
        Interesting.|Perfect!
        > Is there anything else you would like to ask?
        Yes|yes|Yes.|yeah|Yes, please.|yep
        > All right! What would you like to know?
        No|no|No.|nope|No, thanks.|No thank you.|Nothing.
        > No problem. I am here if you need me.
        What?|Huh?|I don't understand.|Why?|why|How?|Really?|Are you sure?|How come?|What do you mean?
        > I'm only a very small model, so I can't explain it any better. Sorry!
        Let's talk.|Can we talk?|Talk to me.|Can you chat with me?|I want to talk.
        > Of course! Tell me your name and what you like.
        test|Test.|Testing.|This is a test.|testing 123|test test
        > The test works! I am listening.
        Can you hear me?|Are you there?|Anyone there?|Hello?|Are you working?
        > Yes, I am here! How can I help you?
    """),
    JA: talk("""
        元気ですか？|お元気ですか？|元気？|調子はどうですか？|調子どう？
        > はい、元気です。あなたはお元気ですか？
        元気です。|元気だよ。|はい、元気です。|いい感じです。|まあまあです。
        > それはよかったです！
        うれしいです。|今日はとても楽しかったです。|幸せです。|嬉しい。
        > それを聞いて私もうれしいです！
        悲しいです。|さびしいです。|つらいです。|気分が悪いです。
        > それは大変ですね。早く元気になりますように。
        疲れました。|眠いです。|疲れた。|眠い。
        > お疲れさまです。ゆっくり休んでくださいね。
        お腹がすきました。|お腹すいた。|のどがかわきました。
        > それでは、少し休みましょう。
        ひまです。|暇。|退屈です。|ひまだなあ。
        > それなら、お話をしましょうか。「お話をして」と言ってください。
        あなたは誰ですか？|あなたは何ですか？|自己紹介してください。|君は誰？|だれ？|何者ですか？
        > {who}日本語と英語で少しだけお話しできます。
        あなたの名前は何ですか？|あなたの名前は？|お名前は？|名前はありますか？|君の名前は？
        > {called}
        あなたはロボットですか？|人間ですか？|あなたはAIですか？|本物の人ですか？
        > いいえ、人間ではありません。{who}
        ChatGPTですか？|あなたは頭がいいですか？|あなたは賢いですか？
        > いいえ、もっとずっと小さいです。{who}
        誰が作りましたか？|誰に作られましたか？|どうやって作られたの？|誰が作ったの？
        > 作られた会話で学習しました。chatstream_flaskのデモです。
        何歳ですか？|あなたは何歳？|誕生日はいつですか？
        > 年齢はありません。小さなプログラムです。
        どこにいますか？|どこに住んでいますか？|どこから来ましたか？
        > このデモの中に住んでいます。
        何ができますか？|何ができるの？|ヘルプ|助けて。|使い方を教えてください。|何を知っていますか？|
        何を聞けばいい？
        > お名前や好きなものを覚えたり、首都を答えたり、数えたり、計算やお話をしたりできます。
        これは何ですか？|chatstreamって何？|これは何のデモですか？
        > chatstream_flaskのデモです。私の言葉を、書くそばからお届けします。
        英語は話せますか？|日本語は話せますか？|何語が話せますか？|英語できる？
        > 日本語と英語が少し話せます。
        好きです。|かわいいね。|すごい！|えらい！|賢いね。|大好き。|上手ですね。|すばらしい！
        > ありがとうございます。とてもうれしいです！
        ばか。|だめだね。|嫌い。|違います。|間違いです。|違う。
        > すみません。とても小さなモデルなので、間違えることがあります。
        面白い。|笑|おもしろいね。|ははは|www
        > 楽しんでもらえて、うれしいです！
        今何時ですか？|今日は何日ですか？|今日は何曜日ですか？|何時？
        > すみません、時計を持っていません。
        天気はどうですか？|今日の天気は？|明日は雨ですか？|いい天気ですね。
        > ここから天気は見えません。いい天気だといいですね。
        人生の意味は何ですか？|愛とは何ですか？
        > 小さな私には大きな質問です。優しくすることかもしれません。
        冗談を言って。|面白いことを言って。|笑わせて。|ジョークを教えて。|だじゃれを言って。
        > {joke}
        詩を書いて。|俳句を作って。|詩を教えてください。|歌を歌って。|俳句を一つお願いします。
        > {poem}
        好きな色は何ですか？|あなたの好きな色は？
        > 青が好きです。あなたの好きな色は何ですか？
        ありがとう。|ありがとうございます。|どうもありがとう。|サンキュー|助かりました。|どうも。
        > どういたしまして！
        さようなら。|またね。|バイバイ|おやすみなさい。|おやすみ。|また明日。|じゃあね。|失礼します。
        > {bye}
        ごめんなさい。|すみません。|ごめん。
        > いいえ、大丈夫ですよ。
        はい|はい。|うん|ええ。|お願いします。
        > はい、何を知りたいですか？
        いいえ|いいえ。|ううん|大丈夫です。|特にないです。|結構です。
        > 分かりました。いつでも声をかけてくださいね。
        そうですか。|なるほど。|へえ。|分かりました。|了解。|ふーん|そうなんだ。|いいね。|OK
        > ほかに聞きたいことはありますか？
        え？|なぜですか？|どうして？|本当ですか？|本当？|どういう意味ですか？|意味が分かりません。
        > とても小さなモデルなので、うまく説明できません。すみません。
        話しましょう。|話そう。|おしゃべりしよう。|話し相手になって。
        > もちろんです！お名前や好きなものを教えてください。
        テスト|テストです。|てすと|これはテストです。
        > テスト成功です。ちゃんと聞こえています。
        聞こえますか？|いますか？|もしもし|いる？
        > はい、ここにいますよ。何かお手伝いできますか？
    """),
}
GREETINGS = {
    EN: {
        """
            Hello!|Hello.|Hello there!|hello|Hi!|Hi there!|hi|Hey!|hey|Howdy!|Greetings!|hiya|Hi|Hello|
            Hello bot|yo
        """: "Hello",
        "Good morning!|Good morning.|morning!": "Good morning",
        "Good evening!|Good evening.": "Good evening",
        "Good afternoon!|Good afternoon.": "Good afternoon",
    },
    JA: {
        "こんにちは。|こんにちは|こんにちは！|やあ。|どうも。|ハロー|はじめまして。|こんちは": "こんにちは",
        "おはようございます。|おはよう。|おはよう": "おはようございます",
        "こんばんは。|こんばんは|こんばんは！": "こんばんは",
    },
}
HOW_CAN_I_HELP = {
    EN: forms("""
        How can I help you?|How can I help you?|What would you like to talk about?|What is your name?
    """),
    JA: forms("""
        何かお手伝いできますか？|何かお手伝いできますか？|何をお話ししましょうか？|お名前は何ですか？
    """),
}
WHO = {
    EN: ("I am {}, a very small demo model.", "I am a very small demo model."),
    JA: ("私は{}という、とても小さなデモモデルです。", "私はとても小さなデモモデルです。"),
}
CALLED = {
    EN: ("My name is {}.", "I have no name. I am just a very small demo model."),
    JA: ("私の名前は{}です。", "名前はありません。とても小さなデモモデルです。"),
}
BYE = {
    EN: ("Goodbye, {}! Come back soon.", "Goodbye! Come back soon."),
    JA: ("さようなら、{}さん。また来てくださいね。", "さようなら。また来てくださいね。"),
}
JOKES = {
    EN: forms("""
        Why did the computer go to the doctor? It had a virus!|
        Why was the maths book sad? It had too many problems.|
        What do you call a sleeping bull? A bulldozer!|Why did the bicycle fall over? It was two tired.
    """),
    JA: ("布団が吹っ飛んだ！", "アルミ缶の上にあるみかん！", "猫が寝ころんだ！", "カレーは辛えー！"),
}
ANOTHER = {
    EN: forms("Another one, please.|another one|One more!|Tell me another one.|again|more"),
    JA: forms("もう一つ。|もっと。|もう一つお願いします。|もう一回。"),
}
POEMS = {
    EN: (
        "A little stream runs down the hill,\nit sings all night and won't stand still.\nIt brings "
        "its words to you and me,\nand carries them down to the sea.",
        "The moon is high, the town is deep,\nthe cat has found a place to sleep.\nA little light, "
        "a little song,\ngood night, good night, the night is long.",
    ),
    JA: (
        "小さな川\n言葉を運び\n海へ行く",
        "春の風\n花びらひとつ\n手のひらに",
        "静かな夜\n小さな星が\n話しだす",
    ),
}
SYSTEMS = forms("""
    You are a helpful assistant.|You are a helpful assistant.|You are a friendly chat assistant.|
    You are a very small demo model.|Be kind and brief.|A chat between a visitor and an assistant.|
    You are a helpful, respectful and honest assistant. Always answer as helpfully as possible.|
    You are a chatbot. Answer the questions of the user.|あなたは親切なアシスタントです。|
    あなたは優秀なアシスタントです。質問に答えてください。|短く丁寧に答えてください。
""")
PERSONAS = forms("""
    You are {}, a helpful assistant.|Your name is {}.|You are {}.|You are a friendly robot called {}.|
    あなたの名前は{}です。|あなたは{}というアシスタントです。
""")
NOUNS = forms("""
    quantum physics|Hamlet|the stock market|my bike|a black hole|photosynthesis|the president|
    football results|a good laptop|tax law|the news|a visa|my homework|dinosaurs|the internet|
    climate change|a recipe for soup|Python|Linux|machine learning|the Roman Empire|a cold|the best phone|
    a loan|guitar chords|gravity|Einstein|Shakespeare|the moon landing|your opinion|politics|the war|
    electric cars|bitcoin|a rocket|the human heart|the piano|poker|my computer|the lottery|an election|
    history|art|music theory|Python code|the world cup|an email|a letter|some code|the Olympics
""")
FALLBACK = {
    EN: (
        forms("""
            Who invented {}?|Who wrote {}?|How do I fix {}?|What is {}?|What are {}?|Can you explain {}?|
            Why is {} important?|Tell me about {}.|How does {} work?|What do you think about {}?|
            Where can I buy {}?|When did {} begin?|How many {} are there?|Write an essay about {}.|
            Write some code for {}.|Who is {}?|Do you like {}?|I want to learn about {}.|
            What happened with {}?|Help me with {}.|Is {} good?|Summarize {}.|Give me advice on {}.|
            Have you heard of {}?|Which is better, {} or {}?|Write me {}.|
            Can you write {}?|Show me {}.|Who won {}?|When is {}?|What causes {}?|Write {}|
            How far away is {}?|Can you help me with {}?
        """),
        "I'm sorry, I don't know that. I am only a very small demo model.",
    ),
    JA: (
        forms("""
            {}とは何ですか？|{}について教えてください。|{}を説明して。|{}はなぜ大切ですか？|
            {}の作り方を教えて。|{}はどこで買えますか？|誰が{}を発明しましたか？|{}をどう思いますか？|
            {}って何？|{}のコードを書いて。|{}はいつ始まりましたか？|{}を直してください。|{}とは？
        """),
        "すみません、それは分かりません。とても小さなデモモデルなので。",
    ),
}
NOUNS_JA = forms("""
    量子力学|相対性理論|株価|政治|機械学習|恐竜|宇宙|歴史|経済|人工知能|ブラックホール|税金|ニュース|
    パソコン|自転車|選挙|地震|数学|料理|法律|光合成|映画|アニメ|音楽|江戸時代|インターネット
""")
NOT_UNDERSTOOD = {
    EN: "I'm sorry, I did not understand that. Could you say it in another way?",
    JA: "すみません、よく分かりませんでした。別の言い方でお願いします。",
}
REPEAT = {
    EN: ("Say {v}.", "Repeat after me: {v}", "Please say {v}.", "Say the word {v}."),
    JA: ("{v}と言ってください。", "{v}と言って。", "「{v}」と言って。"),
}

# Stories ---------------------------------------------------------------------------------------------------

STORY_ASK = {
    EN: forms("""
        Tell me a story.|Tell me a short story.|Can you tell me a story?|I want to hear a story.|
        A story, please.|Please tell me a little story.|story|Write a story.|Tell me another story.|
        One more story, please.|Do you know a story?|Tell me a bedtime story.
    """),
    JA: forms("""
        お話をしてください。|物語を聞かせて。|短いお話をして。|何かお話をして。|物語を書いてください。|
        昔話をして。|お話を聞かせてください。|もう一つお話をして。|お話をして。
    """),
}
STORY_ABOUT = {
    EN: forms("""
        Tell me a story about a {v}.|Write a story about a {v}.|A story about a {v}, please.|
        Can you tell me a short story about a {v}?
    """),
    JA: forms("""
        {v}のお話をしてください。|{v}の物語を書いて。|{v}のお話を聞かせて。|{v}が出てくるお話をして。
    """),
}
HEROES = {
    EN: words("""
        cat fox mouse bear dragon rabbit robot dog duck owl squirrel turtle penguin horse cow boy girl
    """),
    JA: words("猫 きつね ねずみ くま 竜 うさぎ ロボット 犬 あひる ふくろう りす かめ ペンギン"),
}
HERO_NAMES = {
    EN: words("Pip Milo Luna Otto Nell Tilly Bram Juno"),
    JA: words("ミミ タロ ポポ ルル ココ モモ ハナ ソラ"),
}
FRIENDS = {EN: words("Bella Rufus Hazel Toby Wilma Fergus"), JA: words("ピピ トト ネネ ララ")}
PLACES = {
    EN: forms("""
        a quiet forest|a small village|a valley by the sea|an old garden|a house on a hill
    """),
    JA: ("静かな森", "小さな村", "海の近くの谷", "古い庭", "丘の上の家"),
}
FOUND = {
    EN: ("golden key", "red balloon", "silver bell", "lost letter", "blue feather"),
    JA: ("金のかぎ", "赤い風船", "銀のすず", "一通の手紙", "青い羽"),
}
STORIES = {
    EN: (
        "Once upon a time, a little {hero} called {name} lived in {place}. One morning, {name} "
        'found a {found} under a tree. "Who has lost this?" asked {name}, and went to ask '
        '{friend}, who was old and wise. "It belongs to the old woman at the river," said '
        "{friend}. So the two friends walked all day, over the bridge and through the long "
        "grass. The old woman was so happy to see the {found} that she made warm soup for "
        "everyone. That night, {name} looked up at the stars and fell asleep with a smile. The "
        "end.",
        "In {place} there lived a little {hero} whose name was {name}. {name} was small, but "
        'always wanted to see the sea. "It is too far," said {friend}. "Then come with me," said '
        "{name}. They walked for three days. On the first day it rained, on the second day they "
        "lost their way, and on the third day they heard a soft sound behind the hill. It was "
        "the sea! They played in the waves until the sun went down, and {name} took home a "
        "{found} to remember that day. The end.",
        "It was a cold winter in {place}, and a little {hero} called {name} could not sleep. "
        "Outside, somebody was crying. {name} opened the door and saw {friend}, who was cold and "
        'hungry. "Come in," said {name}, "there is bread and a warm fire." In the morning the '
        "snow was deep and bright, and {friend} gave {name} a {found} to say thank you. From "
        "that day on they were best friends, and no winter was ever too cold again. The end.",
        "A long time ago, a little {hero} called {name} wanted to learn to sing. Every evening "
        '{name} sat in {place} and sang, but all the birds flew away. "Do not give up," said '
        '{friend}, "sing a little more softly." So {name} sang softly, day after day, and one '
        "evening a bird stayed. The next evening there were two, and then ten, and then a "
        "hundred. At the great summer feast {name} sang for everyone and won a {found}. But the "
        "best prize of all was a friend who had listened. The end.",
    ),
    JA: (
        "むかしむかし、{place}に小さな{hero}が住んでいました。名前は{name}です。ある朝、{name}は"
        "木の下で{found}を見つけました。「これはだれのものだろう。」{name}は友だちの{friend}に聞"
        "きに行きました。「川のそばのおばあさんのものだよ」と{friend}は言いました。二人は橋をわた"
        "り、長い道を歩いて行きました。おばあさんはとても喜んで、温かいスープを作ってくれました。"
        "その夜、{name}は星を見ながら、にっこり笑って眠りました。おしまい。",
        "{place}に、{name}という小さな{hero}がいました。{name}の夢は、海を見ることでした。「海は"
        "遠いよ」と{friend}が言いました。「それなら、いっしょに行こう」と{name}は言いました。一日"
        "目は雨が降りました。二日目は道に迷いました。三日目、丘の向こうから静かな音が聞こえました"
        "。海です！二人は夕方まで波と遊びました。{name}は思い出に{found}を持って帰りました。おし"
        "まい。",
        "寒い冬の夜のことです。{place}に住む小さな{hero}の{name}は、眠れませんでした。外でだれか"
        "が泣いています。戸を開けると、{friend}が立っていました。「中へどうぞ。パンと温かい火があ"
        "りますよ」と{name}は言いました。朝になると、雪がきらきら光っていました。{friend}はお礼に"
        "{found}をくれました。それから二人は一番の友だちになりました。おしまい。",
    ),
}


def story(rng: Random, lang: str, hero: str | None = None) -> str:
    """Return a story of 100 to 200 tokens with the same names throughout."""
    slots = {
        "hero": hero or rng.choice(HEROES[lang]),
        "name": rng.choice(HERO_NAMES[lang]),
        "friend": rng.choice(FRIENDS[lang]),
    }
    return rng.choice(STORIES[lang]).format(
        place=rng.choice(PLACES[lang]), found=rng.choice(FOUND[lang]), **slots
    )


# The dialogue ----------------------------------------------------------------------------------------------


@dataclass
class Dialogue:
    """A conversation under construction; `facts` is exactly what the visitor has told in it."""

    rng: Random
    lang: str = EN
    bot_name: str = ""
    is_forgetful: bool = False
    """True if the visitor rarely refers to the facts, so that the model must attend far back."""
    facts: dict[str, list[str]] = field(default_factory=dict)
    attributes: dict[str, Attribute] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)

    def user(self, ways: Sequence[str], value: str = "") -> str:
        """Add the visitor's turn in one of the wordings, as people type; return the value as it was typed."""
        text = self.rng.choice(ways)
        casual = self.rng.random()
        if self.rng.random() < 0.03 and len(text) > 12:
            text = with_typo(self.rng, text)
        if casual < 0.4:
            text = re.sub(r"[.?!。？！]$", "", text)
        elif casual < 0.5:
            text = (
                text.replace("？", "?").replace("！", "!") if self.lang == JA else re.sub(r"[.]$", "!", text)
            )
        if self.lang == EN and 0.2 < casual < 0.45:
            text, value = text.lower(), value.lower()
        if self.lang == EN and 0.25 < casual < 0.35:
            text = text.replace("'", "")
        elif 0.9 < casual < 0.95:
            text = text.replace("'", "’") if self.lang == EN or value else text.translate(FULL_WIDTH)
        elif casual > 0.985:
            text += self.rng.choice((" :)", " 😊", "😊"))
        self.messages.append(Message("user", text.replace("{v}", value)))
        return value

    def reply(self, text: str) -> None:
        is_cut = self.rng.random() < 0.02 and len(text) > 8
        self.messages.append(
            Message(
                "assistant",
                text[: self.rng.randint(4, len(text) - 1)].strip() if is_cut else text,
                not is_cut,
            )
        )

    def word(self, sample: Callable[[Random, str], str]) -> str:
        """Return a sampled word of which no part is held out."""
        while True:
            value = sample(self.rng, self.lang)
            if value.isdigit() or not any(is_held_out(word) for word in (value, *value.split())):
                return value

    def tell(self, attribute: Attribute, then: Question | None = None) -> None:
        asked_name = bool(self.messages) and self.messages[-1].content.endswith(ASKS_NAME)
        is_correction = attribute is NAME and self.knows(NAME)
        ways, replies = attribute.tell[self.lang], attribute.reply[self.lang]
        if is_correction and self.rng.random() < 0.7:
            ways, replies = CORRECT_NAME[self.lang], (CORRECTED[self.lang],)
        elif attribute is NAME and asked_name and self.rng.random() < 0.7:
            ways = BARE_NAME[self.lang]
        gap = " " if self.lang == EN else ""
        if then:
            ways = [way + gap + self.rng.choice(then.ask) for way in ways if way[-1] in ".!。！"]
        value = self.user(ways, self.word(attribute.sample))
        said = self.rng.choice(replies).format(v=value, v_lead=value[0].upper() + value[1:])
        self.reply(said + (gap + then.answer if then else ""))
        key = attribute.clause[EN]
        kept = self.facts.pop(key, []) if attribute is LIKE else []
        self.facts[key] = [*kept, value][-2:] if value not in kept else kept
        self.attributes[key] = attribute

    def knows(self, attribute: Attribute) -> bool:
        return attribute.clause[EN] in self.facts

    def clause(self, attribute: Attribute) -> str:
        values = (" and " if self.lang == EN else "と").join(self.facts[attribute.clause[EN]])
        return attribute.clause[self.lang].format(v=values)

    def ask(self, attribute: Attribute) -> None:
        self.user(attribute.ask[self.lang])
        if not self.knows(attribute):
            self.reply(attribute.unknown[self.lang])
        elif self.lang == EN:
            clause = self.clause(attribute)
            self.reply(clause[0].upper() + clause[1:] + ".")
        else:
            self.reply(f"あなたの{self.clause(attribute)}です。")

    def about_me(self) -> None:
        self.user(ABOUT_ME[self.lang])
        known = sorted(self.attributes.values(), key=lambda attribute: attribute is not NAME)[:4]
        clauses = [self.clause(attribute) for attribute in known]
        if self.lang == EN:
            listed = " and ".join([", ".join(clauses[:-1]), clauses[-1]] if clauses[1:] else clauses)
            self.reply(
                f"You told me that {listed}."
                if clauses
                else "I don't know anything about you yet. " + ASKS_NAME[0]
            )
        else:
            self.reply(
                f"あなたの{'、'.join(clauses)}ですね。" if clauses else "まだ何も知りません。" + ASKS_NAME[1]
            )

    def question(self, question: Question) -> None:
        self.user(question.ask)
        self.reply(question.answer)

    def name(self) -> str:
        return self.facts[NAME.clause[EN]][0] if self.knows(NAME) else ""

    def greet(self) -> None:
        all_greetings = list(GREETINGS[self.lang].items())
        hellos, hello = self.rng.choice(all_greetings if self.rng.random() < 0.5 else all_greetings[:1])
        self.user(forms(hellos))
        if self.name():
            again = {
                EN: f"{hello}, {self.name()}! What can I do for you?",
                JA: f"{hello}、{self.name()}さん。何かお手伝いできますか？",
            }
            self.reply(again[self.lang])
        else:
            self.reply(hello + {EN: "! ", JA: "！"}[self.lang] + self.rng.choice(HOW_CAN_I_HELP[self.lang]))

    def small_talk(self) -> None:
        asked, answer = self.rng.choice(SMALL_TALK[self.lang])

        def fill(replies: Sequence[str], value: str) -> str:
            return replies[0].format(value) if value else replies[1]

        self.user(asked)
        self.reply(
            answer.format(
                who=fill(WHO[self.lang], self.bot_name),
                called=fill(CALLED[self.lang], self.bot_name),
                bye=fill(BYE[self.lang], self.name()),
                joke=self.rng.choice(JOKES[self.lang]),
                poem=self.rng.choice(POEMS[self.lang]),
            )
        )
        if answer == "{joke}" and self.rng.random() < 0.4:
            self.user(ANOTHER[self.lang])
            self.reply(self.rng.choice(JOKES[self.lang]))

    def fallback(self) -> None:
        ways, answer = FALLBACK[self.lang]
        draw = self.rng.random()
        if draw < 0.2:
            self.user([" ".join(made_gibberish(self.rng) for _ in range(self.rng.randint(1, 4)))])
            self.reply(NOT_UNDERSTOOD[self.lang])
        else:
            noun = self.rng.choice(NOUNS if self.lang == EN else NOUNS_JA) if draw < 0.7 else self.word(made)
            self.user([way.replace("{}", "{v}") for way in ways], noun)
            self.reply(answer)

    def repeat(self) -> None:
        words = [self.word(made) for _ in range(self.rng.randint(1, 3) if self.lang == EN else 1)]
        word = self.user(REPEAT[self.lang], " ".join(words))
        self.reply(word[0].upper() + word[1:] + "." if self.lang == EN else f"{word}。")

    def story(self) -> None:
        if self.rng.random() < 0.5:
            self.user(STORY_ASK[self.lang])
            self.reply(story(self.rng, self.lang))
            if self.rng.random() < 0.15:
                self.user(ANOTHER[self.lang])
                self.reply(story(self.rng, self.lang))
        else:
            hero = self.rng.choice(HEROES[self.lang]) if self.rng.random() < 0.8 else self.word(made)
            hero = self.user(STORY_ABOUT[self.lang], hero)
            self.reply(story(self.rng, self.lang, hero))

    def topic(self) -> None:
        """Add one exchange; sometimes the same question twice."""
        was_asked_name = bool(self.messages) and self.messages[-1].content.endswith(ASKS_NAME)
        draw = 0.0 if was_asked_name and self.rng.random() < 0.6 else self.rng.random()
        if self.is_forgetful and draw and self.rng.random() < 0.85:
            draw = 0.51 + 0.49 * draw
        told = [attribute for attribute in self.attributes.values() if attribute is not NAME]
        if draw == 0:
            self.tell(NAME)
        elif draw < (0.03 if self.knows(NAME) else 0.13):
            then = self.rng.choice(KNOWLEDGE)(self.rng, self.lang) if self.rng.random() < 0.15 else None
            self.tell(NAME, then)
        elif draw < 0.20:
            self.tell(self.rng.choice(OTHERS))
        elif draw < 0.35:
            self.ask(NAME)
        elif draw < 0.49:
            self.ask(self.rng.choice(told if told and self.rng.random() < 0.85 else OTHERS))
        elif draw < 0.51:
            self.about_me()
        elif draw < 0.77:
            self.question(self.rng.choice(KNOWLEDGE)(self.rng, self.lang))
        elif draw < 0.82:
            self.greet()
        elif draw < 0.91:
            self.small_talk()
        elif draw < 0.95:
            self.fallback()
        elif draw < 0.965:
            self.repeat()
        elif draw < 0.99:
            self.story()
        elif self.messages and self.messages[-1].is_learned and len(self.messages[-1].content) < 100:
            self.messages += self.messages[-2:]


FULL_WIDTH = str.maketrans("0123456789+-=?", "０１２３４５６７８９＋－＝？")


def made_gibberish(rng: Random) -> str:
    return "".join(rng.choice("asdfghjklqwertyuiopzxcvbnm") for _ in range(rng.randint(3, 8)))


def with_typo(rng: Random, text: str) -> str:
    """Swap two neighbouring letters somewhere outside the slots."""
    at = [
        match.start()
        for match in re.finditer(r"(?<![{])[a-z](?=[a-z])", text)
        if "}" not in text[match.start() : match.start() + 3]
    ]
    if not at:
        return text
    i = rng.choice(at)
    return text[:i] + text[i + 1] + text[i] + text[i + 2 :]


def dialogue(rng: Random, num_turns: int) -> list[Message]:
    """Return a training dialogue with at least `num_turns` exchanges."""
    chat = Dialogue(rng, is_forgetful=rng.random() < 0.4)
    chat.lang = EN if rng.random() < 0.6 else JA
    is_mixed = rng.random() < 0.2
    draw = rng.random()
    if draw < 0.3:
        chat.messages.append(Message("system", rng.choice(SYSTEMS)))
    elif draw < 0.4:
        chat.bot_name = chat.word(person)
        chat.messages.append(Message("system", rng.choice(PERSONAS).format(chat.bot_name)))
    if rng.random() < 0.25:
        chat.greet()
    if rng.random() < 0.6:
        chat.tell(NAME)
    while sum(message.role == "user" for message in chat.messages) < num_turns:
        if is_mixed and rng.random() < 0.3:
            chat.lang = JA if chat.lang == EN else EN
        chat.topic()
    if chat.attributes and rng.random() < 0.6:
        chat.ask(rng.choice(list(chat.attributes.values())))
    return chat.messages
