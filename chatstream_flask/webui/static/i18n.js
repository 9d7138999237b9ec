/** All texts of the page, in English and Japanese. */

export const WORDS = {
  en: {
    answer_now: "Answer now",
    assistant: "Assistant",
    assistant_said: "Reply",
    cancel: "Cancel",
    code: "code",
    composer_label: "Your message",
    composer_placeholder: "Write a message",
    connection_lost: "The connection is lost. Trying again in {time}.",
    connection_trying: "The connection is lost. Trying again …",
    conversation: "Conversation",
    copied: "Copied",
    copy: "Copy",
    copy_code: "Copy code",
    copy_failed: "Copying is not allowed here",
    details: "Figures of this reply",
    detail_first_token: "first token after {time}",
    detail_prompt: "{n} tokens read",
    detail_queue: "waited {time}",
    detail_speed: "{n} tokens/s",
    detail_tokens: "{n} tokens",
    detail_total: "{time} in all",
    discard: "Discard",
    dislike: "Bad reply",
    edit: "Edit",
    edit_label: "Edit your message",
    edit_send: "Send",
    edit_note: "What came after it will be replaced.",
    error_bad_request: "The server did not accept this: {detail}",
    error_busy: "Another tab or device is waiting for a reply in this conversation.",
    error_connection: "The server could not be reached, so this was not sent.",
    error_failed: "The reply failed on the server. Nothing of it was kept.",
    error_full: "All places are taken right now. Please try again in {time}.",
    error_lost: "The server was restarted before this reply was finished.",
    error_not_found: "The server does not know this message any more.",
    error_signed_out: "You are signed out. Reload the page to sign in again.",
    error_stopped: "Stopped before the reply began.",
    error_too_long: "This message is too long for the model.",
    error_unsent: "This was not sent.",
    error_unavailable: "The server is not ready. Please try again in {time}.",
    error_unexpected: "The server gave an answer that this page does not understand ({detail}).",
    example_1: "My name is Hanako.",
    example_2: "What is the capital of Japan?",
    example_3: "Count from 1 to 10.",
    example_4: "Tell me a story.",
    examples: "Examples",
    greeting: "What would you like to talk about?",
    hint: "Enter to send, Shift + Enter for a new line",
    interrupted: "This reply was interrupted.",
    length: "This reply ended at its greatest length.",
    like: "Good reply",
    new_conversation: "New conversation",
    new_conversation_confirm: "Start new",
    new_conversation_save: "Save as a file",
    new_conversation_text: "The present conversation will be deleted.",
    new_conversation_title: "Start a new conversation?",
    queue_eta: "Place {n} in the queue, {eta}",
    queue_next: "You are next",
    queue_next_eta: "You are next, {eta}",
    queue_place: "Place {n} in the queue",
    reasoned: "Reasoned for {time}",
    reasoning: "Reasoning",
    reasons: "Reasoning, {time}",
    refused: "{detail}",
    regenerate: "Regenerate",
    reply_begins: "The reply is being written.",
    retry_now: "Try now",
    save: "Save",
    saved: "Saved",
    scroll_down: "To the newest message",
    about: "about {time}",
    send: "Send",
    send_again: "Send again",
    settings: "Settings",
    settings_busy: "Wait until the reply is finished, then save again.",
    settings_by_model: "as the model does",
    settings_enable_thinking: "Reasoning",
    settings_enable_thinking_note: "Whether the model thinks before it answers.",
    settings_high: "high",
    settings_low: "low",
    settings_max: "greatest",
    settings_max_new_tokens: "Longest reply",
    settings_max_new_tokens_note: "Tokens.",
    settings_max_reasoning_tokens: "Longest reasoning",
    settings_max_reasoning_tokens_note: "Tokens; then the model has to answer.",
    settings_medium: "medium",
    settings_no_limit: "as it fits",
    settings_off: "off",
    settings_on: "on",
    settings_random: "random",
    settings_reasoning_effort: "Effort of reasoning",
    settings_reasoning_effort_note: "How much the model thinks.",
    settings_repetition_penalty: "Repetition penalty",
    settings_repetition_penalty_note: "Above 1 makes repetitions rarer.",
    settings_reset: "Reset",
    settings_seed: "Seed",
    settings_seed_note: "The same whole number gives the same reply again.",
    settings_temperature: "Temperature",
    settings_temperature_note: "0 always takes the likeliest word; higher is livelier.",
    settings_text: "For the replies of this conversation.",
    settings_top_k: "Top k",
    settings_top_k_note: "Choose among the k likeliest tokens.",
    settings_top_p: "Top p",
    settings_top_p_note: "Choose among the likeliest tokens that together have this probability.",
    skip: "Skip to the message field",
    sources: "Sources",
    step_allow: "Allow",
    step_confirm: "{name}: may it be called?",
    step_decline: "Decline",
    step_declined: "{name}: declined",
    step_done: "{name}: done",
    step_failed: "{name}: failed",
    step_running: "{name}: running",
    steps: "Function calls",
    stop: "Stop",
    theme: "Colours",
    theme_dark: "Colours: dark",
    theme_light: "Colours: light",
    theme_system: "Colours: as the system",
    thinking: "Thinking …",
    timeout: "This reply ran out of time.",
    truncated: "The conversation is longer than the model can read; its oldest {n} turns were left out here.",
    truncated_one: "The conversation is longer than the model can read; its oldest turn was left out here.",
    watch: "Watch it",
    you: "You",
    you_said: "You said",
  },
  ja: {
    answer_now: "すぐに回答",
    assistant: "アシスタント",
    assistant_said: "返信",
    cancel: "キャンセル",
    code: "コード",
    composer_label: "メッセージ",
    composer_placeholder: "メッセージを入力",
    connection_lost: "接続が切れました。{time}後に再接続します。",
    connection_trying: "接続が切れました。再接続しています…",
    conversation: "会話",
    copied: "コピーしました",
    copy: "コピー",
    copy_code: "コードをコピー",
    copy_failed: "ここではコピーできません",
    details: "この返信の数値",
    detail_first_token: "最初のトークンまで {time}",
    detail_prompt: "入力 {n} トークン",
    detail_queue: "待ち時間 {time}",
    detail_speed: "{n} トークン/秒",
    detail_tokens: "{n} トークン",
    detail_total: "合計 {time}",
    discard: "破棄",
    dislike: "良くない返信",
    edit: "編集",
    edit_label: "メッセージを編集",
    edit_send: "送信",
    edit_note: "これより後のやり取りは置き換えられます。",
    error_bad_request: "サーバーが受け付けませんでした：{detail}",
    error_busy: "別のタブまたは端末が、この会話の返信を待っています。",
    error_connection: "サーバーに接続できず、送信できませんでした。",
    error_failed: "サーバーで返信に失敗しました。この返信は保存されていません。",
    error_full: "ただいま満員です。{time}後にもう一度お試しください。",
    error_lost: "返信の途中でサーバーが再起動しました。",
    error_not_found: "このメッセージはサーバーに残っていません。",
    error_signed_out: "ログアウトしています。ページを再読み込みしてログインしてください。",
    error_stopped: "返信が始まる前に停止しました。",
    error_too_long: "このメッセージはモデルには長すぎます。",
    error_unsent: "送信されていません。",
    error_unavailable: "サーバーの準備ができていません。{time}後にもう一度お試しください。",
    error_unexpected: "サーバーの応答を理解できませんでした（{detail}）。",
    example_1: "私の名前は花子です。",
    example_2: "日本の首都はどこですか？",
    example_3: "1から10まで数えてください。",
    example_4: "お話を聞かせてください。",
    examples: "例",
    greeting: "何について話しましょうか？",
    hint: "Enter で送信、Shift + Enter で改行",
    interrupted: "この返信は途中で中断されました。",
    length: "この返信は最大の長さで終わりました。",
    like: "良い返信",
    new_conversation: "新しい会話",
    new_conversation_confirm: "新しく始める",
    new_conversation_save: "ファイルに保存",
    new_conversation_text: "現在の会話は削除されます。",
    new_conversation_title: "新しい会話を始めますか？",
    queue_eta: "順番待ち {n} 番目、{eta}",
    queue_next: "次があなたの番です",
    queue_next_eta: "次があなたの番です、{eta}",
    queue_place: "順番待ち {n} 番目",
    reasoned: "{time}考えました",
    reasoning: "思考の過程",
    reasons: "考えています（{time}）",
    refused: "{detail}",
    regenerate: "再生成",
    reply_begins: "返信を書いています。",
    retry_now: "今すぐ再接続",
    save: "保存",
    saved: "保存しました",
    scroll_down: "最新のメッセージへ",
    about: "約{time}",
    send: "送信",
    send_again: "もう一度送信",
    settings: "設定",
    settings_busy: "返信が終わってから、もう一度保存してください。",
    settings_by_model: "モデルに任せる",
    settings_enable_thinking: "思考",
    settings_enable_thinking_note: "答える前に考えるかどうか。",
    settings_high: "高",
    settings_low: "低",
    settings_max: "最大",
    settings_max_new_tokens: "返信の最大の長さ",
    settings_max_new_tokens_note: "トークン数。",
    settings_max_reasoning_tokens: "思考の最大の長さ",
    settings_max_reasoning_tokens_note: "トークン数。超えると答えに移ります。",
    settings_medium: "中",
    settings_no_limit: "入るだけ",
    settings_off: "なし",
    settings_on: "あり",
    settings_random: "ランダム",
    settings_reasoning_effort: "思考の深さ",
    settings_reasoning_effort_note: "どれくらい考えるか。",
    settings_repetition_penalty: "繰り返しペナルティ",
    settings_repetition_penalty_note: "1より大きいほど、同じ言葉の繰り返しが減ります。",
    settings_reset: "リセット",
    settings_seed: "シード",
    settings_seed_note: "同じ整数なら同じ返信になります。",
    settings_temperature: "温度",
    settings_temperature_note: "0は常に最も確からしい語を選び、大きいほど多様になります。",
    settings_text: "この会話の返信に使われます。",
    settings_top_k: "Top k",
    settings_top_k_note: "確率の高い k 個のトークンから選びます。",
    settings_top_p: "Top p",
    settings_top_p_note: "確率の合計がこの値になるまでの上位トークンから選びます。",
    skip: "メッセージ欄へ移動",
    sources: "出典",
    step_allow: "許可する",
    step_confirm: "{name}: 実行してもよいですか？",
    step_decline: "断る",
    step_declined: "{name}: 断りました",
    step_done: "{name}: 完了",
    step_failed: "{name}: 失敗",
    step_running: "{name}: 実行中",
    steps: "関数の呼び出し",
    stop: "停止",
    theme: "配色",
    theme_dark: "配色：ダーク",
    theme_light: "配色：ライト",
    theme_system: "配色：システムに合わせる",
    thinking: "考えています…",
    timeout: "この返信は時間切れになりました。",
    truncated: "会話がモデルの読める長さを超えたため、古い {n} 回分のやり取りは読まれていません。",
    truncated_one: "会話がモデルの読める長さを超えたため、最も古いやり取りは読まれていません。",
    watch: "見る",
    you: "あなた",
    you_said: "あなたの発言",
  },
};

let language = "en";

/** Return the first preferred language that has texts. */
export function chooseLanguage(wanted) {
  const known = wanted.map((tag) => tag.toLowerCase().split("-")[0]).find((tag) => Object.hasOwn(WORDS, tag));
  language = known ?? "en";
  return language;
}

export function word(key, values = {}) {
  return WORDS[language][key].replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** Return a text of the site, which is one for all languages or one for each. */
export function ownText(text) {
  return text !== null && typeof text === "object" && !Array.isArray(text)
    ? text[language] ?? Object.values(text)[0]
    : text;
}

/** Fill in the texts that `data-word`, `data-word-label` and `data-word-placeholder` name. */
export function fillWords(root) {
  for (const element of root.querySelectorAll("[data-word]")) element.textContent = word(element.dataset.word);
  for (const element of root.querySelectorAll("[data-word-label]")) label(element, element.dataset.wordLabel);
  for (const element of root.querySelectorAll("[data-word-placeholder]")) {
    element.placeholder = word(element.dataset.wordPlaceholder);
  }
}

/** Set the label of an icon button. */
export function label(element, key) {
  element.setAttribute("aria-label", word(key));
  if (element.matches("button")) element.title = word(key);
}

/** Round a duration as people say it: 3 seconds, 20 seconds, 2 minutes. */
export function roughly(seconds) {
  if (seconds < 10) return duration(Math.max(1, Math.ceil(seconds)), "second");
  if (seconds < 60) return duration(Math.ceil(seconds / 5) * 5, "second");
  return duration(Math.ceil(seconds / 60), "minute");
}

export function exactly(milliseconds) {
  const seconds = milliseconds / 1000;
  return duration(Number(seconds.toFixed(seconds < 10 ? 2 : 1)), "second", "narrow");
}

/** In whole seconds, or minutes and seconds. */
export function inSeconds(seconds) {
  const whole = Math.round(seconds);
  const rest = duration(whole % 60, "second");
  return whole < 60 ? rest : `${duration(Math.floor(whole / 60), "minute")} ${rest}`;
}

function duration(number, unit, unitDisplay = "long") {
  return new Intl.NumberFormat(language, { style: "unit", unit, unitDisplay }).format(number);
}
