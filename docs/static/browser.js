// The page "In your browser": each block of code with the class in-browser can be changed and run.
// The blocks share one Python, which a worker runs, so the page answers while Python computes.

const blocks = [];
let worker = null;
let running = null;

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function makeEditable(place) {
  const code = place.querySelector("pre").textContent.trimEnd();
  const editor = element("textarea", {
    className: "browser-code", value: code, spellcheck: false, rows: code.split("\n").length + 1, wrap: "off",
  });
  editor.setAttribute("aria-label", "Python code");
  const run = element("button", { type: "button", textContent: "Run" });
  const stop = element("button", { type: "button", textContent: "Stop", hidden: true });
  const output = element("div", { className: "browser-output" });
  output.setAttribute("aria-live", "polite");
  const block = { editor, run, stop, output };
  run.addEventListener("click", () => start(block));
  stop.addEventListener("click", () => giveUp("stopped; what was computed is lost"));
  editor.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.shiftKey)) {
      event.preventDefault();
      start(block);
    }
  });
  place.replaceChildren(editor, element("div", { className: "browser-buttons" }, run, stop), output);
  blocks.push(block);
}

function start(block) {
  if (running) return;
  if (!worker) {
    worker = new Worker(new URL("browser_worker.js", import.meta.url), { type: "module" });
    worker.addEventListener("message", (event) => receive(event.data));
    worker.addEventListener("error", (event) => giveUp(event.message || "Python could not be started"));
  }
  running = block;
  block.output.replaceChildren();
  showState();
  worker.postMessage(block.editor.value);
}

function receive({ kind, content }) {
  if (kind === "text" || kind === "error") say(content, kind);
  if (kind === "status") {
    running.output.querySelector(".browser-status")?.remove();
    if (content) say(content, "status");
  }
  if (kind === "picture") {
    const picture = element("img", { src: `data:image/png;base64,${content.png}`, alt: "The figure that was drawn" });
    picture.width = content.width;
    running.output.append(picture);
  }
  if (kind === "failure") giveUp(content);
  if (kind === "done") {
    running = null;
    showState();
  }
}

function say(text, kind) {
  const last = running.output.lastElementChild;
  if (last?.className === `browser-${kind}`) last.textContent += text;
  else running.output.append(element("pre", { className: `browser-${kind}`, textContent: text }));
}

function giveUp(reason) {
  worker?.terminate();
  worker = null;
  if (running) {
    running.output.querySelector(".browser-status")?.remove();
    say(reason, "error");
  }
  running = null;
  showState();
}

function showState() {
  for (const block of blocks) {
    block.run.disabled = running !== null;
    block.stop.hidden = block !== running;
  }
}

document.querySelectorAll(".in-browser").forEach(makeEditable);
