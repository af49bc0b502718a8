// Requests to the server, and texts that grow while their answer comes.
// Texts get into the page as text nodes only, because a model may write HTML.

class Problem extends Error {
  constructor(message, { status = 0, param = null, wait = 0 } = {}) {
    super(message);
    Object.assign(this, { status, param, wait });
  }
}

const asProblem = (error, words) => (error instanceof Problem ? error : new Problem(words));

async function ask(path, body, signal) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", body: JSON.stringify(body), headers, signal, cache: "no-store" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem("The server does not answer. Is it running?");
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

async function problemOf(response) {
  const { error } = await response.json().catch(() => ({}));
  const { status } = response, wait = Number(response.headers.get("Retry-After")) || 0;
  let words = error?.message ? sentence(error.message) : `The server answered with status ${status}.`;
  if (status === 401) words = key ? "The server does not accept this API key." : "The server asks for an API key.";
  if (status === 429) words = `The server has too many requests at the moment. Try again${wait ? ` in ${wait} s` : " later"}.`;
  return new Problem(words, { status, wait, param: error?.param });
}

// A message of the server as a sentence. The name of a field stays as it is.
function sentence(text) {
  const first = /^\w*_/.test(text) ? text.charAt(0) : text.charAt(0).toUpperCase();
  return first + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

// The JSON objects of a stream, which is read to its end: a server may take a closed connection for a client that left.
// Lines that begin with a colon say only that the server is still there.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = "", isComplete = false; ; ) {
    const { value, done } = await reader.read();
    if (done && isComplete) return;
    if (done) throw new Error("the stream is not complete");
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "data: [DONE]") isComplete = true;
      else if (line.startsWith("data: ")) yield JSON.parse(line.slice(6));
    }
  }
}

// ---- A text that grows

const PROBABILITIES = [0.5, 0.2, 0.05, 0.01];
const percent = (logprob) => { const value = 100 * Math.exp(logprob); return `${value < 0.1 ? "<0.1" : value.toFixed(1)} %`; };
const visible = (token) => `“\u2068${token.replaceAll(" ", "·").replaceAll("\n", "↵")}\u2069”`;

// The bytes of a token. One that is not UTF-8 comes as "bytes:\xe2\x80".
function bytesOf(token) {
  const encode = (text) => [...new TextEncoder().encode(text)];
  if (!token.startsWith("bytes:")) return Uint8Array.from(encode(token));
  const parts = [...token.slice(6).matchAll(/\\x([0-9a-f]{2})|./gsu)];
  return Uint8Array.from(parts.flatMap(([part, hex]) => (hex ? parseInt(hex, 16) : encode(part))));
}

// Text with known tokens has an element for each. The rest is one text node behind them.
class GrowingText {
  constructor(box, element) {
    this.box = box;
    this.element = element;
    this.rest = element.appendChild(document.createTextNode(""));
    this.decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  }

  // The box scrolls along if its end is visible.
  add(text, { tokens = [], token_logprobs, top_logprobs } = {}) {
    const { box, rest } = this, isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
    rest.appendData(text);
    tokens.forEach((token, i) => {
      const length = this.decoder.decode(bytesOf(token), { stream: true }).length;
      if (length && rest.length) this.addToken(rest.data.slice(0, length), token, token_logprobs[i], top_logprobs[i]);
      rest.deleteData(0, Math.min(length, rest.length));
    });
    if (isAtEnd) box.scrollTop = box.scrollHeight;
  }

  addToken(text, token, logprob, top) {
    const element = document.createElement("span");
    const others = Object.entries(top).filter(([other]) => other !== token).sort((a, b) => b[1] - a[1]);
    const listed = others.map(([other, value]) => `${visible(other)} ${percent(value)}`).join(", ");
    element.textContent = text;
    element.tabIndex = -1;
    element.className = `p${PROBABILITIES.filter((least) => Math.exp(logprob) < least).length}`;
    element.likely = `${visible(token)} had ${percent(logprob)}. Likeliest others: ${listed}.`;
    this.element.insertBefore(element, this.rest);
  }
}
