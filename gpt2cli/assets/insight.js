// Draws the attention patterns, and answers the mouse and the keyboard. The tables of the page need no script.
const { found, names, scores } = JSON.parse(document.getElementById("data").textContent);
const size = names.length;
const byId = (id) => document.getElementById(id);
const shown = (value, digits = 2) => (value === null ? "–" : value.toFixed(digits).replace("-", "−"));

// One cell is in the tab order, the arrow keys move over the others, as ARIA advises for grids.
function moveWithArrows(container, cells) {
  const columns = (visible) => visible.filter((cell) => cell.offsetTop === visible[0].offsetTop).length;
  cells().forEach((cell, i) => { cell.tabIndex = i ? -1 : 0; });
  container.addEventListener("focusin", (event) => {
    const focused = cells().find((cell) => cell.contains(event.target));
    if (focused) cells().forEach((cell) => { cell.tabIndex = cell === focused ? 0 : -1; });
  });
  container.addEventListener("keydown", (event) => {
    const visible = cells();
    const at = visible.indexOf(document.activeElement);
    const ends = { Home: 0, End: visible.length - 1 };
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(visible), ArrowDown: columns(visible) };
    const next = event.key in ends ? ends[event.key] : at + steps[event.key];
    if (at < 0 || !visible[next]) return;
    event.preventDefault();
    visible[next].focus();
  });
}

// The prompt: a chosen token shows its alternatives, which stand in a table of the page.
const prompt = byId("prompt");
if (prompt) {
  const buttons = [...prompt.querySelectorAll("button")];
  const choose = (place) => {
    const row = found.tokens[place];
    const table = document.querySelector(`table[data-place="${place}"]`);
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", i === place));
    const line = document.createElement("p");
    line.textContent = table
      ? `${names[place]} has rank ${row.rank}, surprisal ${shown(-row.logprob / Math.LN2)} bits. ` +
        `The prediction's entropy is ${shown(row.entropy / Math.LN2)} bits.`
      : `${names[place]} is the first token: the model did not predict it.`;
    byId("chosen").replaceChildren(line, ...(table ? [table.cloneNode(true)] : []));
    byId("chosen").hidden = false;
  };
  buttons.forEach((button, place) => button.addEventListener("click", () => choose(place)));
  moveWithArrows(prompt, () => buttons);
}

// The lens: a line above the table has the numbers of the cell under the mouse or the focus.
const lens = byId("lens-map");
if (lens) {
  const cells = [...lens.tBodies[0].querySelectorAll("td")];
  const tell = (event) => {
    const at = cells.indexOf(event.target.closest("td"));
    if (at < 0) return;
    const row = Math.floor(at / size);
    const place = found.lens[row].places[at % size];
    byId("lens-readout").textContent =
      `After ${lens.tBodies[0].rows[row].cells[0].textContent}, at token ${(at % size) + 1} ${names[at % size]}: likeliest ` +
      `${cells[at].textContent} ${shown(place.probability, 3)}, true next token ${shown(place.next, 3)}, KL ${shown(place.kl)}`;
  };
  lens.setAttribute("role", "grid");
  lens.addEventListener("mouseover", tell);
  lens.addEventListener("focusin", tell);
  moveWithArrows(lens, () => cells);
}

// Attention. A pattern has the weights of row i, i + 1 of them, one byte each, after those of the rows before.
const patterns = new Map();
function weights(head) {
  if (!patterns.has(head)) patterns.set(head, Uint8Array.from(atob(found.heads[head].pattern), (c) => c.charCodeAt(0)));
  return patterns.get(head);
}
const weight = (head, reader, read) => weights(head)[(reader * (reader + 1)) / 2 + read] / 255;
const headName = (head) => `${found.heads[head].layer}.${found.heads[head].head}`;
const reading = (head, reader, read) => `${names[reader]} reads ${names[read]}: ${shown(weight(head, reader, read))}`;

// A weight is the opacity of the colour, so that the background of either colour scheme fits.
function paint(canvas, head) {
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d");
  context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--cold").trim();
  const [red, green, blue] = context.fillStyle.match(/\w\w/g).map((part) => parseInt(part, 16));
  const image = context.createImageData(size, size);
  for (let reader = 0; reader < size; reader++) {
    for (let read = 0; read <= reader; read++) {
      const opacity = 14 + 241 * Math.sqrt(weight(head, reader, read));
      image.data.set([red, green, blue, opacity], 4 * (reader * size + read));
    }
  }
  context.putImageData(image, 0, 0);
}

const maps = byId("maps");
if (maps) {
  const buttons = [...maps.children];
  const canvases = buttons.map((button) => button.querySelector("canvas"));
  const paintAll = () => canvases.forEach(paint);
  const visible = () => [...maps.children].filter((button) => !button.hidden);
  const neighbour = (head, step) => {
    const order = visible();
    return buttons.indexOf(order.at((order.indexOf(buttons[head]) + step) % order.length));
  };
  const open = largeHead(neighbour, (head) => buttons[head].focus());
  const place = (distance, length) => Math.floor((distance * size) / length);
  paintAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paintAll);
  maps.style.setProperty("--columns", Math.max(...found.heads.map((head) => head.head)) + 1);
  maps.hidden = document.querySelector(".tools").hidden = false;

  buttons.forEach((button, head) => {
    button.addEventListener("click", () => open(head));
    canvases[head].addEventListener("mousemove", (event) => {
      const box = canvases[head].getBoundingClientRect();
      const reader = place(event.clientY - box.top, box.height), read = place(event.clientX - box.left, box.width);
      if (reader >= 0 && reader < size && read >= 0 && read <= reader)
        byId("heads-readout").textContent = `${headName(head)}: ${reading(head, reader, read)}`;
    });
  });
  moveWithArrows(maps, visible);

  const arrange = () => {
    const order = byId("order").value, only = byId("only").value;
    const score = (head) => found.heads[head].repeated[order];
    const sorted = buttons.map((_, head) => head);
    if (order !== "layer") sorted.sort((a, b) => (score(b) ?? -1) - (score(a) ?? -1));
    maps.replaceChildren(...sorted.map((head) => buttons[head]));
    buttons.forEach((button, head) => {
      const { label } = found.heads[head];
      button.hidden = only !== "all" && label !== only;
      button.querySelector("small").textContent = order === "layer" ? label : `${shown(score(head))} ${label}`;
    });
    maps.classList.toggle("sorted", order !== "layer" || only !== "all");
    const [first] = visible();
    buttons.forEach((button) => { button.tabIndex = button === first ? 0 : -1; });
  };
  byId("order").addEventListener("change", arrange);
  byId("only").addEventListener("change", arrange);
}

// The large drawing of one head: tokens at both edges, a frame that the mouse or the arrow keys move.
// Its buttons go to the neighbour in the order on the page.
function largeHead(neighbour, afterClose) {
  const dialog = byId("large"), canvas = byId("large-map"), context = canvas.getContext("2d");
  const margin = 96;
  let head = 0, reader = 0, read = 0, cell = 0;

  const draw = () => {
    const styles = getComputedStyle(document.documentElement), scale = devicePixelRatio || 1;
    const room = Math.min(canvas.parentElement.clientWidth - 8, innerHeight - 220) - margin;
    cell = Math.max(9, Math.min(40, Math.floor(room / size)));
    const side = margin + cell * size + 2;
    Object.assign(canvas, { width: side * scale, height: side * scale });
    Object.assign(canvas.style, { width: `${side}px`, height: `${side}px` });
    context.scale(scale, scale);
    const pattern = document.createElement("canvas");
    paint(pattern, head);
    context.imageSmoothingEnabled = false;
    context.drawImage(pattern, margin, margin, cell * size, cell * size);
    context.font = `${Math.min(13, cell)}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    names.forEach((name, i) => {
      const label = [...name].slice(0, 11).join("") + ([...name].length > 11 ? "…" : "");
      context.textAlign = "right";
      context.fillStyle = styles.getPropertyValue(i === reader ? "--ink" : "--soft");
      context.fillText(label, margin - 6, margin + cell * (i + 0.5));
      context.save();
      context.translate(margin + cell * (i + 0.5), margin - 6);
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      context.fillStyle = styles.getPropertyValue(i === read ? "--ink" : "--soft");
      context.fillText(label, 0, 0);
      context.restore();
    });
    context.strokeStyle = styles.getPropertyValue("--ink");
    context.lineWidth = 2;
    context.strokeRect(margin + cell * read, margin + cell * reader, cell, cell);
    byId("large-readout").textContent = reading(head, reader, read);
  };
  const point = (newReader, newRead) => {
    if (newReader < 0 || newReader >= size || newRead < 0 || newRead > newReader) return;
    [reader, read] = [newReader, newRead];
    draw();
  };
  const showFrame = () => {
    const box = canvas.parentElement;
    box.scrollLeft = margin + cell * read - box.clientWidth / 2;
    dialog.scrollTop = canvas.offsetTop + margin + cell * reader - dialog.clientHeight / 2;
  };
  const show = (number) => {
    head = number;
    const row = found.heads[head];
    byId("large-name").textContent = `Head ${headName(head)}${row.label && ", " + row.label}`;
    const told = (of) => Object.entries(scores).map(([key, name]) => `${name} ${shown(of[key])}`).join(", ");
    byId("large-scores").textContent = `On this prompt: ${told(row)}. On a repeated random sequence: ${told(row.repeated)}.`;
    if (dialog.querySelector("details").open) fill();
    draw();
  };
  const fill = () => {
    const table = byId("large-table");
    table.replaceChildren();
    table.createCaption().textContent = "Rows read, columns are read";
    const line = (section, title, cells) => {
      const row = section.insertRow();
      [title, ...cells].forEach((content, i) => {
        const cell = document.createElement(i && section === table.tBodies[0] ? "td" : "th");
        if (cell.tagName === "TH") cell.scope = i ? "col" : "row";
        cell.textContent = content;
        row.append(cell);
      });
    };
    line(table.createTHead(), "", names);
    const body = table.createTBody();
    names.forEach((name, i) => line(body, name, names.slice(0, i + 1).map((_, j) => shown(weight(head, i, j)))));
  };

  canvas.addEventListener("mousemove", (event) => {
    const box = canvas.getBoundingClientRect();
    point(Math.floor((event.clientY - box.top - margin) / cell), Math.floor((event.clientX - box.left - margin) / cell));
  });
  canvas.addEventListener("keydown", (event) => {
    const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [0, 0];
    if (!down && !right) return;
    event.preventDefault();
    point(reader + down, Math.min(read, reader + down) + right);
    showFrame();
  });
  dialog.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (event.target === dialog || button?.matches("[data-close]")) dialog.close();
    else if (button) show(neighbour(head, Number(button.dataset.step)));
  });
  dialog.addEventListener("close", () => afterClose(head));
  dialog.querySelector("details").addEventListener("toggle", (event) => event.target.open && fill());
  addEventListener("resize", () => dialog.open && draw());
  return (number) => {
    [reader, read] = [size - 1, 0];
    dialog.showModal();
    show(number);
    canvas.focus({ preventScroll: true });
    canvas.parentElement.scrollLeft = dialog.scrollTop = 0;
  };
}
