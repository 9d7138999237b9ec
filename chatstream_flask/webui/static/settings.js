/** The dialog for the generation settings of the conversation. */

import { announce } from "./announcer.js";
import { Refused } from "./api.js";
import { element } from "./element.js";
import { explain } from "./explanation.js";
import { word } from "./i18n.js";

const FIELDS = [
  { name: "temperature", type: "range", min: 0, max: 2, step: 0.05 },
  { name: "top_p", type: "range", min: 0.05, max: 1, step: 0.05 },
  { name: "top_k", type: "number", min: 0, max: 1_000_000, step: 1, empty: "settings_off" },
  { name: "repetition_penalty", type: "number", min: 0.01, max: 100, step: "any", empty: "settings_off" },
  { name: "max_new_tokens", type: "number", min: 1, step: 1 },
  { name: "seed", type: "number", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, empty: "settings_random" },
  // Shown if the model's reasoning has them; the values of choices are JSON.
  { name: "enable_thinking", reasoning: true, choices: { null: "by_model", true: "on", false: "off" } },
  {
    name: "reasoning_effort",
    reasoning: true,
    choices: { null: "by_model", '"low"': "low", '"medium"': "medium", '"high"': "high", '"max"': "max" },
  },
  { name: "max_reasoning_tokens", reasoning: true, type: "number", min: 0, step: 1, empty: "settings_no_limit" },
];

export class Settings {
  constructor({ dialog, form, fields, problem, resetButton, cancelButton }, apiOfNow) {
    Object.assign(this, { dialog, problem, apiOfNow });
    this.inputs = new Map(FIELDS.map((field) => [field.name, makeInput(field)]));
    this.edited = new Set(); // inputs that the user has changed since the dialog was opened
    for (const input of this.inputs.values()) {
      input.addEventListener("input", (event) => event.isTrusted && this.edited.add(input));
    }
    this.rows = new Map(FIELDS.map((field) => [field.name, row(field, this.inputs.get(field.name))]));
    fields.append(...this.rows.values());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#try(() => this.#save());
    });
    resetButton.addEventListener("click", () => this.#try(() => this.#reset()));
    cancelButton.addEventListener("click", () => dialog.close());
  }

  async open() {
    this.api = this.apiOfNow();
    this.edited.clear();
    this.shown = null;
    this.dialog.showModal();
    this.loading = this.#try(() => this.#load());
    await this.loading;
  }

  async #load() {
    this.#show(await this.api.generationParams());
  }

  async #save() {
    await this.loading;
    if (!this.shown) await this.#load(); // it had failed
    const changed = {};
    for (const [name, input] of this.inputs) {
      const value = valueOf(input);
      if (value !== undefined && value !== this.shown[name]) changed[name] = value;
    }
    if (Object.keys(changed).length) await this.api.setGenerationParams(changed);
    this.dialog.close();
    announce(word("saved"));
  }

  async #reset() {
    const answer = await this.api.setGenerationParams(null);
    this.edited.clear();
    this.#show(answer);
  }

  /** Fill in what the server has, except where the user was quicker. */
  #show({ generation_params: params, reasoning_settings: reasoningSettings }) {
    this.shown = {};
    for (const { name, reasoning } of FIELDS) {
      this.rows.get(name).hidden = Boolean(reasoning) && !reasoningSettings.includes(name);
    }
    for (const [name, input] of this.inputs) {
      const typed = input.value;
      input.value = input.matches("select") ? JSON.stringify(params[name]) : params[name] ?? "";
      this.shown[name] = input.type === "range" ? Number(input.value) : params[name] ?? null;
      if (this.edited.has(input)) input.value = typed;
      input.dispatchEvent(new Event("input"));
    }
  }

  async #try(work) {
    this.problem.hidden = true;
    try {
      await work();
    } catch (error) {
      const isBusy = error instanceof Refused && error.code === "conversation_busy";
      this.problem.textContent = isBusy ? word("settings_busy") : explain(error);
      this.problem.hidden = false;
    }
  }
}

function makeInput({ name, choices, empty, reasoning, ...attributes }) {
  const common = { id: `setting-${name}`, "aria-describedby": `setting-${name}-note` };
  if (choices) {
    const option = ([value, key]) => element("option", { value }, word(`settings_${key}`));
    return element("select", common, ...Object.entries(choices).map(option));
  }
  return element("input", {
    ...attributes,
    ...common,
    placeholder: empty && word(empty),
    required: !empty,
    inputmode: attributes.step === 1 ? "numeric" : "decimal",
  });
}

/** @return undefined for a choice that the dialog does not offer, and that the user has not changed */
function valueOf(input) {
  if (input.matches("select")) return input.value ? JSON.parse(input.value) : undefined;
  return input.value === "" ? null : Number(input.value);
}

function row({ name, type, reasoning }, input) {
  const label = element("label", { for: input.id }, word(`settings_${name}`));
  const note = element("p", { id: `setting-${name}-note` }, word(`settings_${name}_note`));
  if (type !== "range") return element("div", { class: "setting", hidden: reasoning }, label, input, note);
  const output = element("output", { for: input.id });
  input.addEventListener("input", () => (output.value = Number(input.value).toFixed(2)));
  return element("div", { class: "setting has-range" }, label, output, input, note);
}
