"use strict";
(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const steps = all(".step"), play = document.getElementById("play");
  const numbersOf = (step) => step.dataset.numbers.split(" ").filter(Boolean);
  let current = -1, timer = 0;

  // -1 shows the image with all objects, 0 … the steps, the last one the answer.
  function show(index) {
    current = Math.max(-1, Math.min(index, steps.length - 1));
    const step = steps[current], on = new Set(step ? numbersOf(step) : []);
    document.body.classList.toggle("stepping", Boolean(step));
    for (const one of all("[data-number]:not(.label)")) one.classList.toggle("on", on.has(one.dataset.number));
    for (const box of all(".box")) box.classList.toggle("on", Number(box.dataset.step) === current + 1);
    steps.forEach((one, i) => i === current ? one.setAttribute("aria-current", "step") : one.removeAttribute("aria-current"));
    document.getElementById("place").textContent = step ? `${current + 1} of ${steps.length}` : "all objects";
    if (step) step.scrollIntoView({ block: "nearest" });
  }

  function pause() {
    clearInterval(timer);
    timer = 0;
    play.textContent = "▶";
  }

  function toggle() {
    if (timer) return pause();
    if (current === steps.length - 1) show(-1);
    play.textContent = "❚❚";
    timer = setInterval(() => {
      show(current + 1);
      if (current === steps.length - 1) pause();
    }, 1800);
  }

  function go(index) {
    pause();
    show(index);
  }

  // The same object in text and picture.
  function light(number, lit) {
    for (const one of all(`[data-number="${Number(number)}"]`)) one.classList.toggle("lit", lit);
  }

  // Numbers keep their size on the screen.
  function resize() {
    const unit = document.querySelector("svg").getScreenCTM();
    for (const tag of all(".tag")) tag.setAttribute("transform", `translate(${tag.dataset.x} ${tag.dataset.y}) scale(${1 / unit.a})`);
  }

  for (const one of all(".label, .object")) {
    for (const name of ["mouseenter", "focus"]) one.addEventListener(name, () => light(one.dataset.number, true));
    for (const name of ["mouseleave", "blur"]) one.addEventListener(name, () => light(one.dataset.number, false));
  }
  steps.forEach((one, i) => one.addEventListener("click", () => go(i)));
  document.getElementById("back").addEventListener("click", () => go(current - 1));
  document.getElementById("next").addEventListener("click", () => go(current + 1));
  play.addEventListener("click", toggle);
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const moves = { ArrowLeft: current - 1, ArrowRight: current + 1, Home: 0, End: steps.length - 1 };
    if (event.key in moves) go(moves[event.key]);
    else if (event.key === " " && event.target.tagName !== "BUTTON") toggle();
    else return;
    event.preventDefault();
  });
  addEventListener("resize", resize);
  resize();
  show(-1);
})();
