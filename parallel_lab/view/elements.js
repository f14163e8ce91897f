// The elements of the widget: what stands on the page, and what is written into it.

const HELP = "Arrow left and right move, plus and minus zoom, arrow up and down change the rank, " +
  "Shift with an arrow steps through its spans, Home shows all, Escape clears the selection.";

function element(tag, className, parent, attributes = {}) {
  const made = document.createElement(tag);
  made.className = className;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  parent.appendChild(made);
  return made;
}

function build(el, data) {
  const root = element("div", "plab-timeline", el, {
    tabindex: "0", role: "application", "aria-label": `${data.label} ${HELP}`, "aria-roledescription": "timeline",
  });
  if (data.title) element("div", "plab-timeline-title", root, { "aria-hidden": "true" }).textContent = data.title;
  const picture = element("div", "plab-timeline-picture", root);
  const canvas = element("canvas", "plab-timeline-canvas", picture, { "aria-hidden": "true" });
  const tip = element("div", "plab-timeline-tip", picture, { "aria-hidden": "true" });
  const legend = element("div", "plab-timeline-legend", root, { "aria-hidden": "true" });
  const live = element("div", "plab-timeline-live", root, { "aria-live": "polite", role: "status" });
  element("div", "plab-timeline-help", root, { "aria-hidden": "true" }).textContent = HELP;
  const numbers = element("details", "plab-timeline-numbers", root);
  element("summary", "", numbers).textContent = data.folded;
  element("pre", "plab-timeline-text", numbers).textContent = data.text;
  element("p", "plab-timeline-words", numbers).textContent = data.words;
  return { root, canvas, tip, legend, live };
}

function placeTip(tip, scene, rows, x, y) {
  tip.replaceChildren();
  for (const [name, value] of rows) {
    const line = element("div", "plab-timeline-fact", tip);
    element("span", "plab-timeline-name", line).textContent = name;
    element("span", "plab-timeline-value", line).textContent = value;
  }
  tip.style.display = "block";
  tip.style.left = `${Math.max(0, Math.min(x + 14, scene.width - (tip.offsetWidth || 220)))}px`;
  tip.style.top = `${y + 16}px`;
}

function fillLegend(legend, data) {
  for (const kind of data.kinds) {
    const entry = element("span", "plab-timeline-kind", legend);
    const swatch = element("canvas", "plab-timeline-swatch", entry);
    [swatch.width, swatch.height] = [28, 14];
    const pen = swatch.getContext("2d");
    pen.fillStyle = hatch(pen, kind, 1);
    pen.fillRect(0, 0, 28, 14);
    entry.append(kind.name);
  }
}
