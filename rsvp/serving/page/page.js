// The page of `rsvp demo`: asks the server's JSON API and draws what it answers.
const $ = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];
const ASKS = { segment: "What to find", answer: "Question", trace: "Question, answered by a path of objects" };
const COLOURS = ["#ff385c", "#1e90ff", "#32cd5a", "#ffaa00", "#b054ff", "#00ced1", "#ff69c8", "#bed228"];
const LIGHT = new Set(["#32cd5a", "#ffaa00", "#00ced1", "#ff69c8", "#bed228"]);
const EDGE = 4; // pixels of the screen: a smaller box is a click

let server = null; // what /v1/pipeline says
let file = null, size = null; // the image, and its { width, height } in pixels
let hints = noHints(), tool = "", start = null, cursor = null;
let found = null, objects = [], chosen = null; // the last result, its objects, the step that is selected
let request = null; // the one under way: an AbortController

function noHints() {
  return { boxes: [], points: [], within: null };
}

function element(name, attributes = {}, ...children) {
  const svg = ["svg", "g", "rect", "path", "use", "circle", "text", "mask", "defs"].includes(name);
  const one = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) one.addEventListener(key.slice(2), value);
    else if (key.startsWith("--")) one.style.setProperty(key, value);
    else one.setAttribute(key, value);
  }
  one.append(...children);
  return one;
}

// ------------------------------------------------------------ the server

function headers() {
  const token = sessionStorage.getItem("rsvp-token");
  return token ? { Authorization: `Bearer ${token}` } : {};
}

// credentials: or the browser itself would ask for a password.
async function call(path, options = {}) {
  const response = await fetch(path, { ...options, credentials: "omit", headers: { ...headers(), ...options.headers } });
  if (response.ok) return response;
  if (response.status === 401) $("sign-in").hidden = false;
  const body = await response.json().catch(() => ({}));
  throw new Error(body.error?.message ?? `the server answers with status ${response.status}`);
}

async function connect() {
  server = await (await call("/v1/pipeline")).json();
  $("sign-in").hidden = true;
  say("");
  const { mllm, segmenter } = server.models;
  $("models").textContent = [mllm ?? "no MLLM: draw boxes or points", segmenter].join(" · ");
  const others = server.presets.filter((one) => !one.runs);
  $("presets").replaceChildren(
    element("p", {}, "Another model needs another start:"),
    ...others.map((one) => element("p", {}, element("code", {}, `rsvp demo --preset ${one.name}`), ` ${one.handles}`)),
  );
  $("strategy").replaceChildren(...server.strategies.map((name) => element("option", {}, name)));
  if (server.strategy) $("strategy").value = server.strategy;
  $("strategy").disabled = server.strategies.length < 2;
  for (const one of all("[name=task]")) one.disabled = !server.tasks.includes(one.value);
  $("examples").hidden = !server.examples.length;
  $("examples").querySelector("ul").replaceChildren(...await Promise.all(server.examples.map(exampleButton)));
}

async function exampleButton({ image, questions }, index) {
  const blob = await (await call(image)).blob();
  const picture = element("img", { src: URL.createObjectURL(blob), alt: `Example ${index + 1}` });
  const open = async (event) => {
    const button = event.currentTarget;
    if (!await show(new File([blob], `example-${index + 1}.png`, { type: blob.type }))) return;
    button.setAttribute("aria-pressed", true);
    $("suggestions").replaceChildren(...questions.map(([task, text]) => element("li", {},
      element("button", { type: "button", onclick: () => { setTask(task); $("question").value = text; ask(); } }, text))));
  };
  return element("li", {}, element("button", { type: "button", "aria-pressed": false, onclick: open }, picture));
}

// The events of a response, as they come.
async function* events(response) {
  let rest = "";
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const whole = (rest + value).split("\n\n");
    rest = whole.pop();
    for (const event of whole) {
      const match = /^event: (\w+)\ndata: (.*)$/s.exec(event);
      if (match) yield { name: match[1], data: JSON.parse(match[2]) };
    }
  }
}

// ------------------------------------------------------------ asking

const task = () => document.querySelector("[name=task]:checked").value;

function setTask(name) {
  document.querySelector(`[name=task][value=${name}]`).checked = true;
  taskChanged();
}

function taskChanged() {
  $("asks").textContent = ASKS[task()];
  tellHints();
}

const marked = () => task() !== "trace" && (hints.boxes.length || hints.points.some((one) => one.positive));

function body() {
  const form = new FormData(), points = hints.points.map(({ x, y, positive }) => [x, y, Number(positive)]);
  const add = (name, value) => form.append(name, typeof value === "string" ? value : JSON.stringify(value));
  form.append("image", file);
  add("query", $("question").value.trim());
  if ($("strategy").value && !marked()) add("strategy", $("strategy").value);
  if (marked()) {
    if (hints.boxes.length) add("boxes", hints.boxes);
    if (points.length) add("points", points);
  } else {
    if (hints.within) add("within", hints.within);
    if (points.some((one) => !one[2])) add("exclude", points.filter((one) => !one[2]).map((one) => one.slice(0, 2)));
  }
  return form;
}

async function ask() {
  if (request) return request.abort();
  if (!file) return say("Choose an image first.");
  if (!$("question").value.trim() && (task() !== "segment" || !marked())) {
    $("question").focus();
    return say("Write what to find, or draw a box around it.");
  }
  clearResult();
  const asked = request = new AbortController(), began = performance.now();
  const clock = setInterval(() => { $("status").dataset.seconds = seconds(began); }, 100);
  document.body.classList.add("waiting", "writing");
  $("ask").textContent = "Stop";
  say(marked() ? "Segmenting" : "Reasoning");
  try {
    const options = { method: "POST", body: body(), signal: asked.signal, headers: { Accept: "text/event-stream" } };
    let last = null;
    for await (last of events(await call(`/v1/${task()}`, options))) {
      if (last.name === "steps") drawSteps(last.data.steps.map((step) => ({ ...step, objects: [] })));
      else if (last.name === "error") throw new Error(last.data.error.message);
    }
    if (last?.name !== "result") throw new Error("the server ended without a result");
    document.body.classList.remove("waiting", "writing");
    drawResult(last.data, seconds(began));
  } catch (error) {
    say(error.name === "AbortError" ? "Stopped." : "");
    if (error.name !== "AbortError") notice("That did not work.", error.message);
  } finally {
    clearInterval(clock);
    request = null;
    document.body.classList.remove("waiting", "writing");
    $("ask").textContent = "Ask";
  }
}

const seconds = (began) => `${((performance.now() - began) / 1000).toFixed(1)} s`;

function say(text) {
  $("status").textContent = text;
}

function notice(title, ...lines) {
  $("notice").hidden = !title;
  $("notice").setAttribute("role", "alert");
  $("notice").replaceChildren(element("b", {}, title), ...lines.filter(Boolean).map((line) => element("p", { dir: "auto" }, line)));
}

// ------------------------------------------------------------ the result

function clearResult() {
  found = chosen = null;
  objects = [];
  $("notice").hidden = true;
  $("result").hidden = true;
  for (const id of ["steps", "targets"]) $(id).replaceChildren();
  for (const id of ["answer", "reason", "cost"]) $(id).textContent = "";
  $("downloads").hidden = $("warned").hidden = true;
  draw();
}

// The three kinds of documents in one form: { steps: [{ text, boxes, objects }], objects, answer }.
function read(result) {
  const named = new Map(), entries = result.targets ?? result.looks?.flatMap((look) => look.targets) ?? [];
  entries.forEach((one, index) => named.set(index + 1, { ...one, number: index + 1 }));
  const traced = [...(result.path ?? []), { objects: result.answer_objects ?? [] }];
  for (const one of traced.flatMap((step) => step.objects)) if (one.number) named.set(one.number, one);
  const steps = (result.path ?? result.steps).map((step) => {
    const here = step.objects ?? [...named.values()].filter((one) => step.boxes.some((box) => iou(box, one.box) > 0.5));
    let text = step.text; // of a path it has the numbers, which the labels get here
    for (const one of step.objects ?? []) text = text.replace(` [${one.number ?? "?"}]`, "");
    return { text, boxes: step.boxes ?? [], objects: here };
  });
  return { steps, objects: [...named.values()].sort((a, b) => a.number - b.number) };
}

function iou([a0, b0, a1, b1], [c0, d0, c1, d1]) {
  const shared = Math.max(0, Math.min(a1, c1) - Math.max(a0, c0)) * Math.max(0, Math.min(b1, d1) - Math.max(b0, d0));
  return shared / ((a1 - a0) * (b1 - b0) + (c1 - c0) * (d1 - d0) - shared || 1);
}

function drawResult(result, took) {
  found = result;
  size = { width: result.image.width, height: result.image.height };
  const { steps, objects: named } = read(result);
  objects = named.map((one) => {
    const colour = COLOURS[(one.number - 1) % COLOURS.length];
    return { ...one, colour, ink: LIGHT.has(colour) ? "#000" : "#fff", ...shape(one.mask) };
  });
  drawSteps(steps);
  const none = !objects.length && task() === "segment";
  $("answer").textContent = result.answer ?? (none && result.understood ? "Not in this image" : "");
  $("reason").textContent = result.understood ? result.reason : "";
  $("targets").replaceChildren(...objects.map((one) => element("li", {}, labelButton(one, one.label || "target"),
    element("span", { class: "score", title: "The IoU that the segmenter predicts" }, one.score.toFixed(2)),
    element("button", { type: "button", class: "get", "aria-label": `Download the mask of ${one.number}`, onclick: () => saveMask([one], `mask-${one.number}.png`) }, "PNG"))));
  $("downloads").hidden = false;
  $("get-mask").hidden = !objects.length;
  $("warned").hidden = !result.warnings.length;
  $("warned").open = true;
  $("warned").querySelector("summary").textContent = result.warnings.length === 1 ? "1 warning" : `${result.warnings.length} warnings`;
  $("warned").querySelector("ul").replaceChildren(...result.warnings.map((text) => element("li", { dir: "auto" }, text)));
  const { prompt_tokens: read_, completion_tokens: written } = result.usage;
  const tokens = written ? [`${read_} tokens read, ${written} written`] : [];
  $("cost").textContent = [took, ...tokens, result.models.strategy, result.models.segmenter].filter(Boolean).join(" · ");
  if (!result.understood) {
    notice("This model cannot read this image.", result.reason,
      "Draw a box around what you mean: then only the segmenter is asked. For other images start the page with another model, see Models below.");
  }
  const count = objects.length === 1 ? "1 mask" : `${objects.length} masks`;
  say(result.understood ? `Done: ${count}.` : "");
  draw();
}

function drawSteps(steps) {
  $("result").hidden = false;
  $("steps").replaceChildren(...steps.map((step) => {
    const item = element("li", { class: "step", tabindex: 0 }, element("div", { class: "text", dir: "auto" }, ...linked(step)));
    const select = (on) => { chosen = on ? step : null; lightStep(step, on); };
    for (const name of ["mouseenter", "focus"]) item.addEventListener(name, () => select(true));
    for (const name of ["mouseleave", "blur"]) item.addEventListener(name, () => select(false));
    return item;
  }));
}

// The text of a step, in which the labels of its objects are buttons; the others follow it.
function linked({ text, objects: named }) {
  let parts = [text];
  for (const one of [...named].sort((a, b) => b.label.length - a.label.length)) {
    const at = parts.findIndex((part) => typeof part === "string" && one.label && part.toLowerCase().includes(one.label.toLowerCase()));
    const from = at < 0 ? -1 : parts[at].toLowerCase().indexOf(one.label.toLowerCase());
    const button = (label) => objects.find((other) => other.number === one.number) ? labelButton(byNumber(one.number), label)
      : element("span", { class: "lost", title: "not grounded: no usable place" }, `${label} [?]`);
    if (at < 0) parts.push(" ", button(one.label));
    else parts.splice(at, 1, parts[at].slice(0, from), button(parts[at].slice(from, from + one.label.length)), parts[at].slice(from + one.label.length));
  }
  return parts;
}

const byNumber = (number) => objects.find((one) => one.number === number);

function labelButton(one, text) {
  return element("button", { type: "button", class: "label", "data-number": one.number, "--colour": one.colour, "--on-colour": one.ink, ...lighting(one.number) },
    element("bdi", {}, text), element("b", {}, String(one.number)));
}

// The same object in text and picture.
function lighting(number) {
  const light = (on) => () => { for (const one of all(`[data-number="${number}"]`)) one.classList.toggle("lit", on); };
  return { onmouseenter: light(true), onfocus: light(true), onmouseleave: light(false), onblur: light(false) };
}

function lightStep(step, on) {
  const numbers = new Set(on ? step.objects.map((one) => String(one.number)) : []);
  $("picture").classList.toggle("stepping", on && (numbers.size > 0 || step.boxes.length > 0));
  for (const one of all("#drawing [data-number]")) one.classList.toggle("on", numbers.has(one.dataset.number));
  for (const one of all("#drawing .box")) one.remove();
  if (on) for (const box of step.boxes) $("drawing").append(rectangle(box, "box on"));
}

// ------------------------------------------------------------ masks

// COCO's compressed run lengths: column by column, background first; from the third one on, the
// differences to the last but one (cocoapi, maskApi.c).
function runs(counts) {
  const lengths = [];
  for (let at = 0; at < counts.length;) {
    let value = 0, shift = 0, code = 0;
    do {
      code = counts.charCodeAt(at++) - 48;
      value |= (code & 31) << shift;
      shift += 5;
    } while (code & 32);
    if (code & 16) value |= -1 << shift;
    lengths.push(lengths.length > 2 ? value + lengths.at(-2) : value);
  }
  return lengths;
}

// The pixels of a mask, row by row, and its outline as an SVG path for the rule even-odd.
function shape({ size: [height, width], counts }) {
  const pixels = new Uint8Array(width * height), spans = [];
  let from = 0;
  runs(counts).forEach((length, index) => {
    if (index % 2) spans.push([from, from + length]);
    from += length;
  });
  for (const [first, end] of spans) for (let i = first; i < end; i++) pixels[(i % height) * width + Math.floor(i / height)] = 1;
  const edges = new Map(), line = width + 1;
  const edge = (a, b) => edges.has(a) ? edges.get(a).push(b) : edges.set(a, [b]);
  for (const [first, end] of spans) {
    for (let i = first; i < end; i++) {
      const x = Math.floor(i / height), y = i % height, here = y * width + x, corner = y * line + x;
      if (!y || !pixels[here - width]) edge(corner, corner + 1);
      if (x === width - 1 || !pixels[here + 1]) edge(corner + 1, corner + 1 + line);
      if (y === height - 1 || !pixels[here + width]) edge(corner + 1 + line, corner + line);
      if (!x || !pixels[here - 1]) edge(corner + line, corner);
    }
  }
  let path = "", last = null, [sumX, sumY, count] = [0, 0, 0];
  for (const begin of edges.keys()) {
    while (edges.get(begin).length) {
      let at = begin;
      path += `M${at % line} ${Math.floor(at / line)}`;
      do {
        const to = edges.get(at).pop(), step = to - at;
        if (step !== last) path += Math.abs(step) === 1 ? `V${Math.floor(at / line)}` : `H${at % line}`;
        [at, last] = [to, step];
      } while (at !== begin);
      path += "Z";
    }
  }
  for (const [first, end] of spans) {
    count += end - first;
    sumX += (end - first) * Math.floor((first + end) / 2 / height);
    sumY += (end - first) * (((first + end) >> 1) % height);
  }
  return { pixels, width, height, path, x: sumX / (count || 1), y: sumY / (count || 1) };
}

async function saveMask(several, name) {
  const [{ width, height }] = several, canvas = element("canvas", { width, height });
  const context = canvas.getContext("2d"), data = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    data.data.fill(several.some((one) => one.pixels[i]) ? 255 : 0, 4 * i, 4 * i + 3);
    data.data[4 * i + 3] = 255;
  }
  context.putImageData(data, 0, 0);
  save(await new Promise((resolve) => canvas.toBlob(resolve)), name);
}

function save(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// ------------------------------------------------------------ the drawing

function rectangle([x0, y0, x1, y1], name) {
  return element("rect", { class: name, x: Math.min(x0, x1), y: Math.min(y0, y1), width: Math.abs(x1 - x0), height: Math.abs(y1 - y0) });
}

function draw() {
  if (!size) return;
  const { width, height } = size, whole = { width, height }, unit = width / ($("drawing").clientWidth || width);
  $("drawing").setAttribute("viewBox", `0 0 ${width} ${height}`);
  const object = (one) => element("g", { class: "object", "data-number": one.number, "--colour": one.colour, "--on-colour": one.ink, ...lighting(one.number) },
    element("use", { href: `#o${one.number}`, class: "halo" }), element("use", { href: `#o${one.number}` }),
    element("g", { class: "tag", transform: `translate(${one.x} ${one.y}) scale(${unit})` }, element("circle", { r: 10 }), element("text", { dy: 4.5 }, String(one.number))));
  $("drawing").replaceChildren(
    element("defs", {}, ...objects.map((one) => element("path", { id: `o${one.number}`, d: one.path, "fill-rule": "evenodd" })),
      element("mask", { id: "holes", maskUnits: "userSpaceOnUse", ...whole }, element("rect", { ...whole, fill: "#fff" }),
        ...objects.map((one) => element("use", { href: `#o${one.number}`, class: "hole", "data-number": one.number })))),
    element("rect", { ...whole, class: "veil", mask: "url(#holes)" }), ...objects.map(object),
    ...hints.boxes.map((box) => rectangle(box, "hint")), ...(hints.within ? [rectangle(hints.within, "within")] : []),
    ...hints.points.map(({ x, y, positive }) => element("circle", { class: positive ? "dot" : "dot no", cx: x, cy: y, r: 6 * unit, "stroke-width": 2 * unit })),
    ...(cursor ? [element("path", { class: "cross", d: `M0 ${cursor.y}H${width}M${cursor.x} 0V${height}` })] : []),
  );
  if (chosen) lightStep(chosen, true);
}

function tellHints() {
  const excluded = hints.points.filter((one) => !one.positive).length, trace = task() === "trace";
  const parts = [];
  if (hints.boxes.length || hints.points.some((one) => one.positive)) {
    parts.push(trace ? "A trace takes no boxes and points: they are not sent." : "The segmenter gets what you drew; the question names it and no MLLM is asked.");
  } else if (hints.within) parts.push("Only what lies in the area counts.");
  if (excluded && !marked()) parts.push("What you marked with − is left out.");
  if (!parts.length && tool) parts.push("Arrow keys and Enter draw, too; Backspace takes the last one back.");
  $("hints").textContent = parts.join(" ");
  $("clear").hidden = !(hints.boxes.length || hints.points.length || hints.within);
}

function setTool(name) {
  tool = tool === name ? "" : name;
  start = cursor = null;
  for (const one of all("[data-tool]")) one.setAttribute("aria-pressed", one.dataset.tool === tool);
  $("drawing").classList.toggle("drawing", Boolean(tool));
  hinted();
}

function hinted() {
  tellHints();
  draw();
}

// A press at a place, by mouse, finger or Enter; two of them make a box.
function press(at) {
  if (tool === "point" || tool === "not") {
    if (tool === "point") hints.within = null;
    hints.points.push({ ...at, positive: tool === "point" });
  } else if (tool) {
    start = at;
  }
  hinted();
}

function release(at) {
  const [x0, x1] = [start.x, at.x].sort((a, b) => a - b), [y0, y1] = [start.y, at.y].sort((a, b) => a - b);
  const least = EDGE * size.width / $("drawing").clientWidth;
  start = null;
  if (x1 - x0 >= least && y1 - y0 >= least) {
    if (tool === "box") Object.assign(hints, { boxes: [...hints.boxes, [x0, y0, x1, y1]], within: null });
    else Object.assign(hints, { within: [x0, y0, x1, y1], boxes: [], points: hints.points.filter((one) => !one.positive) });
  }
  hinted();
}

function stretch(at) {
  draw();
  $("drawing").append(rectangle([start.x, start.y, at.x, at.y], tool === "box" ? "hint" : "within"));
}

function place(event) {
  const frame = $("drawing").getBoundingClientRect();
  const part = (value, length) => Math.min(Math.max(value, 0), 1) * length;
  const [x, y] = [part((event.clientX - frame.left) / frame.width, size.width), part((event.clientY - frame.top) / frame.height, size.height)];
  return { x: Math.round(x * 10) / 10, y: Math.round(y * 10) / 10 };
}

function steer(event) {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const stride = (event.shiftKey ? 0.1 : 0.02) * Math.max(size.width, size.height), move = moves[event.key];
  cursor ??= { x: size.width / 2, y: size.height / 2 };
  if (move) {
    const along = (value, by, length) => Math.round(Math.min(Math.max(value + by * stride, 0), length));
    cursor = { x: along(cursor.x, move[0], size.width), y: along(cursor.y, move[1], size.height) };
    start ? stretch(cursor) : draw();
  } else if (event.key === "Enter") start ? release(cursor) : press(cursor);
  else if (event.key === "Backspace") undo();
  else return;
  event.preventDefault();
}

function undo() {
  const kind = tool === "box" ? hints.boxes : hints.points;
  if (tool === "within") hints.within = null;
  else kind.pop();
  hinted();
}

// ------------------------------------------------------------ the image

async function show(image) {
  const picture = $("image"), before = picture.src, url = URL.createObjectURL(image);
  request?.abort();
  picture.src = url;
  const shown = await picture.decode().then(() => true, () => false);
  if (!shown) {
    before ? picture.src = before : picture.removeAttribute("src");
    notice("This browser cannot show that file.", "PNG, JPEG, WebP, GIF and AVIF can be shown.");
    return false;
  }
  if (before) URL.revokeObjectURL(before);
  file = image;
  size = { width: picture.naturalWidth, height: picture.naturalHeight };
  hints = noHints();
  $("picture").style.setProperty("--ratio", size.width / size.height);
  $("drop").hidden = true;
  $("picture").hidden = $("tools").hidden = false;
  $("suggestions").replaceChildren();
  for (const one of all("#examples [aria-pressed]")) one.setAttribute("aria-pressed", false);
  say("");
  clearResult();
  tellHints();
  return true;
}

function given(files) {
  if (files?.length) show(files[0]);
}

// ------------------------------------------------------------ events

$("file").addEventListener("change", () => { given($("file").files); $("file").value = ""; });
$("other").addEventListener("click", () => $("file").click());
document.addEventListener("paste", (event) => given(event.clipboardData?.files));
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dragging", name === "dragover");
    if (name === "drop") given(event.dataTransfer?.files);
  });
}
$("form").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); ask(); }
});
for (const one of all("[name=task]")) one.addEventListener("change", taskChanged);
for (const one of all("[data-tool]")) one.addEventListener("click", () => setTool(one.dataset.tool));
$("clear").addEventListener("click", () => { hints = noHints(); hinted(); });
$("get-mask").addEventListener("click", () => saveMask(objects, "mask.png"));
$("get-json").addEventListener("click", () => save(new Blob([JSON.stringify(found, null, 2)], { type: "application/json" }), "result.json"));
$("drawing").addEventListener("pointerdown", (event) => {
  if (!tool || event.button) return;
  cursor = null;
  $("drawing").setPointerCapture(event.pointerId);
  press(place(event));
});
$("drawing").addEventListener("pointermove", (event) => { if (start && !cursor) stretch(place(event)); });
$("drawing").addEventListener("pointerup", (event) => { if (start && !cursor) release(place(event)); });
$("drawing").addEventListener("pointercancel", () => { start = null; draw(); });
$("drawing").addEventListener("keydown", (event) => { if (tool) steer(event); });
document.addEventListener("keydown", (event) => { if (event.key === "Escape" && tool) setTool(tool); });
new ResizeObserver(draw).observe($("picture"));
$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("rsvp-token", $("token").value.trim());
  $("notice").hidden = true;
  connect().catch(refused);
});

function refused(error) {
  if ($("sign-in").hidden) notice("The server cannot be reached.", error.message);
  else if (sessionStorage.getItem("rsvp-token")) notice("This is not the token.");
}

connect().catch(refused);
