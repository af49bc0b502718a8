// The page at / of `gpt2 serve`: the model, the key, the settings, completion and chat.

const byId = (id) => document.getElementById(id);
const settings = byId("settings"), about = byId("about"), continuation = byId("continuation"), log = byId("log");
const exchanges = [];
let key = "", isConnecting = false;

// ---- The server

// Says which model is served. While there is no answer, or the model is loading, it tries again.
async function connect() {
  if (isConnecting) return;
  isConnecting = true;
  for (let model; !model; ) {
    try {
      const { data } = await (await ask("v1/models")).json();
      describe(data[0]);
      [model] = data;
    } catch (error) {
      const problem = asProblem(error, "The server does not say which model it has.");
      const isKey = problem.status === 401;
      about.textContent = problem.message + (isKey ? "" : " This page tries again.");
      if (isKey) {
        askForKey();
        break;
      }
      await new Promise((resolve) => setTimeout(resolve, 1000 * (problem.wait || 2)));
    }
  }
  isConnecting = false;
}

function describe(model) {
  byId("model").textContent = model.id;
  document.title = `${model.id} · gpt2 serve`;
  about.textContent = `Window of ${model.max_model_len.toLocaleString("en")} tokens, precision ${model.precision}, on ${model.device}.`;
  byId("guess").hidden = model.prompt_template === "the checkpoint's";
  byId("guess").textContent = `Chat is a guess for this model. Its prompt template: ${model.prompt_template}.`;
}

function askForKey() {
  byId("key-form").hidden = false;
  byId("key").select();
}

byId("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  key = byId("key").value;
  byId("key-form").hidden = true;
  await connect();
  if (!byId("key-form").hidden) return;
  const panel = chat.root.hidden ? completion : chat;
  panel.tell("The server accepts the key.");
  panel.input.focus();
});

// ---- The settings

// The fields of a request that the settings give. Empty fields have the server's default. Null: a field is wrong.
function chosen() {
  const inputs = [...settings.querySelectorAll("[name]")].filter((input) => !input.closest("[hidden]"));
  const wrong = inputs.find((input) => !input.checkValidity());
  if (wrong) {
    show(wrong);
    wrong.reportValidity();
    return null;
  }
  const body = {};
  for (const { name, type, value } of inputs) if (value) body[name] = type === "number" ? Number(value) : value;
  body.seed ??= newSeed();
  if (body.stop) body.stop = body.stop.split("\n").filter(Boolean).map((text) => text.replaceAll("\\n", "\n"));
  return body;
}

const newSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

function show(input) {
  for (let part = input; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
}

byId("new-seed").addEventListener("click", () => { byId("seed").value = newSeed(); });

// ---- Completion

const colour = byId("colour"), append = byId("append"), readout = byId("readout"), hint = readout.textContent;

async function continueText() {
  const body = completion.running ? null : chosen();
  if (!body) return;
  const given = document.createElement("span"), generated = document.createElement("span");
  given.className = "given";
  given.textContent = byId("prompt").value;
  continuation.replaceChildren(given, generated);
  continuation.scrollTop = continuation.scrollHeight;
  append.ariaDisabled = true;
  readout.textContent = hint;
  const growing = new GrowingText(continuation, generated);
  const { words, failed, figures } = await completion.run({ ...body, prompt: given.textContent, logprobs: 5 }, growing);
  completion.tell(`${words} ${figures}`, failed);
  append.ariaDisabled = !generated.textContent;
}

append.addEventListener("click", () => {
  if (append.ariaDisabled === "true") return;
  byId("prompt").value = continuation.textContent;
  byId("prompt").focus();
});

colour.addEventListener("change", () => {
  continuation.classList.toggle("coloured", colour.checked);
  byId("likely").hidden = !colour.checked;
});

for (const kind of ["mouseover", "focusin"]) continuation.addEventListener(kind, ({ target }) => {
  if (colour.checked && target.likely) readout.textContent = target.likely;
});

continuation.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!colour.checked || !step) return;
  const tokens = [...continuation.querySelectorAll("[tabindex]")];
  const at = tokens.indexOf(document.activeElement);
  tokens[Math.max(0, at + step)]?.focus();
  event.preventDefault();
});

// ---- Chat

function send() {
  const message = byId("message"), asked = message.value.trim();
  const body = chat.running ? null : chosen();
  if (!asked || !body) return;
  const element = byId("exchange").content.cloneNode(true).firstElementChild;
  element.querySelector(".asked").textContent = asked;
  exchanges.push({ asked, element, said: element.querySelector(".said") });
  log.append(element);
  message.value = "";
  answerLast(body);
}

// The earlier messages are those with an answer.
async function answerLast(body) {
  const { asked, said, element } = exchanges.at(-1), note = element.querySelector(".note");
  const messages = exchanges.slice(0, -1).filter((earlier) => earlier.said.textContent).flatMap((earlier) => [
    { role: "user", content: earlier.asked }, { role: "assistant", content: earlier.said.textContent },
  ]);
  messages.push({ role: "user", content: asked });
  said.textContent = note.textContent = "";
  log.scrollTop = log.scrollHeight;
  enableForChat();
  const { words, failed, figures } = await chat.run({ ...body, messages }, new GrowingText(log, said));
  note.textContent = failed || !said.textContent ? `${words} ${figures}` : figures;
  chat.tell(words, failed);
}

function enableForChat() { byId("again").ariaDisabled = byId("clear").ariaDisabled = !exchanges.length; }

byId("again").addEventListener("click", () => {
  const body = chat.running || !exchanges.length ? null : chosen();
  if (body) answerLast(body);
});
byId("clear").addEventListener("click", () => {
  chat.running?.abort();
  exchanges.length = 0;
  log.replaceChildren();
  enableForChat();
  byId("message").focus();
});

const completion = new Panel("completion", "v1/completions", "prompt", continueText);
const chat = new Panel("chat", "v1/chat/completions", "message", send);

// ---- The tabs

const tabs = [...document.querySelectorAll("[role=tab]")];

function choose(chosenTab) {
  for (const tab of tabs) {
    const isChosen = tab === chosenTab, kind = tab.getAttribute("aria-controls");
    tab.ariaSelected = isChosen;
    tab.tabIndex = isChosen ? 0 : -1;
    byId(kind).hidden = !isChosen;
    settings.querySelector(`[data-for="${kind}"]`).hidden = !isChosen;
  }
  log.scrollTop = log.scrollHeight; // a hidden box forgets where it was
}

for (const tab of tabs) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = tabs.find((each) => each !== tab);
    choose(other);
    other.focus();
  });
}

choose(tabs[0]);
if (matchMedia("(max-width: 56rem)").matches) settings.querySelector("details").open = false;
settings.addEventListener("submit", (event) => event.preventDefault());
connect();
