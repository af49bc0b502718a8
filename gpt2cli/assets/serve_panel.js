// What completion and chat have in common: their buttons, their status, a request and its answer.

class Panel {
  constructor(id, path, input, send) {
    this.root = byId(id);
    this.path = path;
    this.input = byId(input);
    this.find(".send").addEventListener("click", send);
    this.find(".stop").addEventListener("click", () => this.running?.abort());
    this.root.addEventListener("keydown", (event) => { if (event.key === "Escape") this.running?.abort(); });
    this.input.addEventListener("keydown", (event) => {
      const isSend = id === "chat" ? !event.shiftKey : event.ctrlKey || event.metaKey;
      const isComposing = event.isComposing || event.keyCode === 229; // Enter ends a word of Chinese or Japanese
      if (event.key !== "Enter" || !isSend || isComposing) return;
      event.preventDefault();
      send();
    });
  }

  find(selector) { return this.root.querySelector(selector); }

  tell(words, failed = false) {
    this.find(".status").textContent = words;
    this.find(".status").classList.toggle("failed", failed);
  }

  // Asks for a text, and gives its pieces to `growing`. Returns the words for how it ended, and figures about it.
  async run(body, growing) {
    const begun = performance.now(), seed = body.seed, found = { pieces: 0 };
    this.running = new AbortController();
    this.setBusy(true);
    this.tell("Reading the prompt …");
    let words, problem;
    try {
      await this.read({ ...body, stream: true, stream_options: { include_usage: true } }, growing, found);
      words = found.reason === "length" ? "Max tokens reached." : "The text has ended.";
    } catch (error) {
      if (this.running.signal.aborted) words = "Stopped.";
      else problem = asProblem(error, "The text broke off: the connection to the server ended.");
    }
    this.running.abort();
    this.running = null;
    this.setBusy(false);
    if (problem) this.report(problem);
    return { words: words ?? problem.message, failed: Boolean(problem), figures: figures(found, begun, seed) };
  }

  async read(body, growing, found) {
    const response = await ask(this.path, body, this.running.signal);
    for await (const { error, usage, choices } of events(response)) {
      if (error) throw new Problem(sentence(error.message), { status: 500 });
      found.usage = usage ?? found.usage;
      if (!choices.length) continue;
      const [choice] = choices, text = choice.text ?? choice.delta.content ?? "";
      found.reason = choice.finish_reason ?? found.reason;
      found.last = performance.now();
      if (text && !found.pieces++) {
        found.first = found.last;
        this.tell("Writing …");
      }
      growing.add(text, choice.logprobs ?? undefined);
    }
  }

  setBusy(isBusy) {
    this.root.classList.toggle("busy", isBusy);
    this.find(".send").ariaDisabled = isBusy;
    this.find(".stop").ariaDisabled = !isBusy;
  }

  // Marks the field that is wrong, asks for the key, or waits for the server.
  report({ status, param }) {
    const input = settings.querySelector(`p:not([hidden]) > [name="${CSS.escape(param ?? "")}"]`);
    if (input) {
      show(input);
      input.ariaInvalid = true;
      input.addEventListener("input", () => { input.ariaInvalid = false; }, { once: true });
    }
    if (status === 401) askForKey();
    if (status === 0 || status === 503) connect();
  }
}

const SHORTEST_TIME = 100; // milliseconds: a browser may get several tokens at once, so a shorter time tells no speed

function figures({ usage, first, last, pieces }, begun, seed) {
  const parts = [], tokens = usage?.completion_tokens ?? pieces;
  if (usage) parts.push(`${usage.prompt_tokens} prompt tokens, ${tokens} new`);
  else if (pieces) parts.push(`About ${tokens} new tokens`);
  if (first) parts.push(`first token after ${((first - begun) / 1000).toFixed(2)} s`);
  if (tokens > 1 && last - first > SHORTEST_TIME) parts.push(`then ${((1000 * (tokens - 1)) / (last - first)).toFixed(1)} tokens/s`);
  return parts.length ? [...parts, `seed ${seed}`].join(" · ") : "";
}
