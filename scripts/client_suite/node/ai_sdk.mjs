// Vercel's AI SDK: its provider for OpenAI, with its default (responses) and with chat, and that for compatible servers.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { API_KEY, BASE_URL, checkAnswer, MODEL, QUESTION, run, TOO_LONG } from "./cells.mjs";

const openai = createOpenAI({ baseURL: BASE_URL, apiKey: API_KEY });
const compatible = createOpenAICompatible({
  name: "ours",
  baseURL: BASE_URL,
  apiKey: API_KEY,
  supportsStructuredOutputs: true,
});
const models = [openai(MODEL), openai.chat(MODEL), compatible(MODEL)];
const schema = z.object({ name: z.string().max(12), age: z.number().int().min(0).max(120) });
const tools = {
  weather: tool({
    description: "Tell the weather of a city.",
    inputSchema: z.object({ city: z.enum(["Paris", "Rome"]) }),
    execute: async () => "sunny",
  }),
};
const options = { prompt: QUESTION, temperature: 0, maxRetries: 0 };

await run({
  async chat() {
    for (const model of models) checkAnswer((await generateText({ model, ...options })).text);
  },
  async stream() {
    for (const model of models) checkAnswer(await streamText({ model, ...options }).text);
  },
  async tools() {
    for (const model of models) {
      const { toolResults } = await generateText({ model, tools, toolChoice: "required", ...options });
      assert.equal(toolResults[0].output, "sunny");
      await generateText({ model, tools, stopWhen: stepCountIs(3), ...options });
    }
  },
  async structured() {
    for (const model of models) {
      schema.parse((await generateText({ model, output: Output.object({ schema }), ...options })).output);
      const both = { tools, output: Output.object({ schema }), stopWhen: stepCountIs(3) };
      schema.parse((await generateText({ model, ...both, ...options })).output);
    }
  },
  async resume() {
    const first = await generateText({ model: openai(MODEL), ...options });
    const previousResponseId = first.providerMetadata.openai.responseId;
    const again = { ...options, prompt: "Again.", providerOptions: { openai: { previousResponseId } } };
    assert.ok((await generateText({ model: openai(MODEL), ...again })).text);
  },
  async errors() {
    for (const model of models) {
      await assert.rejects(generateText({ model, ...options, prompt: TOO_LONG }), (error) => {
        return APICallError.isInstance(error) && error.message.includes("maximum context length");
      });
    }
  },
});
