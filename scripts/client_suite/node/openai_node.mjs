// openai: OpenAI's package for Node.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { checkAnswer, MESSAGES, MODEL, QUESTION, run, TOO_LONG } from "./cells.mjs";

const client = new OpenAI();
const Person = z.object({ name: z.string().max(12), age: z.number().int().min(0).max(120) });

await run({
  async chat() {
    const answer = await client.chat.completions.create({ model: MODEL, messages: MESSAGES });
    checkAnswer(answer.choices[0].message.content);
    checkAnswer((await client.responses.create({ model: MODEL, input: QUESTION })).output_text);
  },
  async stream() {
    const stream = client.chat.completions.stream({ model: MODEL, messages: MESSAGES });
    checkAnswer(await stream.finalContent());
    checkAnswer((await client.responses.stream({ model: MODEL, input: QUESTION }).finalResponse()).output_text);
  },
  async tools() {
    const tools = [zodFunction({ name: "save", parameters: Person })];
    const asked = await client.chat.completions.parse({ model: MODEL, messages: MESSAGES, tools, tool_choice: "required" });
    const [call] = asked.choices[0].message.tool_calls;
    Person.parse(call.function.parsed_arguments);
    const result = { role: "tool", tool_call_id: call.id, content: "saved" };
    await client.chat.completions.create({ model: MODEL, messages: [...MESSAGES, asked.choices[0].message, result], tools });
  },
  async structured() {
    const response_format = zodResponseFormat(Person, "person");
    const answer = await client.chat.completions.parse({ model: MODEL, messages: MESSAGES, response_format });
    Person.parse(answer.choices[0].message.parsed);
    const text = { format: zodTextFormat(Person, "person") };
    Person.parse((await client.responses.parse({ model: MODEL, input: QUESTION, text })).output_parsed);
  },
  async resume() {
    const events = await client.responses.create({ model: MODEL, input: QUESTION, background: true, stream: true });
    let last;
    for await (const event of events) {
      last = event;
      if (event.sequence_number === 2) break;
    }
    let id = last.response.id;
    for await (const event of await client.responses.retrieve(id, { stream: true, starting_after: 2 })) {
      assert.equal(event.sequence_number, last.sequence_number + 1);
      last = event;
    }
    assert.equal(last.type, "response.completed");
    const again = await client.responses.create({ model: MODEL, input: "Again.", previous_response_id: id });
    assert.ok(again.output_text);
  },
  async errors() {
    await assert.rejects(client.chat.completions.create({ model: "gpt-9", messages: MESSAGES }), (error) => {
      return error instanceof OpenAI.NotFoundError && error.code === "model_not_found";
    });
    const messages = [{ role: "user", content: TOO_LONG }];
    await assert.rejects(client.chat.completions.create({ model: MODEL, messages }), (error) => {
      return error instanceof OpenAI.BadRequestError && error.code === "context_length_exceeded";
    });
  },
});
