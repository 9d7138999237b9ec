// LangChain, for Node.
import assert from "node:assert/strict";
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI } from "@langchain/openai";
import { z } from "zod";
import { checkAnswer, MODEL, QUESTION, run, TOO_LONG } from "./cells.mjs";

const models = [true, false].map((useResponsesApi) => {
  return new ChatOpenAI({ model: MODEL, temperature: 0, maxRetries: 0, useResponsesApi });
});
const schema = z.object({ name: z.string().max(12), age: z.number().int().min(0).max(120) });
const weather = tool(async () => "sunny", {
  name: "weather",
  description: "Tell the weather of a city.",
  schema: z.object({ city: z.enum(["Paris", "Rome"]) }),
});

await run({
  async chat() {
    for (const model of models) checkAnswer((await model.invoke(QUESTION)).text);
  },
  async stream() {
    for (const model of models) {
      let text = "";
      for await (const chunk of await model.stream(QUESTION)) text += chunk.text;
      checkAnswer(text);
    }
  },
  async tools() {
    for (const model of models) {
      const asked = await model.bindTools([weather], { tool_choice: "weather" }).invoke(QUESTION);
      const [call] = asked.tool_calls;
      const result = new ToolMessage({ content: "sunny", tool_call_id: call.id });
      await model.bindTools([weather]).invoke([new HumanMessage(QUESTION), asked, result]);
    }
  },
  async structured() {
    for (const model of models) {
      for (const method of ["jsonSchema", "functionCalling"]) {
        schema.parse(await model.withStructuredOutput(schema, { method, name: "person" }).invoke(QUESTION));
      }
    }
  },
  async resume() {
    const first = await models[0].invoke(QUESTION);
    const again = await models[0].invoke("Again.", { previous_response_id: first.response_metadata.id });
    assert.ok(again.text);
  },
  async errors() {
    for (const model of models) {
      await assert.rejects(model.invoke(TOO_LONG), { name: "ContextOverflowError" });
    }
  },
});
