// What the scripts of Node clients share; python/cells.py says how they are told.
import assert from "node:assert/strict";

export const BASE_URL = process.env.OPENAI_BASE_URL;
export const API_KEY = process.env.OPENAI_API_KEY;
export const MODEL = process.env.CLIENT_MODEL;
export const QUESTION = "What is the capital of France?";
export const MESSAGES = [{ role: "user", content: QUESTION }];
export const TOO_LONG = "a long text ".repeat(4000);
export const PERSON = {
  type: "object",
  properties: { name: { type: "string", maxLength: 12 }, age: { type: "integer", minimum: 0, maximum: 120 } },
  required: ["name", "age"],
  additionalProperties: false,
};

export function checkAnswer(text) {
  assert.ok(text?.includes("Paris"), `the answer is ${text}`);
}

export async function run(cells) {
  for (const [cell, check] of Object.entries(cells)) {
    let result = "ok";
    try {
      await check();
    } catch (error) {
      result = `failed: ${error.name}: ${error.message}`;
    }
    console.log(JSON.stringify({ cell, result: result.slice(0, 400) }));
  }
}
