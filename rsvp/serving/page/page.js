// The page of `rsvp demo`: asks the server's JSON API and draws what it answers.
const $ = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];
const ASKS = { segment: "What to find", answer: "Question", trace: "Question; every object on the way is shown" };
const COLOURS = ["#ff385c", "#1e90ff", "#32cd5a", "#ffaa00", "#b054ff", "#00ced1", "#ff69c8", "#bed228"];
const DARK_INK = ["#32cd5a", "#ffaa00", "#00ced1", "#ff69c8", "#bed228"];
const SVG = ["g", "rect", "path", "use", "circle", "text"];

let server = null; // what /v1/pipeline says
let file = null, size = null; // the image, and its { width, height } in pixels
let hints = [], tool = "", start = null, cursor = null; // hints: { kind, at: [x, y] or [x0, y0, x1, y1] }
let found = null, objects = []; // the last result, and its objects
let request = null; // the one under way: an AbortController

function element(name, attributes = {}, ...children) {
  const one = SVG.includes(name) ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) one.addEventListener(key.slice(2), value);
    else if (key.startsWith("--")) one.style.setProperty(key, value);
    else one.setAttribute(key, value);
  }
  one.append(...children);
  return one;
}

const button = (text, onclick, more = {}) => element("button", { type: "button", onclick, ...more }, text);
const lines = (texts, name) => texts.map((text) => element(name, { dir: "auto" }, text));
const say = (text) => { $("status").textContent = text; };

function notice(title, ...texts) {
  $("notice").hidden = !title;
  $("notice").replaceChildren(element("b", {}, title), ...lines(texts.filter(Boolean), "p"));
}

// ------------------------------------------------------------ the server

// Without credentials, or the browser itself would ask for a password.
async function call(path, options = {}) {
  const token = sessionStorage.getItem("rsvp-token"), sent = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch(path, { ...options, credentials: "omit", headers: { ...sent, ...options.headers } });
  if (response.ok) return response;
  if (response.status === 401) $("sign-in").hidden = false;
  const body = await response.json().catch(() => ({}));
  throw new Error(body.error?.message ?? `the server answers with status ${response.status}`);
}

async function connect() {
  server = await (await call("/v1/pipeline")).json();
  $("sign-in").hidden = true;
  $("models").textContent = [server.models.mllm ?? "no MLLM: draw boxes or points", server.models.segmenter].join(" · ");
  $("presets").replaceChildren(...server.presets.filter((one) => !one.runs && !server.offered.includes(one.name)).map((one) =>
    element("p", {}, element("code", {}, `rsvp demo --preset ${one.name}`), ` ${one.handles}`)));
  $("preset").replaceChildren(...server.offered.map((name) => element("option", {}, name)));
  $("preset").value = server.preset;
  for (const one of [$("preset"), document.querySelector("[for=preset]")]) one.hidden = server.offered.length < 2;
  $("strategy").replaceChildren(...server.strategies.map((name) => element("option", {}, name)));
  $("strategy").value = server.strategy;
  $("strategy").disabled = !server.strategies.length;
  for (const one of all("[name=task]")) one.disabled = !server.tasks.includes(one.value);
  $("examples").hidden = !server.examples.length;
  $("examples").querySelector("ul").replaceChildren(...await Promise.all(server.examples.map(exampleItem)));
}

async function exampleItem({ image, questions }, index) {
  const blob = await (await call(image)).blob();
  const try_ = ([task, text]) => button(text, () => {
    document.querySelector(`[name=task][value=${task}]`).click();
    $("question").value = text;
    ask();
  });
  const picture = element("img", { src: URL.createObjectURL(blob), alt: `Example ${index + 1}` });
  const opener = button(picture, async () => {
    if (!await show(new File([blob], `example-${index + 1}.png`, { type: blob.type }))) return;
    opener.setAttribute("aria-pressed", true);
    $("suggestions").replaceChildren(...questions.map((one) => element("li", {}, try_(one))));
  }, { "aria-pressed": false });
  return element("li", {}, opener);
}

// The server-sent events of a response, as they come.
async function* events(response) {
  let rest = "";
  for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
    const whole = (rest + text).split("\n\n");
    rest = whole.pop();
    for (const event of whole) {
      const match = /^event: (\w+)\ndata: (.*)$/.exec(event);
      if (match) yield { name: match[1], data: JSON.parse(match[2]) };
    }
  }
}

// ------------------------------------------------------------ asking

const task = () => document.querySelector("[name=task]:checked").value;
const places = (kind) => hints.filter((one) => one.kind === kind).map((one) => one.at);
const isOther = () => server?.offered.length > 1 && $("preset").value !== server.preset; // preset than the loaded one
const isMarked = () => task() !== "trace" && places("box").length + places("point").length > 0;

function body() {
  const form = new FormData(), add = (name, list) => { if (list?.length) form.append(name, JSON.stringify(list)); };
  form.append("image", file);
  form.append("query", $("question").value.trim());
  if (isOther()) form.append("preset", $("preset").value);
  if (isMarked()) {
    add("boxes", places("box"));
    add("points", [...places("point").map((at) => [...at, 1]), ...places("not").map((at) => [...at, 0])]);
  } else {
    if ($("strategy").value && !isOther()) form.append("strategy", $("strategy").value);
    add("within", places("within")[0]);
    add("exclude", places("not"));
  }
  return form;
}

async function ask() {
  if (request) return request.abort();
  if (!file) return say("Choose an image first.");
  if (!$("question").value.trim() && !(isMarked() && task() === "segment")) {
    $("question").focus();
    return say("Write what to find, or draw a box around it.");
  }
  clearResult();
  const exchanged = isOther();
  request = new AbortController();
  const began = performance.now(), seconds = () => `${((performance.now() - began) / 1000).toFixed(1)} s`;
  const clock = setInterval(() => { $("status").dataset.seconds = seconds(); }, 100);
  document.body.classList.add("waiting");
  $("ask").textContent = "Stop";
  say(exchanged ? `Loading ${$("preset").value}` : isMarked() && task() === "segment" ? "Segmenting" : "Reasoning");
  try {
    const options = { method: "POST", body: body(), signal: request.signal, headers: { Accept: "text/event-stream" } };
    let last = null;
    for await (last of events(await call(`/v1/${task()}`, options))) {
      if (last.name === "steps") drawSteps(last.data.steps.map((step) => ({ ...step, objects: [] })));
      else if (last.name === "error") throw new Error(last.data.error.message);
    }
    if (last?.name !== "result") throw new Error("the server ended without a result");
    drawResult(last.data, seconds());
  } catch (error) {
    const stopped = error.name === "AbortError";
    say(stopped ? "Stopped." : "");
    if (!stopped) notice("That did not work.", error.message);
  } finally {
    clearInterval(clock);
    request = null;
    document.body.classList.remove("waiting");
    $("ask").textContent = "Ask";
    if (exchanged) await connect().catch(refused);
  }
}

// ------------------------------------------------------------ the result

function clearResult() {
  [found, objects] = [null, []];
  $("notice").hidden = $("result").hidden = $("downloads").hidden = $("warned").hidden = true;
  $("picture").classList.remove("stepping");
  for (const id of ["steps", "targets", "answer", "reason", "cost", "outlines", "cut", "masks", "boxes"]) $(id).replaceChildren();
}

// The three kinds of documents in one form.
function read(result) {
  const entries = result.targets ?? result.looks?.flatMap((look) => look.targets) ?? [];
  const named = result.path ? [...result.path.flatMap((step) => step.objects), ...result.answer_objects].filter((one) => one.number)
    : entries.map((one, index) => ({ ...one, number: index + 1 }));
  const unique = [...new Map(named.map((one) => [one.number, one])).values()].sort((a, b) => a.number - b.number);
  const steps = (result.path ?? result.steps).map(({ text, boxes = [], objects: own }) => {
    for (const one of own ?? []) text = text.replace(` [${one.number ?? "?"}]`, ""); // the labels get the numbers
    return { text, boxes, objects: own ?? unique.filter((one) => boxes.some((box) => iou(box, one.box) > 0.5)) };
  });
  return { steps, unique };
}

function iou([a0, b0, a1, b1], [c0, d0, c1, d1]) {
  const shared = Math.max(0, Math.min(a1, c1) - Math.max(a0, c0)) * Math.max(0, Math.min(b1, d1) - Math.max(b0, d0));
  return shared / ((a1 - a0) * (b1 - b0) + (c1 - c0) * (d1 - d0) - shared || 1);
}

function drawResult(result, took) {
  const { steps, unique } = read(result), { understood, warnings, usage, models } = result;
  found = result;
  objects = unique.map((one) => {
    const colour = COLOURS[(one.number - 1) % COLOURS.length];
    return { ...one, ...shape(one.mask), style: { "data-number": one.number, "--colour": colour, "--on-colour": DARK_INK.includes(colour) ? "#000" : "#fff", ...lighting(one.number) } };
  });
  setSize(result.image);
  drawMasks();
  drawSteps(steps);
  const absent = !objects.length && task() === "segment" ? "Not in this image" : "";
  $("answer").textContent = understood ? result.answer ?? absent : "";
  $("reason").textContent = understood ? result.reason : "";
  $("targets").replaceChildren(...objects.map((one) => element("li", {}, labelButton(one, one.label || "target"),
    element("span", { class: "soft", title: "The IoU that the segmenter predicts" }, one.score.toFixed(2)),
    button("PNG", () => saveMask([one], `mask-${one.number}.png`), { "aria-label": `Download mask ${one.number}` }))));
  $("downloads").hidden = false;
  $("get-mask").hidden = !objects.length;
  $("warned").hidden = !warnings.length;
  $("warned").querySelector("summary").textContent = warnings.length === 1 ? "1 warning" : `${warnings.length} warnings`;
  $("warned").querySelector("ul").replaceChildren(...lines(warnings, "li"));
  const tokens = usage.calls ? `${usage.prompt_tokens} tokens read, ${usage.completion_tokens} written` : "";
  $("cost").textContent = [took, tokens, models.strategy, models.segmenter].filter(Boolean).join(" · ");
  say(understood ? `Done: ${objects.length === 1 ? "1 mask" : `${objects.length} masks`}.` : "");
  if (!understood) {
    notice("This model cannot read this image.", result.reason,
      "Draw a box around what you mean: then only the segmenter is asked. Or start another model, see Models below.");
    $("about").open = true;
  }
}

function drawMasks() {
  $("outlines").replaceChildren(...objects.map((one) => element("path", { id: `o${one.number}`, d: one.path, "fill-rule": "evenodd" })));
  $("cut").replaceChildren(...objects.map((one) => element("use", { href: `#o${one.number}`, class: "hole", "data-number": one.number })));
  $("masks").replaceChildren(...objects.map((one) => element("g", { class: "object", ...one.style },
    element("use", { href: `#o${one.number}`, class: "halo" }), element("use", { href: `#o${one.number}` }),
    element("g", { class: "tag", "--x": `${one.x}px`, "--y": `${one.y}px` }, element("circle", { r: 10 }), element("text", { dy: 4.5 }, String(one.number))))));
}

function drawSteps(steps) {
  $("result").hidden = false;
  $("steps").replaceChildren(...steps.map((step) => {
    const light = (on) => () => lightStep(step, on);
    const events_ = { onmouseenter: light(true), onfocusin: light(true), onmouseleave: light(false), onfocusout: light(false) };
    return element("li", { class: "step", tabindex: 0, ...events_ }, element("div", { class: "text", dir: "auto" }, ...linked(step)));
  }));
}

function lightStep(step, on) {
  const numbers = on ? step.objects.map((one) => String(one.number)) : [];
  $("picture").classList.toggle("stepping", on && numbers.length + step.boxes.length > 0);
  for (const one of all("#drawing [data-number]")) one.classList.toggle("on", numbers.includes(one.dataset.number));
  $("boxes").replaceChildren(...(on ? step.boxes : []).map((box) => rectangle(box, "box on")));
}

// The text of a step, in which the labels of its objects are buttons; what it does not name follows.
function linked({ text, objects: named }) {
  const parts = [text];
  for (const { label, number } of [...named].sort((a, b) => b.label.length - a.label.length)) {
    const one = objects.find((other) => other.number === number), wanted = label.toLowerCase();
    const link = (shown) => one ? labelButton(one, shown) : element("span", { class: "lost", title: "no usable place" }, `${shown} [?]`);
    const at = parts.findIndex((part) => typeof part === "string" && wanted && part.toLowerCase().includes(wanted));
    const from = at < 0 ? -1 : parts[at].toLowerCase().indexOf(wanted), end = from + label.length;
    if (at < 0) parts.push(" ", link(label));
    else parts.splice(at, 1, parts[at].slice(0, from), link(parts[at].slice(from, end)), parts[at].slice(end));
  }
  return parts;
}

function labelButton(one, text) {
  return element("button", { type: "button", class: "label", ...one.style }, element("bdi", {}, text), element("b", {}, String(one.number)));
}

// The same object in text and picture.
function lighting(number) {
  const light = (on) => () => { for (const one of all(`[data-number="${number}"]`)) one.classList.toggle("lit", on); };
  return { onmouseenter: light(true), onfocusin: light(true), onmouseleave: light(false), onfocusout: light(false) };
}

// ------------------------------------------------------------ masks

// COCO's compressed run lengths: column by column, background first; from the fourth one on, the
// difference to the last but one (maskApi.c of cocoapi).
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

// The pixels of a mask, column by column, its outline as an SVG path, and its centre.
function shape({ size: [height, width], counts }) {
  const pixels = new Uint8Array(width * height), edges = new Map(), line = width + 1;
  const edge = (a, b) => edges.has(a) ? edges.get(a).push(b) : edges.set(a, [b]);
  let from = 0, count = 0, sumX = 0, sumY = 0;
  runs(counts).forEach((length, index) => pixels.fill(index % 2, from, from += length));
  for (let i = 0; i < pixels.length; i++) {
    if (!pixels[i]) continue;
    const x = Math.floor(i / height), y = i % height, corner = y * line + x;
    count += 1;
    sumX += x;
    sumY += y;
    if (!y || !pixels[i - 1]) edge(corner, corner + 1);
    if (!pixels[i + height]) edge(corner + 1, corner + 1 + line);
    if (y === height - 1 || !pixels[i + 1]) edge(corner + 1 + line, corner + line);
    if (!pixels[i - height]) edge(corner + line, corner);
  }
  let path = "";
  for (const begin of edges.keys()) {
    while (edges.get(begin).length) {
      path += `M${begin % line} ${Math.floor(begin / line)}`;
      let at = begin, last = 0;
      do {
        const to = edges.get(at).pop();
        if (to - at !== last && last) path += Math.abs(last) === 1 ? `H${at % line}` : `V${Math.floor(at / line)}`;
        [at, last] = [to, to - at];
      } while (at !== begin);
      path += "Z";
    }
  }
  return { pixels, width, height, path, x: sumX / (count || 1), y: sumY / (count || 1) };
}

function saveMask(several, name) {
  const [{ width, height }] = several, canvas = element("canvas", { width, height });
  const context = canvas.getContext("2d"), image = context.createImageData(width, height), rgba = new Uint32Array(image.data.buffer);
  for (let i = 0; i < rgba.length; i++) {
    const place = (i % width) * height + Math.floor(i / width);
    rgba[i] = several.some((one) => one.pixels[place]) ? 0xffffffff : 0xff000000;
  }
  context.putImageData(image, 0, 0);
  canvas.toBlob((blob) => save(blob, name));
}

function save(blob, name) {
  const href = URL.createObjectURL(blob);
  element("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
}

// ------------------------------------------------------------ hints

function rectangle([x0, y0, x1, y1], name) {
  return element("rect", { class: name, x: Math.min(x0, x1), y: Math.min(y0, y1), width: Math.abs(x1 - x0), height: Math.abs(y1 - y0) });
}

// Draws the hints, and says what they will do.
function drawHints(end = null) {
  const drawn = [...hints, ...(start && end ? [{ kind: tool, at: [...start, ...end] }] : [])];
  $("marks").replaceChildren(
    ...drawn.map(({ kind, at }) => at.length > 2 ? rectangle(at, `hint ${kind}`) : element("circle", { class: `dot ${kind}`, r: 6, "--x": `${at[0]}px`, "--y": `${at[1]}px` })),
    ...(cursor ? [element("path", { class: "cross", d: `M0 ${cursor[1]}H${size.width}M${cursor[0]} 0V${size.height}` })] : []),
  );
  const drawsTargets = places("box").length + places("point").length;
  $("hints").textContent = [
    drawsTargets && task() === "trace" ? "A trace takes no boxes and points: they are not sent." : "",
    isMarked() && task() === "segment" ? "The segmenter gets what you drew and no MLLM is asked; the question names it." : "",
    isMarked() && task() === "answer" ? "The model looks closer at what you drew." : "",
    places("within").length ? "Only what lies in the area counts." : "",
    places("not").length && !isMarked() ? "What you marked with − is left out." : "",
  ].filter(Boolean).join(" ") || (tool ? "Arrow keys and Enter draw too; Backspace takes the last one back." : "");
  $("clear").hidden = !hints.length;
}

function setTool(name) {
  tool = tool === name ? "" : name;
  start = cursor = null;
  for (const one of all("[data-tool]")) one.setAttribute("aria-pressed", one.dataset.tool === tool);
  $("drawing").classList.toggle("drawing", Boolean(tool));
  drawHints();
}

// A press, and for a box the release, by mouse, finger or Enter.
function press(at) {
  if (tool === "box" || tool === "within") start = at;
  else add(tool, at);
  drawHints();
}

function release(at) {
  const [x0, x1] = [start[0], at[0]].sort((a, b) => a - b), [y0, y1] = [start[1], at[1]].sort((a, b) => a - b);
  start = null;
  if (Math.min(x1 - x0, y1 - y0) >= 4 * unit()) add(tool, [x0, y0, x1, y1]);
  drawHints();
}

// The MLLM is told the area, the segmenter boxes and points: one excludes the other.
function add(kind, at) {
  const others = { within: ["within", "box", "point"], box: ["within"], point: ["within"] }[kind] ?? [];
  hints = [...hints.filter((one) => !others.includes(one.kind)), { kind, at }];
}

const unit = () => size.width / ($("drawing").clientWidth || size.width); // pixels of the image in one of the screen

function place({ clientX, clientY }) {
  const frame = $("drawing").getBoundingClientRect();
  const part = (value, length) => Math.round(Math.min(Math.max(value, 0), 1) * length * 10) / 10;
  return [part((clientX - frame.left) / frame.width, size.width), part((clientY - frame.top) / frame.height, size.height)];
}

function steer(event) {
  const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  const stride = (event.shiftKey ? 0.1 : 0.02) * Math.max(size.width, size.height), { width, height } = size;
  cursor ??= [width / 2, height / 2];
  if (move) cursor = [width, height].map((most, axis) => Math.round(Math.min(Math.max(cursor[axis] + move[axis] * stride, 0), most)));
  else if (event.key === "Enter") start ? release(cursor) : press(cursor);
  else if (event.key === "Backspace") hints.pop();
  else return;
  event.preventDefault();
  drawHints(cursor);
}

// ------------------------------------------------------------ the image

async function show(image) {
  const picture = $("image"), before = picture.src;
  picture.src = URL.createObjectURL(image);
  if (!await picture.decode().then(() => true, () => false)) {
    before ? picture.src = before : picture.removeAttribute("src");
    notice("This browser cannot show that file.", "PNG, JPEG, WebP, GIF and AVIF can be shown.");
    return false;
  }
  request?.abort();
  [file, hints] = [image, []];
  clearResult();
  setSize({ width: picture.naturalWidth, height: picture.naturalHeight });
  $("drop").hidden = true;
  $("picture").hidden = $("tools").hidden = false;
  $("suggestions").replaceChildren();
  for (const one of all("#examples [aria-pressed]")) one.setAttribute("aria-pressed", false);
  document.body.classList.add("shown");
  say("");
  drawHints();
  return true;
}

function setSize({ width, height }) {
  size = { width, height };
  $("drawing").setAttribute("viewBox", `0 0 ${width} ${height}`);
  $("picture").style.setProperty("--ratio", width / height);
  $("picture").style.setProperty("--unit", unit());
}

const given = (files) => { if (files?.length) show(files[0]); };

// ------------------------------------------------------------ events

const on = (target, names, take) => { for (const name of names.split(" ")) target.addEventListener(name, take); };

on($("file"), "change", () => { given($("file").files); $("file").value = ""; });
on($("other"), "click", () => $("file").click());
on(document, "paste", (event) => given(event.clipboardData?.files));
on(document, "dragover dragleave drop", (event) => {
  event.preventDefault();
  document.body.classList.toggle("dragging", event.type === "dragover");
  if (event.type === "drop") given(event.dataTransfer?.files);
});
on($("form"), "submit", (event) => { event.preventDefault(); ask(); });
on($("question"), "keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); ask(); }
});
on($("form"), "change", () => { $("asks").textContent = ASKS[task()]; if (size) drawHints(); });
on($("preset"), "change", () => { // what the other one can do is known when it is loaded
  $("strategy").disabled = isOther() || !server.strategies.length;
  for (const one of all("[name=task]")) one.disabled = !isOther() && !server.tasks.includes(one.value);
});
for (const one of all("[data-tool]")) on(one, "click", () => setTool(one.dataset.tool));
on($("clear"), "click", () => { hints = []; drawHints(); });
on($("get-mask"), "click", () => saveMask(objects, "mask.png"));
on($("get-json"), "click", () => save(new Blob([JSON.stringify(found, null, 2)], { type: "application/json" }), "result.json"));
on($("drawing"), "pointerdown", (event) => {
  if (!tool || event.button) return;
  cursor = null;
  $("drawing").setPointerCapture(event.pointerId);
  press(place(event));
});
on($("drawing"), "pointermove", (event) => { if (start && !cursor) drawHints(place(event)); });
on($("drawing"), "pointerup", (event) => { if (start && !cursor) release(place(event)); });
on($("drawing"), "pointercancel", () => { start = null; drawHints(); });
on($("drawing"), "keydown", (event) => { if (tool) steer(event); });
on(document, "keydown", (event) => { if (event.key === "Escape" && tool) setTool(tool); });
new ResizeObserver(() => { if (size) $("picture").style.setProperty("--unit", unit()); }).observe($("picture"));
on($("sign-in"), "submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("rsvp-token", $("token").value.trim());
  notice("");
  connect().catch(refused);
});

function refused(error) {
  if ($("sign-in").hidden) notice("The server cannot be reached.", error.message);
  else if (sessionStorage.getItem("rsvp-token")) notice("This is not the token.");
}

connect().catch(refused);
