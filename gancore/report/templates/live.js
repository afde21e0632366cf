// Asks for news, and replaces the sections that changed; what the reader has opened, chosen and scrolled to stays.
const sectionsOf = (root) => [...root.querySelectorAll("main > section")];
let version = document.getElementById("live").dataset.version;
const received = new Map(sectionsOf(document).map((section) => [section.id, section.outerHTML]));
const opened = new Map();
document.addEventListener("toggle", (event) => {
  if (event.target.dataset.key) opened.set(event.target.dataset.key, event.target.open);
}, true);
const say = (text) => { document.getElementById("live").textContent = text; };

function anchor() {
  const seen = sectionsOf(document).find((section) => section.getBoundingClientRect().bottom > 0);
  return seen && { id: seen.id, top: seen.getBoundingClientRect().top };
}

function replace(old, section) {
  const slider = old.querySelector(".timeline input");
  const steps = slider && JSON.parse(old.querySelector(".timeline").dataset.steps);
  const focused = document.activeElement === slider && slider;
  old.replaceWith(section);
  for (const details of section.querySelectorAll("details[data-key]")) {
    if (opened.has(details.dataset.key)) details.open = opened.get(details.dataset.key);
  }
  const timeline = section.querySelector(".timeline");
  if (timeline && slider && Number(slider.value) < steps.length - 1) {  // else it follows the newest
    const chosen = steps[Number(slider.value)];
    const now = timeline.querySelector("input");
    now.value = Math.max(JSON.parse(timeline.dataset.steps).filter((at) => at <= chosen).length - 1, 0);
    showStep(timeline, Number(now.value));
  }
  if (focused && timeline) timeline.querySelector("input").focus({ preventScroll: true });
}

async function update() {
  const state = await (await fetch("state.json", { cache: "no-store" })).json();
  if (state.version !== version) {
    const text = await (await fetch("/", { cache: "no-store" })).text();
    const page = new DOMParser().parseFromString(text, "text/html");
    const before = anchor();
    for (const section of sectionsOf(page)) {
      const html = section.outerHTML;
      if (received.get(section.id) !== html) {
        replace(document.getElementById(section.id), document.importNode(section, true));
        received.set(section.id, html);
      }
    }
    document.title = page.title;
    if (before) scrollBy(0, document.getElementById(before.id).getBoundingClientRect().top - before.top);
    version = page.getElementById("live").dataset.version;
  }
  say(state.state === "running" ? `step ${state.step.toLocaleString("en")}; updates by itself` : state.state);
}

async function watch() {
  try {
    await update();
  } catch (error) {
    say("gan watch has stopped; this is the last it showed");
  }
  setTimeout(watch, 2000);
}
watch();
