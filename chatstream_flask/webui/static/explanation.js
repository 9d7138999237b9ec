/** Explanations of errors for the user. */

import { Unreachable } from "./api.js";
import { roughly, word } from "./i18n.js";

const KEYS = {
  too_many_requests: "error_full",
  conversation_busy: "error_busy",
  prompt_too_long: "error_too_long",
  body_too_large: "error_too_long",
  signed_out: "error_signed_out",
  too_many_conversations: "too_many",
  refused: "refused",
  hook_failed: "error_failed",
};
const KEYS_OF_STATUS = { 401: "error_signed_out", 403: "error_signed_out", 404: "error_not_found", 429: "error_full" };

export function explain(error) {
  if (error instanceof Unreachable) return word("error_connection");
  const key = KEYS[error.code] ?? KEYS_OF_STATUS[error.status];
  if (key) return word(key, { time: roughly(error.retryAfterSec), detail: error.detail });
  if (error.status >= 502 && error.status <= 504) {
    return word("error_unavailable", { time: roughly(error.retryAfterSec) });
  }
  if (error.status === 400 || error.status === 413) return word("error_bad_request", { detail: error.detail });
  return word("error_unexpected", { detail: `${error.status} ${error.code}` });
}
